"""S4ND against numbers recorded from the official code."""

import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import S4, S4D, S4ND
from tests.backend_tools import BACKEND, gradients, relative_error, to_numpy
from tests.layers.test_goldens_s4 import LowRankRecording
from tests.layers.test_goldens_s4d import DiagonalRecording
from tests.recordings import Recording, slow_but

NAMES = ("diag_2d_12x10_trank2_ch2", "diag_2d_8x8", "diag_2d_causal_bandlimit_rate2")
NAMES = [f"relatives/s4nd/{name}" for name in (*NAMES, "diag_3d_4x6x5", "dplr_2d_8x12")]

# Backends that compile take the case of several channels and products.
QUICK = NAMES if BACKEND == "torch" else NAMES[:1]
METHODS = ("auto", "fft") if BACKEND == "torch" else ("auto",)


def axis(whole, i):
    """The recording of one axis: its parameters, as those of a layer of sequences."""
    base = DiagonalRecording if "/diag_" in whole.name else LowRankRecording

    class Axis(base):
        prefix = f"kernel.{i}."
        attuned_length = whole.config["dims"][i]

        def __init__(self):
            self.data, self.name, self.config = whole.data, whole.name, whole.config
            self.dtype, self.layer = whole.dtype, whole.layer.axis_layers[i]

    return Axis()


class NDRecording(Recording):
    def __init__(self, name, dtype):
        super().__init__(name, dtype)
        self.axes = [axis(self, i) for i in range(self.layer.axes)]
        for one in self.axes:
            one.assign(one.weights())
        self.layer.step_scale = self.config["rate"]

    @property
    def tolerances(self):
        """Those recommended with the recordings."""
        return (1e-5, 1e-4) if self.single else (1e-9, 1e-9)

    def make_layer(self):
        config = self.config
        of_axis = {"state_dim": config["d_state"], "init": "lin"}
        dense = config["mode"] == "dplr"
        return S4ND(
            S4(**of_axis) if dense else S4D(**of_axis, bandlimit=config.get("bandlimit")),
            axes=config["dim"],
            rank=config.get("trank", 1),
            channels=config.get("channels", 1),
            bidirectional=config["bidirectional"],
            dtype=self.dtype,
        )

    def weights(self):
        return {"D": self.sd("D")}

    def official_gradients(self, weights):
        found = {"D": weights["D"]}
        for i, one in enumerate(self.axes):
            own = {k.split("/")[1]: g for k, g in weights.items() if k.startswith(f"axis_{i}/")}
            found |= one.official_gradients({**own, "D": None})
        return {key: value for key, value in found.items() if value is not None}


def check(name, dtype):
    recording = NDRecording(name, dtype)
    close, close_gradient = recording.tolerances
    layer, u = recording.layer, recording.input()
    w = ops.convert_to_tensor(recording.input("w"))
    for i, one in enumerate(layer.axis_layers):
        K = recording.array(f"K/{i}")
        assert relative_error(one.full_kernel(K.shape[-1]), K) < close

    def loss(u):
        y = layer(u)
        return ops.sum(y * w), y

    for method in METHODS:
        layer.method = method
        y, weights, (d_u,) = gradients(loss, layer, u, compile=BACKEND == "jax")
        assert relative_error(y, recording.array("y")) < close, method
        assert relative_error(d_u, recording.data["f64/grad_u"]) < close_gradient, method
        for key, value in recording.official_gradients(weights).items():
            error = relative_error(value, recording.data[f"f64/grad/{key}"])
            assert error < close_gradient, (method, key, error)


@pytest.mark.parametrize("name", slow_but(QUICK, NAMES))
def test_values_and_gradients_float32(name):
    check(name, "float32")


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_float64(name, float64):
    check(name, "float64")


@pytest.mark.once("torch")
@pytest.mark.parametrize("name", [NAMES[0], NAMES[2]])
def test_the_kernel_is_the_mean_of_outer_products(name):
    recording = NDRecording(name, "float32")
    config, sizes = recording.config, recording.config["dims"]
    rank, channels = config.get("trank", 1), config.get("channels", 1)
    sides = []
    for i, n in enumerate(sizes):
        K = recording.array(f"K/{i}")
        if config["bidirectional"]:
            past, later = np.split(K, 2)
            K = np.concatenate([later[..., n - 2 :: -1], past], axis=-1)
        sides.append(K.reshape(rank, channels, *K.shape[1:]))
    expected = np.einsum("rchi,rchj->chij", *sides) / rank
    found = to_numpy(recording.layer.kernel(sizes))
    assert relative_error(found.reshape(expected.shape), expected) < 1e-5
