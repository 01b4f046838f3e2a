"""S5 and its block against numbers recorded from the official code."""

import numpy as np
import pytest

from keras_ssm.layers import S5, SSMBlock
from tests.backend_tools import relative_error
from tests.recordings import AUTO, Recording, evaluations, join, parts, slow_but, some, stacked

NAMES = [
    "clip",
    "complex_bidir",
    "h1_p2",
    "l1024_p64",
    "l257_p64",
    "lecun_bidir",
    "lecun_zoh",
    "noconj",
    "rescale2",
    "trunc_bilinear",
]
CASES = [f"s5/ssm_{name}" for name in NAMES]
BLOCKS = [
    "s5/layer_full_glu_post_bn",
    "s5/layer_full_glu_pre_bn",
    "s5/layer_gelu_pre_bn",
    "s5/layer_half_glu1_post_ln",
    "s5/layer_half_glu1_pre_bn",
    "s5/layer_half_glu2_pre_bn",
]
WITHOUT = {name: ["recurrent"] for name in CASES if name.endswith("bidir")}
LONG = ["s5/ssm_l1024_p64", "s5/ssm_l257_p64"]

# Every evaluation of these is compared each time, and of the others in `make test-all`.
QUICK = ["s5/ssm_lecun_zoh", "s5/ssm_lecun_bidir", "s5/ssm_noconj"]
QUICK_STEPS = ["s5/ssm_lecun_zoh", "s5/ssm_complex_bidir", "s5/ssm_noconj"]
FLOAT32 = evaluations(CASES, AUTO, QUICK, WITHOUT)
FLOAT64 = evaluations(CASES, ["auto", "fft"], QUICK, WITHOUT)


def make_s5(config, **kwargs):
    return S5(
        state_dim=config["ssm_size_base"],
        conj_sym=config.get("conj_sym", True),
        clip_eigs=config.get("clip_eigs", False),
        discretization=config.get("disc", "zoh"),
        **{"bidirectional": config.get("bidirectional", False), **kwargs},
    )


def s5_weights(params):
    """Our weights; `params` gives an official parameter in float64, or `None`."""
    C = params("C")
    if C is None:
        C = np.stack([params("C1"), params("C2")])
    else:
        # Both directions may lie side by side.
        modes = len(params("Lambda_re"))
        C = np.stack(np.split(C, C.shape[1] // modes, axis=1))
    return {
        "log_dt": params("log_step")[:, 0],
        "Lambda_real": params("Lambda_re"),
        "Lambda_imag": params("Lambda_im"),
        **parts("B", params("B")),
        **parts("C", C),
        "D": params("D"),
    }


class S5Recording(Recording):
    options = {}

    def make_layer(self):
        layer = make_s5(self.config, dtype=self.dtype, **self.options)
        layer.step_scale = self.config["step_rescale"]
        return layer

    def params(self, key):
        key = f"params/{key}"
        return self.data[key].astype("float64") if key in self.data else None

    def weights(self):
        return s5_weights(self.params)

    def official_gradients(self, weights):
        C = stacked(weights, "C")
        two = "params/C1" in self.data
        C = {"C1": C[0], "C2": C[1]} if two else {"C": np.concatenate(C, axis=1)}
        return {
            "log_step": weights["log_dt"][:, None],
            "Lambda_re": weights["Lambda_real"],
            "Lambda_im": weights["Lambda_imag"],
            "B": stacked(weights, "B"),
            **C,
            "D": weights["D"],
        }

    @property
    def tolerances(self):
        """Those recommended with the recordings."""
        return (1e-5, 2e-4) if self.single else (1e-9, 1e-9)


class ForwardRecording(S5Recording):
    """The forward scan of a recording."""

    options = {"bidirectional": False}

    def weights(self):
        weights = super().weights()
        return {**weights, "C_real": weights["C_real"][:1], "C_imag": weights["C_imag"][:1]}


@pytest.mark.parametrize("name, method", FLOAT32)
def test_values_and_gradients_float32(name, method):
    S5Recording(name, "float32").check(method)


@pytest.mark.parametrize("name, method", FLOAT64)
def test_values_and_gradients_float64(name, method, float64):
    S5Recording(name, "float64").check(method)


def check_steps(name, dtype):
    """The discrete system, its steps and final states; of two scans, those of the first."""
    recording = ForwardRecording(name, dtype)
    close, _ = recording.tolerances
    layer, u, modes = recording.layer, recording.input(), recording.layer.modes
    dA, dB, dC = layer.discretize()[:3]
    assert relative_error(dA, join(recording.array("Lambda_bar"))) < close
    assert relative_error(dB, join(recording.array("B_bar").T)) < close
    assert relative_error(dC, join(recording.array("C_tilde")[:, :modes])) < close
    y, state = recording.stepped(u)
    final = join(recording.array("state_step_final"))
    assert relative_error(state, final) < close
    if not recording.config.get("bidirectional"):
        assert relative_error(y, recording.array("y_step")) < close
    for method in ("auto", "fft", "recurrent"):
        layer.method = method
        _, state = recording.run(lambda u: layer(u, return_state=True))(u)
        assert relative_error(state, final) < close, method


@pytest.mark.parametrize("name", slow_but(some(QUICK_STEPS), CASES))
def test_steps_float32(name):
    check_steps(name, "float32")


@pytest.mark.parametrize("name", slow_but(set(CASES) - set(LONG), CASES))
def test_steps_float64(name, float64):
    check_steps(name, "float64")


class BlockRecording(S5Recording):
    """A residual block: norm, S5, activation and gate."""

    def make_layer(self):
        config = self.config
        batch = config["batchnorm"]
        return SSMBlock(
            make_s5(config),
            activation="gelu_tanh",
            gate=None if config["activation"] == "gelu" else config["activation"],
            norm="batch" if batch else "layer",
            norm_epsilon=1e-5 if batch else 1e-6,
            norm_momentum=config["bn_momentum"],
            prenorm=config["prenorm"],
            dtype=self.dtype,
        )

    def weights(self):
        return s5_weights(lambda key: self.params(f"seq/{key}"))

    def assign(self, weights):
        block = self.layer
        for key, value in weights.items():
            getattr(block.mixer, key).assign(value.astype(self.dtype))
        block.norm.gamma.assign(self.params("norm/scale").astype(self.dtype))
        block.norm.beta.assign(self.params("norm/bias").astype(self.dtype))
        if self.config["batchnorm"]:
            for key, variable in self.statistics():
                variable.assign(self.data[f"batch_stats/norm/{key}"].astype(self.dtype))
        if block.output_dense is not None:
            dense = block.output_dense
            outputs = [key for key in ("out1", "out2") if self.params(f"{key}/bias") is not None]
            for key, variable in ("kernel", dense.kernel), ("bias", dense.bias):
                value = [self.params(f"{output}/{key}") for output in outputs]
                variable.assign(np.concatenate(value, axis=-1).astype(self.dtype))

    def statistics(self):
        norm = self.layer.norm
        return ("mean", norm.moving_mean), ("var", norm.moving_variance)


def check_block(name, dtype):
    recording = BlockRecording(name, dtype)
    close, _ = recording.tolerances
    u, block = recording.input(), recording.layer
    y = recording.run(lambda u: block(u, training=False))(u)
    assert relative_error(y, recording.array("y_eval")) < close
    if "y_train" in recording.data:
        assert relative_error(block(u, training=True), recording.array("y_train")) < close
        for key, variable in recording.statistics():
            recorded = recording.array(f"after_train/batch_stats/norm/{key}")
            assert relative_error(variable, recorded) < close, key


@pytest.mark.parametrize("name", slow_but(some(BLOCKS), BLOCKS))
def test_blocks_float32(name):
    check_block(name, "float32")


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_float64(name, float64):
    check_block(name, "float64")
