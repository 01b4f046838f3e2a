"""SpaceTime, its closed loop and its preprocessing against numbers recorded from its own code."""

import numpy as np
import pytest
from keras import ops

from keras_ssm.convert import load_layer
from keras_ssm.layers import Differencing, SpaceTime
from keras_ssm.ops import backend
from tests.backend_tools import BACKEND, gradients, relative_error, to_numpy
from tests.recordings import Recording, evaluations, gelu, some
from tests.shared_data import golden

FOLDER = "relatives/spacetime/"
OPEN = [FOLDER + name for name in ("companion_l32", "shift_l32", "companion_norm2_l257")]
EACH_TIME = ["auto"] if BACKEND == "torch" else []
FLOAT32 = evaluations(OPEN, EACH_TIME, OPEN[:1], {})
FLOAT64 = evaluations(OPEN, ["auto", "fft"], OPEN[:1], {})


class SpaceTimeRecording(Recording):
    @property
    def heads(self):
        return self.config["n_heads"] * self.config["head_dim"]

    @property
    def closed_loop(self):
        return "sd/k" in self.data

    def make_layer(self):
        config = self.config
        self.config = {**config, "d_model": config["model_dim"]}
        return SpaceTime(
            state_dim=config["kernel_dim"],
            num_ssm=config["n_kernels"],
            norm_order=config["norm_order"],
            skip=config.get("skip_connection", False),
            closed_loop=self.closed_loop,
            normalization="published",
            dtype=self.dtype,
        )

    def weights(self):
        weights = {"a": self.sd("a"), "B": self.sd("b"), "C": self.sd("c")[None]}
        if self.closed_loop:
            weights["K"] = self.sd("k")
        if self.config.get("skip_connection"):
            weights["D"] = self.sd("skip")[None]
        return weights

    def kernel(self):
        K = self.layer.kernel(self.data["u"].shape[1])
        return K[:: self.heads]

    def official_gradients(self, weights):
        names = {"a": "a", "b": "B", "c": "C", "k": "K", "skip": "D"}
        return {
            theirs: weights[ours].reshape(self.data[f"f64/grad/{theirs}"].shape)
            for theirs, ours in names.items()
            if f"f64/grad/{theirs}" in self.data  # the shift trains its C alone
        }

    @property
    def tolerances(self):
        """Those recommended with the recordings."""
        close = 2e-5 if self.config["norm_order"] == 2 else 1e-5
        return (close, 1e-4) if self.single else (1e-9, 1e-9)


@pytest.mark.parametrize("name, method", FLOAT32)
def test_values_and_gradients_float32(name, method):
    SpaceTimeRecording(name, "float32").check(method)


@pytest.mark.parametrize("name, method", FLOAT64)
def test_values_and_gradients_float64(name, method, float64):
    SpaceTimeRecording(name, "float64").check(method)


def check_steps(name, dtype):
    recording = SpaceTimeRecording(name, dtype)
    close, _ = recording.tolerances
    layer, u = recording.layer, recording.input()
    last_column = recording.array("A")[..., -1]
    assert relative_error(layer.discretize().dA[:: recording.heads], last_column) < close
    final = recording.array("state_final")
    final = final.reshape(len(u), -1, final.shape[-1])
    y, state = recording.stepped(u)
    assert relative_error(y, recording.array("y_step")) < close
    assert relative_error(state, final) < close
    for method in ("auto", "fft", "recurrent"):
        layer.method = method
        _, state = recording.run(lambda u: layer(u, return_state=True))(u)
        assert relative_error(state, final) < close, method


@pytest.mark.parametrize("name", some(OPEN))
def test_steps_float32(name):
    check_steps(name, "float32")


@pytest.mark.parametrize("name", OPEN)
def test_steps_float64(name, float64):
    check_steps(name, "float64")


def check_closed_loop(dtype):
    recording = SpaceTimeRecording(FOLDER + "closed_loop_l32_h16", dtype)
    close, close_gradient = recording.tolerances
    layer, u = recording.layer, recording.input()
    w = ops.convert_to_tensor(recording.input("w"))
    arrays = [recording.array(key) for key in ("y", "u_next_closed", "y_open", "u_next_open")]

    def loss(u):
        y_open, state = layer(u, return_state=True)
        y, inputs = layer.forecast(state, w.shape[1])
        values = [y, inputs, y_open, layer.next_inputs(u)]
        return ops.sum(y * w), ops.concatenate([ops.reshape(v, (-1,)) for v in values])

    values, weights, (d_u,) = gradients(loss, layer, u, compile=BACKEND == "jax")
    ends = np.cumsum([a.size for a in arrays])[:-1]
    for ours, theirs in zip(np.split(values, ends), arrays, strict=True):
        assert relative_error(ours, theirs.ravel()) < close
    assert relative_error(d_u, recording.array("grad_u")) < close_gradient
    for key, value in recording.official_gradients(weights).items():
        assert relative_error(value, recording.array(f"grad/{key}")) < close_gradient, key


def test_closed_loop_float32():
    check_closed_loop("float32")


def test_closed_loop_float64(float64):
    check_closed_loop("float64")


class Network:
    """The published network around the layers, from its state dict."""

    def __init__(self, dtype):
        self.recording = SpaceTimeRecording.__new__(SpaceTimeRecording)
        self.recording.data, self.recording.dtype = golden(FOLDER + "network_lag48_h24")[0], dtype
        tensors = {k[3:]: v for k, v in self.recording.data.items() if k.startswith("sd/")}
        stems = [f"encoder.blocks.{i}.{part}." for i in (0, 1) for part in ("pre", "ssm")]
        layers = [
            load_layer(tensors, stem, dtype=dtype)
            for stem in (*stems[:2], stems[3], "decoder.blocks.ssm.")
        ]
        self.pre, *self.encoder, self.decoder = layers
        kernel = self.recording.array("residual_kernel")
        assert (kernel[:, self.pre.kernel_length :] == 0).all()
        drawn = to_numpy(self.pre.taps)[0]
        np.testing.assert_allclose(drawn, kernel[:, : self.pre.kernel_length], rtol=1e-7)
        orders = Differencing(4, 4, max_window=16)
        orders.build((None, None, 16))
        ours = to_numpy(orders.taps).reshape(2, 8, -1)[:, :4]
        np.testing.assert_allclose(ours, drawn.reshape(2, 8, -1)[:, :4])

    def dense(self, x, stem):
        weight, bias = (
            ops.convert_to_tensor(self.recording.sd(f"{stem}.layers.2.{k}"), x.dtype)
            for k in ("weight", "bias")
        )
        return backend.matmul(gelu(x), ops.transpose(weight)) + bias

    def __call__(self, u):
        z = ops.repeat(u, 16, axis=-1)
        for number, layer in enumerate(self.encoder):
            inner = z if number else self.pre(z)
            s = layer(inner)
            z = self.dense(s, f"encoder.blocks.{number}.mlp") + s + inner
        y_open, state = self.decoder(z, return_state=True)
        y, _ = self.decoder.forecast(state, 24)
        return [self.dense(y, "output"), self.dense(y_open, "output"), self.decoder.next_inputs(z)]


def check_network(dtype):
    network = Network(dtype)
    recording = network.recording
    close, close_gradient = (1e-5, 1e-4) if dtype == "float32" else (1e-9, 1e-9)
    u, w = (ops.convert_to_tensor(recording.input(key)) for key in ("u", "w"))

    def loss(u):
        values = network(u)
        return ops.sum(values[0] * w), ops.concatenate([ops.reshape(v, (-1,)) for v in values])

    values, _, (d_u,) = gradients(loss, network.decoder, u, compile=BACKEND == "jax")
    arrays = [recording.array(key) for key in ("y", "y_open", "z_pred")]
    ends = np.cumsum([a.size for a in arrays])[:-1]
    for ours, theirs in zip(np.split(values, ends), arrays, strict=True):
        assert relative_error(ours, theirs.ravel()) < close
    assert relative_error(d_u, recording.array("grad_u")) < close_gradient


@pytest.mark.once("torch")
def test_network_float32():
    check_network("float32")


def test_network_float64(float64):
    check_network("float64")
