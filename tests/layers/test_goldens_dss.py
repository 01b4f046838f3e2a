"""DSS against numbers recorded from the official code."""

import keras
import pytest
from keras import ops

from keras_ssm.layers import DSS
from tests.backend_tools import relative_error
from tests.recordings import AUTO, Recording, evaluations, gelu, parts, stacked

NAMES = [
    "clip",
    "clip_no_scale",
    "exp",
    "exp_l1024_n64",
    "exp_no_scale",
    "exp_re_im",
    "softmax_bidir",
    "softmax_ch2_glu",
    "softmax_default",
    "softmax_hyper",
    "softmax_l1024_n64",
    "softmax_l16_n2_h1",
    "softmax_l257_n64",
    "softmax_maxk",
    "softmax_pos_lambda",
    "softmax_randn",
]
CASES = [f"dss/{name}" for name in NAMES]
WITHOUT = {"dss/softmax_bidir": ["recurrent"], "dss/softmax_maxk": ["fft", "recurrent"]}

# Every evaluation of these is compared each time, and of the others in `make test-all`.
QUICK = ["dss/exp", "dss/softmax_bidir", "dss/softmax_pos_lambda"]
FLOAT32 = evaluations(CASES, AUTO, QUICK, WITHOUT)
FLOAT64 = evaluations(CASES, ["auto", "fft"], QUICK, WITHOUT)


class DSSRecording(Recording):
    def make_layer(self):
        config = self.config
        version = config.get("version", "softmax")
        return DSS(
            state_dim=config["d_state"],
            variant=version,
            sep_dt_re_im=config.get("sep_dt_re_im", True),
            bidirectional=config.get("bidirectional", False),
            channels=2 if "hyper_act" in config else config.get("channels", 1),
            max_kernel_length=config.get("max_kernel_length"),
            dtype=self.dtype,
        )

    @property
    def eigenvalues(self):
        """Our weight of each official parameter, where real and imaginary part have their own."""
        if not self.layer.variant.startswith("exp"):
            return {}
        official = "Lambda_log_im" if self.layer.variant == "exp-re-im" else "Lambda_im"
        ours = "log_A_imag" if self.layer.variant == "exp-re-im" else "A_imag"
        return {"Lambda_log_neg_re": "log_A_real", official: ours}

    def weights(self):
        log_dt = self.sd("kernel.log_dt")
        weights = {
            "log_dt": log_dt.reshape(len(log_dt), -1),
            **parts("C", self.sd("kernel.W")),
            "D": self.sd("D"),
        }
        if not self.eigenvalues:
            return {**weights, **parts("A", self.sd("kernel.Lambda"))}
        eigenvalues = {ours: self.sd(f"kernel.{key}") for key, ours in self.eigenvalues.items()}
        return {**weights, **eigenvalues}

    def block(self, u):
        y = self.layer(u)
        if "hyper_act" in self.config:
            first, second = ops.split(y, 2, axis=-1)
            y = keras.activations.get(self.config["hyper_act"])(second) * first
        return self.project(gelu(y), glu=self.config.get("postact") == "glu")

    def official_gradients(self, weights):
        found = {"W": stacked(weights, "C")}
        found["log_dt"] = weights["log_dt"].reshape(self.sd("kernel.log_dt").shape)
        if self.eigenvalues:
            found.update({key: weights[ours] for key, ours in self.eigenvalues.items()})
        else:
            found["Lambda"] = stacked(weights, "A")
        return {**{f"kernel.{key}": value for key, value in found.items()}, "D": weights["D"]}

    @property
    def tolerances(self):
        """Those recommended with the recordings."""
        if not self.single:
            return 1e-9, 1e-9
        if self.config["d_state"] == 2:
            return 1e-4, 2e-2
        return 5e-5, 2e-3 if self.layer.variant == "softmax" else 2e-4


@pytest.mark.parametrize("name, method", FLOAT32)
def test_values_and_gradients_float32(name, method):
    DSSRecording(name, "float32").check(method)


@pytest.mark.parametrize("name, method", FLOAT64)
def test_values_and_gradients_float64(name, method, float64):
    DSSRecording(name, "float64").check(method)


def check_truncated_both_ways(dtype):
    """The kernel alone: the official code applies its future half at the wrong lags."""
    recording = DSSRecording("dss/softmax_bidir_maxk", dtype)
    close, _ = recording.tolerances
    assert relative_error(recording.run(recording.kernel)(), recording.array("K")) < close


def test_truncated_both_ways_float32():
    check_truncated_both_ways("float32")


def test_truncated_both_ways_float64(float64):
    check_truncated_both_ways("float64")
