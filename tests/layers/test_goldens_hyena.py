"""Hyena against numbers recorded from HazyResearch/safari."""

import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import Hyena
from tests.backend_tools import BACKEND
from tests.recordings import Recording, slow_but

CASES = [
    f"relatives/hyena/{name}" for name in ("order3_l48_of_64", "order2_l64", "order2_w10_l100")
]
QUICK = CASES if BACKEND == "torch" else CASES[:1]
METHODS = ("fft", "direct", "recurrent") if BACKEND == "torch" else ("fft",)

FILTER = "filter_fn.implicit_filter."
DENSE = ("in_proj", "out_proj")


class HyenaRecording(Recording):
    def make_layer(self):
        config = self.config
        return Hyena(
            config["l_max"],
            config["order"],
            filter_width=config["filter_order"],
            emb_dim=config.get("emb_dim", 3),
            frequency=config.get("w", 1),
            shift=config.get("shift", 0.0),
            train_positions=True,
            dtype=self.dtype,
        )

    def weights(self):
        layers = range(self.layer.filter_depth + 1)
        order = self.layer.order
        return {
            "conv_kernel": self.sd("short_filter.weight")[:, 0].T,
            "conv_bias": self.sd("short_filter.bias"),
            "positions": self.sd("filter_fn.pos_emb.z")[0],
            "times": self.sd("filter_fn.pos_emb.t")[0, :, 0],
            "frequencies": self.sd(f"{FILTER}1.freq")[0],
            "filter_layers": [
                (self.sd(f"{FILTER}{2 * i}.weight").T, self.sd(f"{FILTER}{2 * i}.bias"))
                for i in layers
            ],
            "filter_output": self.sd(f"{FILTER}{2 * len(layers)}.weight").T,
            "decay": self.sd("filter_fn.modulation.deltas")[0, 0],
            "D": self.sd("filter_fn.bias").reshape(order - 1, -1),
            **{name: (self.sd(f"{name}.weight").T, self.sd(f"{name}.bias")) for name in DENSE},
        }

    def assign(self, weights):
        for name in DENSE:
            kernel, bias = weights.pop(name)
            getattr(self.layer, name).kernel.assign(kernel.astype(self.dtype))
            getattr(self.layer, name).bias.assign(bias.astype(self.dtype))
        pairs = zip(self.layer.filter_layers, weights.pop("filter_layers"), strict=True)
        for variables, values in pairs:
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value.astype(self.dtype))
        super().assign(weights)

    def kernel(self):
        count, features = self.array("K").shape
        return ops.transpose(ops.reshape(self.layer.kernels(count), (features, count)))

    def official_gradients(self, weights):
        depth = self.layer.filter_depth + 1
        found = {
            "short_filter.weight": weights["conv_kernel"].T[:, None],
            "short_filter.bias": weights["conv_bias"],
            "filter_fn.pos_emb.z": weights["positions"][None],
            f"{FILTER}1.freq": weights["frequency"][None],
            f"{FILTER}{2 * depth}.weight": weights["filter_output"].T,
            "filter_fn.bias": weights["D"].ravel(),
        }
        for i in range(depth):
            found[f"{FILTER}{2 * i}.weight"] = weights[f"filter_kernel_{i}"].T
            found[f"{FILTER}{2 * i}.bias"] = weights[f"filter_bias_{i}"]
        for name in DENSE:
            found[f"{name}.weight"] = weights[f"{name}/kernel"].T
            found[f"{name}.bias"] = weights[f"{name}/bias"]
        return found

    @property
    def tolerances(self):
        """Those recommended with the recordings."""
        return (1e-5, 2e-4) if self.single else (1e-9, 1e-9)


def check(name, dtype, methods=METHODS):
    recording = HyenaRecording(name, dtype)
    for method in methods:
        recording.check(method)


@pytest.mark.parametrize("name", slow_but(QUICK, CASES))
def test_values_and_gradients_float32(name):
    check(name, "float32")


@pytest.mark.parametrize("name", slow_but(QUICK[:1], CASES))
def test_values_and_gradients_float64(name, float64):
    check(name, "float64")


@pytest.mark.once("torch")
def test_initial_values_are_those_of_the_published_layer():
    recording = HyenaRecording(CASES[0], "float32")
    layer = Hyena(64, 3, filter_width=8, emb_dim=5, seed=0)
    layer.build((None, None, 4))
    again = Hyena.from_config(layer.get_config())
    again.build((None, None, 4))
    for name, a, b in zip(layer.weights, layer.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name.path)
    for name, value in recording.weights().items():
        if name in ("positions", "times", "frequencies"):
            np.testing.assert_allclose(getattr(layer, name), value, rtol=2e-5, atol=2e-6)
    decay = -recording.weights()["decay"]
    np.testing.assert_allclose(layer.decay, decay, rtol=1e-6)
    assert not layer.positions.trainable
    assert 0.9 / 3**0.5 < np.abs(layer.conv_kernel).max() <= 3**-0.5
