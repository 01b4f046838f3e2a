"""H3 against numbers recorded from HazyResearch/H3."""

import numpy as np
import pytest

from keras_ssm.layers import H3
from tests.backend_tools import BACKEND, relative_error, to_numpy
from tests.recordings import AUTO, Recording, evaluations, join, parts, some, stacked

CASES = [
    f"relatives/h3/{name}"
    for name in ("head1_l32", "head4_l48", "head1_zoh_inv_l257", "head1_lmax_short_l64")
]
TRUNCATED = CASES[3]
WITHOUT = {TRUNCATED: ("recurrent",)}
FLOAT32 = evaluations(CASES, AUTO, CASES[:2], WITHOUT)
FLOAT64 = evaluations(CASES, ["auto", "fft"] if BACKEND == "torch" else [], CASES[:1], WITHOUT)

DENSE = {"q_dense": "q_proj", "k_dense": "k_proj", "v_dense": "v_proj"}
DENSE |= {"output_dense": "output_linear"}
SHIFT = "ssm_k_kernel.kernel."
DIAGONAL = "kernel.kernel."


class H3Recording(Recording):
    whole = False

    def make_layer(self):
        config = self.config
        return H3(
            config["d_state"],
            head_dim=config.get("head_dim", 1),
            discretization=config.get("disc", "bilinear"),
            max_kernel_length=None if self.whole else config.get("l_max"),
            dtype=self.dtype,
        )

    def weights(self):
        weights = {
            "shift_B": self.sd(f"{SHIFT}B"),
            "shift_C": self.sd(f"{SHIFT}C")[0],
            "shift_D": self.sd("ssm_k_D"),
            "diagonal.log_dt": self.sd(f"{DIAGONAL}log_dt")[:, None],
            "diagonal.log_A_real": self.sd(f"{DIAGONAL}inv_A_real"),
            "diagonal.A_imag": self.sd(f"{DIAGONAL}A_imag"),
            **parts("diagonal.B", self.sd(f"{DIAGONAL}B")),
            **parts("diagonal.C", self.sd(f"{DIAGONAL}C")),
            "diagonal.D": self.sd("D")[None],
        }
        for ours, theirs in DENSE.items():
            weights[f"{ours}.kernel"] = self.sd(f"{theirs}.weight").T
            weights[f"{ours}.bias"] = self.sd(f"{theirs}.bias")
        return weights

    def assign(self, weights):
        for key, value in weights.items():
            *layer, name = key.split(".")
            owner = getattr(self.layer, layer[0]) if layer else self.layer
            getattr(owner, name).assign(value.astype(self.dtype))

    def official_gradients(self, weights):
        found = {
            f"{SHIFT}B": weights["shift_B"],
            f"{SHIFT}C": weights["shift_C"][None],
            "ssm_k_D": weights["shift_D"],
            f"{DIAGONAL}log_dt": weights["diagonal/log_dt"][:, 0],
            f"{DIAGONAL}inv_A_real": weights["diagonal/log_A_real"],
            f"{DIAGONAL}A_imag": weights["diagonal/A_imag"],
            f"{DIAGONAL}B": stacked(weights, "diagonal/B"),
            f"{DIAGONAL}C": stacked(weights, "diagonal/C"),
            "D": weights["diagonal/D"][0],
        }
        for ours, theirs in DENSE.items():
            found[f"{theirs}.weight"] = weights[f"{ours}/kernel"].T
            found[f"{theirs}.bias"] = weights[f"{ours}/bias"]
        return found

    @property
    def tolerances(self):
        """Those recommended with the recordings."""
        return (1e-5, 1e-4) if self.single else (1e-9, 1e-9)


class StreamedRecording(H3Recording):
    whole = True  # the published steps do not end their kernels


@pytest.mark.parametrize("name, method", FLOAT32)
def test_values_and_gradients_float32(name, method):
    H3Recording(name, "float32").check(method)


@pytest.mark.parametrize("name, method", FLOAT64)
def test_values_and_gradients_float64(name, method, float64):
    H3Recording(name, "float64").check(method)


def check_states(name, dtype):
    recording = StreamedRecording(name, dtype)
    close, _ = recording.tolerances
    layer, u, prefill = recording.layer, recording.input(), recording.config["prefill"]
    system = layer.discretize()
    for ours, theirs in zip(system[:3], ("dA", "dB", "dC"), strict=True):
        assert relative_error(ours, join(recording.array(theirs)).reshape(ours.shape)) < close
    taps = to_numpy(system.taps)[0, :, ::-1].copy()
    taps[:, 0] -= to_numpy(layer.shift_D)
    assert relative_error(taps, recording.array("K_shift")[0, :, : taps.shape[1]]) < close
    read = recording.run(lambda u: layer(u, return_state=True))
    methods = ("auto", "fft", "recurrent") if BACKEND == "torch" else ("auto",)
    for method in methods:
        layer.method = method
        check_state(recording, read(u[:, :prefill])[1], "prefill")
    y, state = recording.stepped(u)
    assert relative_error(y, recording.array("y_step")) < close
    check_state(recording, state, "final")


def check_state(recording, state, when):
    close, _ = recording.tolerances
    diagonal = join(recording.array(f"state_diag_{when}"))
    assert relative_error(state["diagonal"], diagonal) < close
    # The published state is that of the shift system, ours the inputs that make it. Its last
    # entry is about to leave.
    last = to_numpy(state["shift"])[..., ::-1]  # newest first
    B = to_numpy(recording.layer.shift_B)
    count = last.shape[-1]
    shift = sum(
        np.pad(last[..., j, None] * B[:, : count - j], [(0, 0), (0, 0), (j, 0)])
        for j in range(count)
    )
    assert relative_error(shift, recording.array(f"state_shift_{when}")[..., :-1]) < close


STREAMED = [name for name in CASES if "head4" not in name]


@pytest.mark.parametrize("name", some(STREAMED))
def test_states_float32(name):
    check_states(name, "float32")


@pytest.mark.once("torch")
@pytest.mark.parametrize("name", STREAMED)
def test_states_float64(name, float64):
    check_states(name, "float64")
