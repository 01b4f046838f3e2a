"""LongConv and SGConv against numbers recorded from safari and from SGConv's own code."""

import numpy as np
import pytest
from keras import ops

from keras_ssm.convert.formats.longconv_kernel import one_circle, two_sided
from keras_ssm.layers import LongConv, SGConv
from tests.backend_tools import BACKEND, relative_error, to_numpy
from tests.recordings import Recording, gelu, slow_but

LONG = [f"relatives/longconv/{name}" for name in ("causal_l64", "bidir_double_exp_l64")]
LONG += ["relatives/longconv/smooth_ch2_l64", "relatives/longconv/standalone_2l_l64"]
SCALES = ("causal_cat_l64", "bidir_ch2_decay_l64", "cat_learnable_l48", "sum_init_scale_l64")
SCALES = [f"relatives/sgconv/{name}" for name in (*SCALES, "nearest_short_l257")]

# Backends that compile take one case of each layer.
QUICK = [LONG[0], SCALES[2]] if BACKEND != "torch" else [*LONG, *SCALES]
METHODS = ("fft", "direct", "recurrent") if BACKEND == "torch" else ("fft",)


class LongConvRecording(Recording):
    """The layer of safari, or its standalone one, whose kernel lies on a circle."""

    @property
    def tolerances(self):
        """Those recommended with the recordings."""
        return (1e-5, 1e-4) if self.single else (1e-9, 1e-9)

    @property
    def standalone(self):
        return "kernel_lam" in self.config

    def make_layer(self):
        config = self.config
        return LongConv(
            max_length=config["L"] if self.standalone else config["l_max"],
            squash=config["kernel_lam"] if self.standalone else config["lam"],
            init=config.get("weight_init", "random"),
            smoothing=config["ma_window_len"] if config.get("use_ma_smoothing") else None,
            bidirectional=self.standalone or config.get("bidirectional", False),
            channels=config.get("channels", 1),
            dtype=self.dtype,
        )

    def weights(self):
        kernel = self.sd("kernel" if self.standalone else "kernel.kernel")
        return {"entries": two_sided(kernel) if self.standalone else kernel, "D": self.sd("D")}

    def block(self, u):
        return self.project(gelu(self.layer(u)), glu=True)

    def kernel(self):
        return self.layer.whole_kernel()

    def official_gradients(self, weights):
        kernel = weights["kernel"]
        if self.standalone:
            return {"kernel": one_circle(kernel), "D": weights["D"]}
        return {"kernel.kernel": kernel, "D": weights["D"]}


class SGConvRecording(LongConvRecording):
    def make_layer(self):
        config = self.config
        mode = config.get("mode", "cat_randn")
        scales = sum(key.startswith("sd/kernel_list.") for key in self.data)
        return SGConv(
            max_length=config["l_max"],
            kernel_dim=config["kernel_dim"],
            num_scales=scales,
            decay_min=config.get("decay_min", 2.0),
            decay_max=config.get("decay_max", 2.0),
            learnable_decay="learnable" in mode,
            interpolation="nearest" if "nearest" in mode else "linear",
            composition="sum" if "sum" in mode else "concat",
            bidirectional=config.get("bidirectional", False),
            channels=config.get("channels", 1),
            dtype=self.dtype,
        )

    def weights(self):
        pieces = np.stack([self.sd(f"kernel_list.{i}") for i in range(self.layer.scales)])
        decay = {"decay": self.sd("decay")} if self.layer.learnable_decay else {}
        # Of the initial kernel, which this one is.
        norm = np.linalg.norm(self.layer.composed(pieces, decay.get("decay"), np), axis=-1)
        D = {"D": self.sd("D")}
        return {"pieces": pieces, "kernel_norm": norm, **decay, **D}

    def block(self, u):
        y = self.layer(u)
        if "sd/output_linear.weight" not in self.data:  # steps of the layer, without a model
            return y
        return self.project(gelu(y), glu=False)

    def kernel(self):
        """As recorded: as long as the inputs, or on a circle of twice the length."""
        length = self.data["u"].shape[1]
        K = self.layer.full_kernel(length)
        if not self.layer.bidirectional:
            return K
        past, later = ops.split(K, 2, axis=0)
        return ops.concatenate([past, ops.flip(later, axis=-1)], axis=-1)

    def official_gradients(self, weights):
        found = {f"kernel_list.{i}": piece for i, piece in enumerate(weights["kernel"])}
        found |= {"decay": weights["decay"]} if self.layer.learnable_decay else {}
        return {**found, "D": weights["D"]}


def recorded(name, dtype):
    return (LongConvRecording if "longconv" in name else SGConvRecording)(name, dtype)


def check(name, dtype):
    recording = recorded(name, dtype)
    for method in METHODS:
        if not (recording.layer.bidirectional and method == "recurrent"):
            recording.check(method)


@pytest.mark.parametrize("name", slow_but(QUICK, [*LONG, *SCALES]))
def test_values_and_gradients_float32(name):
    check(name, "float32")


@pytest.mark.parametrize("name", [*LONG, *SCALES])
def test_values_and_gradients_float64(name, float64):
    check(name, "float64")


@pytest.mark.once("torch")
@pytest.mark.parametrize("name", [SCALES[0], SCALES[2]])
def test_the_norm_stays_that_of_the_start(name):
    recording = recorded(name, "float32")
    layer = recording.layer
    norm = recording.array("kernel_norm")[..., 0]
    assert relative_error(layer.kernel_norm, norm) < 1e-5
    layer.pieces.assign(1.5 * to_numpy(layer.pieces))
    y = recording.block(ops.convert_to_tensor(recording.input()))
    assert relative_error(y, recording.array("y_kernels_times_1.5")) < 1e-5


@pytest.mark.once("torch")
def test_short_inputs_meet_the_beginning_of_the_kernel():
    """The official layer wraps the end of its kernel around them: recorded, and not repeated."""
    recording = recorded("relatives/longconv/short_input_wraps_l48", "float32")
    layer, u = recording.layer, recording.input()
    y, K = to_numpy(layer(u)), to_numpy(layer.whole_kernel())[0]
    size = 2 * u.shape[1]
    spectrum = np.fft.rfft(K, size) * np.fft.rfft(u.swapaxes(1, 2), size)
    circle = np.fft.irfft(spectrum, size)[..., : u.shape[1]].swapaxes(1, 2)
    wrapped = circle + u * to_numpy(layer.D)[0]
    assert relative_error(wrapped, recording.array("y_inner")) < 1e-5  # as published
    assert relative_error(y, wrapped) > 1e-4
    later = u.copy()
    later[:, 20:] += 1.0
    # And no output depends on later inputs.
    assert relative_error(layer(later)[:, :20], y[:, :20]) < 1e-6
