"""LRU and its block against numbers recorded from minimal-LRU."""

import numpy as np
import pytest
from keras import ops

from keras_ssm.convert.formats.lru_flax import WEIGHTS
from keras_ssm.layers import LRU, SSMBlock
from tests.backend_tools import BACKEND, gradients, relative_error
from tests.recordings import AUTO, Recording, evaluations, join, some

CASES = [f"relatives/lru/{name}" for name in ("lru_small", "lru_wide_l64", "lru_ring_l257")]
FLOAT32 = evaluations(CASES, AUTO, CASES[:1], {})
FLOAT64 = evaluations(CASES, ["auto", "fft"], CASES[:1], {})


class LRURecording(Recording):
    prefix = ""

    def make_layer(self):
        return LRU(self.config["d_hidden"], dtype=self.dtype)

    def params(self, key):
        return self.data[f"params/{self.prefix}{key}"].astype("float64")

    def weights(self):
        return {ours: self.params(theirs) for theirs, ours in WEIGHTS.items()}

    def official_gradients(self, weights):
        return {theirs: weights[ours] for theirs, ours in WEIGHTS.items()}

    @property
    def tolerances(self):
        """Those recommended with the recordings."""
        return (1e-5, 1e-4) if self.single else (1e-9, 1e-9)


@pytest.mark.parametrize("name, method", FLOAT32)
def test_values_and_gradients_float32(name, method):
    LRURecording(name, "float32").check(method)


@pytest.mark.parametrize("name, method", FLOAT64)
def test_values_and_gradients_float64(name, method, float64):
    LRURecording(name, "float64").check(method)


def check_steps(name, dtype):
    recording = LRURecording(name, dtype)
    close, _ = recording.tolerances
    layer, u, final = recording.layer, recording.input(), join(recording.array("state_final"))
    dA, dB, *_ = layer.discretize()
    assert relative_error(dA, join(recording.array("lambda"))) < close
    assert relative_error(dB, join(recording.array("B_norm").T)) < close
    y, state = recording.stepped(u)
    assert relative_error(y, recording.array("y_step")) < close
    assert relative_error(state, final) < close
    for method in ("auto", "fft", "recurrent"):
        layer.method = method
        _, state = recording.run(lambda u: layer(u, return_state=True))(u)
        assert relative_error(state, final) < close, method


@pytest.mark.parametrize("name", some(CASES))
def test_steps_float32(name):
    check_steps(name, "float32")


@pytest.mark.parametrize("name", CASES)
def test_steps_float64(name, float64):
    check_steps(name, "float64")


class BlockRecording(LRURecording):
    """The residual block of the paper: LRU, GELU, a gate of two layers, and a norm."""

    prefix = "seq/"

    def make_layer(self):
        return SSMBlock(
            LRU(self.config["d_hidden"]),
            activation="gelu_tanh",
            gate="full_glu",
            norm=self.config["norm"],
            norm_epsilon=1e-6,
            prenorm=self.config["prenorm"],
            dtype=self.dtype,
        )

    def assign(self, weights):
        block = self.layer
        for key, value in weights.items():
            getattr(block.mixer, key).assign(value.astype(self.dtype))
        both = {key: [self.data[f"params/out{i}/{key}"] for i in (1, 2)] for key in PARTS}
        for key in PARTS:
            value = np.concatenate(both[key], axis=-1).astype(self.dtype)
            getattr(block.output_dense, key).assign(value)
        block.norm.gamma.assign(self.data["params/normalization/scale"].astype(self.dtype))
        block.norm.beta.assign(self.data["params/normalization/bias"].astype(self.dtype))

    def official_gradients(self, weights):
        found = {f"seq/{theirs}": weights[f"lru/{ours}"] for theirs, ours in WEIGHTS.items()}
        found["normalization/scale"] = weights["norm/gamma"]
        found["normalization/bias"] = weights["norm/beta"]
        for key in PARTS:
            halves = np.split(weights[f"output_dense/{key}"], 2, axis=-1)
            found |= {f"out{i}/{key}": half for i, half in enumerate(halves, start=1)}
        return found


PARTS = ("kernel", "bias")


def check_block(dtype):
    recording = BlockRecording("relatives/lru/layer_post_ln", dtype)
    close, close_gradient = recording.tolerances
    u, w = recording.input(), ops.convert_to_tensor(recording.input("w"))

    def loss(u):
        y = recording.block(u)
        return ops.sum(y * w), y

    y, weights, (d_u,) = gradients(loss, recording.layer, u, compile=BACKEND == "jax")
    assert relative_error(y, recording.array("y")) < close
    assert relative_error(d_u, recording.array("grad_u")) < close_gradient
    for key, value in recording.official_gradients(weights).items():
        assert relative_error(value, recording.array(f"grad/{key}")) < close_gradient, key


def test_block_float32():
    check_block("float32")


def test_block_float64(float64):
    check_block("float64")
