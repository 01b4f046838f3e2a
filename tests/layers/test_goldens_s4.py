"""S4 against numbers recorded from the official code."""

import numpy as np
import pytest

from keras_ssm.layers import S4
from tests.backend_tools import relative_error
from tests.recordings import AUTO, S4Recording, evaluations, join, parts, slow_but, stacked

STANDALONE = [
    "all_combo",
    "fourier",
    "hippo_combo",
    "legs",
    "legs_bidir",
    "legs_ch2",
    "legs_l1024",
    "legs_lmax_gt_L",
    "legs_lmax_none_deterministic",
    "legs_rank3",
    "legs_tied_odd",
    "legt_rank2",
    "lin_randP",
]
SRC = ["fourier2", "fourier_decay", "lagt", "lra_block"]
CASES = [*(f"s4/dplr_{name}" for name in STANDALONE), *(f"s4_src/dplr_{name}" for name in SRC)]
GROWING = ["s4/dplr_doubling", "s4/dplr_doubling_lmax"]
WITHOUT = {"s4/dplr_legs_bidir": ["recurrent"], "s4_src/dplr_lra_block": ["recurrent"]}
WITH_STATE = [name for name in CASES if name not in WITHOUT]
LONG = ["s4/dplr_legs_l1024", "s4/dplr_legs_tied_odd"]

# Every evaluation of these is compared each time, and of the others in `make test-all`.
QUICK = ["s4/dplr_legs", "s4/dplr_legs_bidir", "s4/dplr_legt_rank2"]
QUICK_STATES = ["s4/dplr_legs", "s4/dplr_legs_ch2", "s4/dplr_legs_lmax_gt_L"]
FLOAT32 = evaluations(CASES, AUTO, QUICK, WITHOUT)
FLOAT64 = evaluations(CASES, ["auto", "fft"], QUICK, WITHOUT)

# Inits with modes that hardly decay.
FOURIER = ("fourier", "hippo", "all")


class LowRankRecording(S4Recording):
    def make_layer(self):
        config = self.config
        return S4(
            state_dim=config["d_state"],
            init="lin",
            rank=len(self.kernel_sd("P")),
            dt_transform="softplus" if self.softplus else "exp",
            bidirectional=config.get("bidirectional", False),
            channels=config.get("channels", 1),
            num_ssm=config.get("n_ssm"),
            dtype=self.dtype,
        )

    def weights(self):
        return {**super().weights(), **parts("P", self.kernel_sd("P"))}

    @property
    def fourier(self):
        return self.name.split("dplr_")[1].startswith(FOURIER)

    @property
    def tolerances(self):
        """Those recommended with the recordings."""
        if not self.single:
            return 1e-9, 1e-8 if self.fourier else 1e-9
        if self.fourier:
            return 2e-3, 2e-4
        if self.name.endswith("lagt"):
            return 2e-4, 2e-3
        if self.name in LONG:
            return 5e-4, 1e-3
        return 2e-5, 2e-4

    def official_gradients(self, weights):
        weights = self.attuned_gradients(weights)
        found = super().official_gradients(weights)
        found[self.prefix + "P"] = stacked(weights, "P")
        if self.single and self.fourier and self.layer.method == "fft":
            # Its sums over nearly undamped modes cancel, in the official code too; the other
            # evaluations have none.
            return {"layer.D": found["layer.D"]}
        return found

    # The official code trains C~ = C (I - dA^l), attuned to a length l; our layer trains C. With
    # C as a row c on real states, c (dA^l - I) = -c~.

    def system(self):
        """dt, A, P and M = A - P P^H on real states, of each feature, in float64."""
        weights = self.weights()
        dt = self.transformed()[0][0]
        repeats = self.layer.features // len(weights["A_imag"])
        tiled = lambda *keys: [np.tile(weights[key], (repeats, 1)) for key in keys]
        re, im = tiled("log_A_real", "A_imag")
        re = -np.exp(re)
        P = join(weights["P_real"] + 1j * weights["P_imag"])
        P = np.tile(P, (1, repeats, 1))
        diagonal = lambda z: z[:, None] * np.eye(z.shape[-1])
        M = np.block([[diagonal(re), -diagonal(im)], [diagonal(im), diagonal(re)]])
        return dt[..., None], (re, im), P, M - 2 * np.einsum("rhi,rhj->hij", P, P)

    @property
    def attuned_length(self):
        return int(self.data["f64/sd_fwd/kernel.l_kernel"])

    def attuned_gradients(self, weights):
        """Gradients with C held fixed as those with C~ held fixed, and C~ instead of C."""
        length, modes = self.attuned_length, self.layer.modes
        dt, (re, _), P, M = self.system()
        eye = np.eye(2 * modes)
        W = np.linalg.inv(eye - 0.5 * dt * M)
        dA = W @ (eye + 0.5 * dt * M)
        C, d_C = (
            np.concatenate([scale * w["C_real"], -scale * w["C_imag"]], axis=-1)
            for w, scale in ((self.weights(), 2.0), (weights, 0.5))
        )
        F = np.linalg.matrix_power(dA, length) - eye
        d_attuned = -np.einsum("chi,hji->chj", d_C, np.linalg.inv(F))
        # Where dA moves, C follows: dC = -C d(dA^l) (dA^l - I)^-1.
        d_dA = power_gradient(dA, length, np.einsum("chi,chj->hij", C, d_attuned))
        flipped = lambda X: np.swapaxes(X, 1, 2)
        d_M = dt * flipped(W) @ d_dA @ flipped(W)
        d_dt = np.sum(d_dA * (W @ M @ W), axis=(1, 2))[:, None]

        copies = weights["A_imag"].shape[0]
        shared = lambda g: g.reshape(*g.shape[:-2], -1, copies, modes).sum(axis=-3)
        blocks = d_M.reshape(-1, 2, modes, 2, modes)
        quarter = lambda i, j: np.einsum("hnn->hn", blocks[:, i, :, j])
        d_P = -2 * np.einsum("hij,rhj->rhi", d_M + flipped(d_M), P)
        dt, slope = self.transformed()[0]
        key = "inv_dt" if self.softplus else "log_dt"
        moved = {
            key: d_dt * (slope if self.softplus else dt),
            "log_A_real": shared(re * (quarter(0, 0) + quarter(1, 1))),
            "A_imag": shared(quarter(1, 0) - quarter(0, 1)),
            "P_real": shared(d_P[..., :modes]),
            "P_imag": shared(d_P[..., modes:]),
        }
        return {
            **weights,
            **{key: weights[key] + value for key, value in moved.items()},
            "C_real": 2 * d_attuned[..., :modes],
            "C_imag": -2 * d_attuned[..., modes:],
        }

    # The official dense system acts on (x, conj x).

    def recorded_system(self):
        modes = self.layer.modes
        eye = np.eye(modes)
        T = np.block([[eye, 1j * eye], [eye, -1j * eye]])
        dA, dB, dC = (self.array(key) for key in ("dA", "dB", "dC"))
        return [(np.linalg.inv(T) @ dA @ T).real, join(dB[..., :modes]), (dC @ T).real]

    def recorded_state(self, key):
        return join(self.array(key)[..., : self.layer.modes])


def power_gradient(X, n, d_power):
    """Gradient of a function of X^n, by the squarings that lead there."""
    if n == 1:
        return d_power
    flipped = lambda Y: np.swapaxes(Y, -1, -2)
    if n % 2:
        rest = np.linalg.matrix_power(X, n - 1)
        return flipped(rest) @ d_power + power_gradient(X, n - 1, d_power @ flipped(X))
    half = flipped(np.linalg.matrix_power(X, n // 2))
    return power_gradient(X, n // 2, half @ d_power + d_power @ half)


@pytest.mark.parametrize("name, method", FLOAT32)
def test_values_and_gradients_float32(name, method):
    LowRankRecording(name, "float32").check(method)


@pytest.mark.parametrize("name, method", FLOAT64)
def test_values_and_gradients_float64(name, method, float64):
    LowRankRecording(name, "float64").check(method)


def check_states(name, dtype):
    recording = LowRankRecording(name, dtype)
    close, _ = recording.tolerances
    methods = ["auto", "fft", *(["recurrent"] if name in QUICK_STATES else [])]
    recording.check_states(close, close, methods)


@pytest.mark.once("torch")  # other backends compare states in test_layers.py
@pytest.mark.parametrize("name", slow_but(QUICK_STATES, WITH_STATE))
def test_states_float32(name):
    check_states(name, "float32")


@pytest.mark.parametrize("name", slow_but(set(WITH_STATE) - set(LONG), WITH_STATE))
def test_states_float64(name, float64):
    check_states(name, "float64")


def check_kernel(recording, K):
    """The kernel by powers of dA, and that by its generating function."""
    close, _ = recording.tolerances
    layer, length = recording.layer, K.shape[-1]
    both = recording.run(
        lambda: (layer.full_kernel(length), layer.convolution_kernel(layer.bank(), length))
    )
    for ours in both():
        assert relative_error(ours, K) < close


def check_rates(dtype):
    """At another rate the official kernel keeps its C~, attuned at the rate of the training.

    It is the kernel of C = C~ (I - dA^l)^-1 with dA and l of the new rate: what an exact one
    keeps, C, drifts with the rate by the error of the bilinear rule.
    """
    recording = LowRankRecording("s4/dplr_legs_lmax_gt_L", dtype)
    layer, attuned = recording.layer, recording.array("sd_fwd/kernel.C")
    attuned = np.concatenate([2 * attuned[..., 0], -2 * attuned[..., 1]], axis=-1)
    length, modes = int(recording.data["sd_fwd/kernel.l_kernel"]), layer.modes
    dt, _, _, M = recording.system()
    eye = np.eye(2 * modes)
    for rate in (0.5, 2):
        half = 0.5 * rate * dt * M
        dA = np.linalg.solve(eye - half, eye + half)
        F = np.linalg.matrix_power(dA, round(length / rate)) - eye
        C = -0.5 * np.einsum("chi,hij->chj", attuned, np.linalg.inv(F))
        recording.assign({"C_real": C[..., :modes], "C_imag": -C[..., modes:]})
        layer.step_scale = rate
        check_kernel(recording, recording.array(f"K_rate{rate}"))


@pytest.mark.once("torch")  # every backend reads the cases of S4D
def test_rates_float32():
    check_rates("float32")


def test_rates_float64(float64):
    check_rates("float64")


def check_growing(name, dtype):
    """Kernels of growing length, for which the official code attunes its C~ again and again."""
    recording = LowRankRecording(name, dtype)
    for call in range(len(recording.config["calls"])):
        check_kernel(recording, recording.array(f"call{call}/K"))


@pytest.mark.once("torch")
@pytest.mark.parametrize("name", GROWING)
def test_growing_lengths_float32(name):
    check_growing(name, "float32")


@pytest.mark.parametrize("name", GROWING)
def test_growing_lengths_float64(name, float64):
    check_growing(name, "float64")
