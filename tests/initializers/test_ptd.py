"""Perturb-then-diagonalise: exact identities of LegS, and what the perturbations promise."""

import numpy as np
import pytest
from scipy.linalg import expm

from keras_ssm import initializers
from keras_ssm.initializers import blaschke, legs_state_transfer, ptd
from keras_ssm.initializers.perturbation import _objective

pytestmark = pytest.mark.once("torch")

SIZES = [8, 16, 32, 64]


def frequencies(N, *eigenvalues):
    """The frequency axis past the fastest mode, with the peaks of the given spectra."""
    return np.concatenate([np.geomspace(1e-2, 10 * N**2, 2000), *(W.imag for W in eigenvalues)])


def state_transfer(system, w):
    """V (iw - A)^-1 B, one row per frequency."""
    return system.B / (1j * w[:, None] - system.A) @ system.V.T


def deviation(system):
    """Largest error of the state, relative to |B|: the worst output of unit weight."""
    N = len(system.A)
    w = frequencies(N, system.A)
    error = legs_state_transfer(1j * w, N) - state_transfer(system, w)
    return np.linalg.norm(error, axis=1).max() / N


def kappa(system):
    return np.linalg.cond(system.V)


def error_of_diagonalization(system):
    A, _ = initializers.transition("legs", len(system.A))
    error = system.V * system.A @ system.V_inv - A - system.E
    return np.linalg.norm(error, 2) / np.linalg.norm(A, 2)


@pytest.mark.parametrize("s", [0.1j, 2.0 + 3.0j, 50.0j, -0.3 + 400.0j])
def test_state_transfer_of_legs(s):
    A, B = initializers.transition("legs", 16)
    exact = np.linalg.solve(s * np.eye(16) - A, B)
    assert np.abs(legs_state_transfer(s, 16) - exact).max() < 1e-14 * max(1, abs(exact).max())
    assert abs(B @ exact - (1 - blaschke(s, 16))) < 1e-13


def test_identities_take_arrays():
    s = 1j * np.linspace(0, 9, 6).reshape(2, 3)
    assert legs_state_transfer(s, 4).shape == (2, 3, 4) and blaschke(s, 4).shape == (2, 3)
    assert legs_state_transfer(s, 1)[1, 2, 0] == 1 / (s[1, 2] + 1)


@pytest.mark.parametrize("N", [4, 32, 64])
def test_normal_part_divides_by_one_plus_b(N):
    A, B = initializers.transition("legsd", N)
    s = 1j * frequencies(N)[::20]
    exact = np.linalg.solve(s[:, None, None] * np.eye(N) - A, B[None, :, None])[..., 0]
    identity = legs_state_transfer(s, N) / (1 + blaschke(s, N))[:, None]
    scale = np.linalg.norm(exact, axis=1)
    assert (np.linalg.norm(identity - exact, axis=1) / scale).max() < 1e-12


@pytest.mark.parametrize("N", SIZES)
@pytest.mark.parametrize("perturbation", ["optimized", "rank1"])
def test_defaults(perturbation, N):
    system = ptd(N, perturbation)
    A, B = initializers.transition("legs", N)
    assert (system.A.real < 0).all()
    assert kappa(system) <= 25
    assert error_of_diagonalization(system) < 1e-12
    assert np.linalg.norm(system.E, 2) <= 0.1 * np.linalg.norm(A, 2)
    assert np.allclose(np.linalg.norm(system.V, axis=0), 1)
    factor = 0.95 if perturbation == "rank1" else 1
    assert np.allclose(system.V @ system.B, factor * B, atol=1e-11)


@pytest.mark.parametrize("N", SIZES)
@pytest.mark.parametrize("perturbation", ["optimized", "rank1", "gaussian"])
def test_half_of_the_pairs_is_enough(perturbation, N):
    system = ptd(N, perturbation)
    half = N // 2
    assert system.paired
    assert (system.A.imag[:half] < 0).all() and (np.diff(system.A.imag[:half]) >= 0).all()
    for first, second in (
        (system.A[:half], system.A[half:]),
        (system.V[:, :half], system.V[:, half:]),
        (system.V_inv[:half], system.V_inv[half:]),
        (system.B[:half], system.B[half:]),
    ):
        assert (second == first.conj()).all()
    if perturbation == "gaussian":
        return
    A, _ = initializers.transition("legs", N)
    rebuilt = 2 * (system.V[:, :half] * system.A[:half] @ system.V_inv[:half]).real
    assert np.abs(rebuilt - A - system.E).max() < 1e-12 * np.abs(A).max()


@pytest.mark.parametrize("t", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("N", [8, 16, 32, 64])
def test_rank_one(N, t):
    system = ptd(N, "rank1", size=t)
    if N >= 16:
        assert abs(kappa(system) * t / (2 - t) - 1) < (0.15 if N >= 32 else 0.25)
    w = frequencies(N, system.A)
    exact = legs_state_transfer(1j * w, N)
    # Each transfer function is off by one and the same factor, so the states are as well.
    ratio = np.linalg.norm(state_transfer(system, w) - exact, axis=1)
    ratio /= np.linalg.norm(exact, axis=1)
    assert ratio.max() <= t / (2 - 2 * t) + 1e-9
    tau = t / (2 - t)
    identity = exact / (1 + tau * blaschke(1j * w, N))[:, None]
    assert np.abs(state_transfer(system, w) - identity).max() < 1e-9


def test_rank_one_of_full_size_is_the_normal_part():
    system = ptd(16, "rank1", size=1)
    A, B = initializers.transition("legsd", 16)
    assert np.isclose(kappa(system), 1)
    assert np.allclose(system.V * system.A @ system.V_inv, A)
    assert np.allclose(system.V @ system.B, B)


def check_optimized(N, size, seed):
    system = ptd(N, "optimized", size=size, seed=seed)
    largest, farthest = {0.03: (10, 0.05), 0.01: (25, 0.02)}[size]
    A, _ = initializers.transition("legs", N)
    assert np.isclose(np.linalg.norm(system.E), size * np.linalg.norm(A))
    assert kappa(system) < largest
    assert deviation(system) < farthest
    assert (system.A.real < 0).all()


@pytest.mark.parametrize(
    ("N", "size", "seed"),
    [(16, 0.03, 0), (16, 0.01, 0), (16, 0.03, 1), (16, 0.01, 1), (32, 0.03, 0), (32, 0.01, 0)],
)
def test_optimized(N, size, seed):
    check_optimized(N, size, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [0.03, 0.01])
@pytest.mark.parametrize("N", [16, 32, 64])
def test_optimized_in_full(N, size, seed):
    check_optimized(N, size, seed)


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("N", [16, 32, 64])
@pytest.mark.parametrize(("size", "largest", "farthest"), [(1e-3, 1e5, 0.05), (1e-4, 5e5, 0.005)])
def test_gaussian(N, size, largest, farthest, real):
    for seed in range(10):
        system = ptd(N, "gaussian", size=size, seed=seed, real=real)
        assert kappa(system) < largest
        assert deviation(system) < farthest
        assert (system.A.real < 0).all()


@pytest.mark.parametrize("real", [True, False])
def test_gradient_of_the_search(real):
    rng = np.random.default_rng(0)
    A, _ = initializers.transition("legs", 6)
    M = A + 0.1 * rng.standard_normal(A.shape) + 1.5 * np.eye(6)
    direction = rng.standard_normal(A.shape) + (0 if real else 1j) * rng.standard_normal(A.shape)
    _, gradient, _ = _objective(M)
    step = 1e-6 * direction
    numeric = (_objective(M + step)[0] - _objective(M - step)[0]) / 2e-6
    assert abs(np.sum(gradient.conj() * direction).real / numeric - 1) < 1e-6


def test_complex_perturbations_have_no_pairs():
    for perturbation in ("optimized", "gaussian"):
        system = ptd(8, perturbation, real=False)
        assert not system.paired and np.iscomplexobj(system.E)
        assert error_of_diagonalization(system) < 1e-12
        assert (system.A.real < 0).all() and (np.diff(system.A.imag) >= 0).all()


@pytest.mark.parametrize("perturbation", ["optimized", "rank1", "gaussian"])
@pytest.mark.parametrize("N", [2, 4, 6, 10])
def test_other_sizes_work(N, perturbation):
    # Two or four modes keep real eigenvalues under a small perturbation.
    system = ptd(N, perturbation)
    assert (system.A.real < 0).all()
    assert error_of_diagonalization(system) < 1e-12
    assert system.paired or N < 8


def test_results_are_shared_and_cannot_be_spoilt():
    system = ptd(8)
    assert ptd(8, "optimized", size=0.03).A is system.A
    for array in system:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


# Kernels of 2048 samples of 1 ms, at the frequency of the fastest mode of S4D-LegS.
LENGTH, DT = 2048, 1e-3


def dense_gain(A, B, theta):
    """Frequency response of the states under a zero-order hold, dense."""
    dA = expm(A * DT)
    dB = np.linalg.solve(A, dA @ B - B)
    z = np.exp(-1j * theta)
    first = dB - z**LENGTH * np.linalg.matrix_power(dA, LENGTH) @ dB
    return np.linalg.solve(np.eye(len(A)) - z * dA, first)


def modal_gain(A, B, theta):
    """The same for a diagonal system."""
    z = np.exp(A * DT - 1j * theta)
    return np.expm1(A * DT) / A * B * (1 - z**LENGTH) / (1 - z)


@pytest.mark.parametrize("N", [32, 64])
def test_spike(N):
    S, half_B = initializers.transition("legsd", N)
    spike = np.linalg.eigvals(S).imag.max() * DT
    C = np.random.default_rng(0).standard_normal((64, N)) / np.sqrt(N)
    legs = initializers.transition("legs", N)

    def mean_ratio(states):
        return np.mean(np.abs(C @ states) / np.abs(C @ dense_gain(*legs, spike)))

    assert mean_ratio(dense_gain(S, half_B, spike)) > {32: 50, 64: 200}[N]
    for perturbation in ("optimized", "rank1"):
        system = ptd(N, perturbation)
        gain = mean_ratio(system.V @ modal_gain(system.A, system.B, spike))
        assert 0.9 <= gain <= 1.3

    # As published, B is twice as large and its fastest modes are clipped: the spike is weaker.
    system = initializers.nplr("legs", N)
    A = np.concatenate([system.A, system.A.conj()])
    B = np.concatenate([system.B, system.B.conj()])
    V = initializers.hippo.normal_eigenpairs("legs", N)[1][:, : N // 2]
    V = np.concatenate([V, V.conj()], axis=1)
    assert 20 < mean_ratio(V @ modal_gain(A, B, spike)) < mean_ratio(dense_gain(S, half_B, spike))

    # It also stands out of the response of the same system at the frequencies around it.
    around = spike * np.concatenate([np.geomspace(0.5, 0.9, 20), np.geomspace(1.1, 2, 20)])

    def prominence(gain):
        background = np.median([np.abs(C @ gain(theta)) for theta in around], axis=0)
        return np.mean(np.abs(C @ gain(spike)) / background)

    assert prominence(lambda theta: V @ modal_gain(A, B, theta)) > 50
    assert prominence(lambda theta: dense_gain(*legs, theta)) < 1.3


@pytest.mark.parametrize(
    "call",
    [
        lambda: ptd(8, "random"),
        lambda: ptd(7),
        lambda: ptd(0),
        lambda: ptd(8, size=0.0),
        lambda: ptd(8, size=1.0),
        lambda: ptd(8, "rank1", size=1.5),
        lambda: ptd(8, "rank1", real=False),
        lambda: ptd(8, "gaussian", seed="0"),
        lambda: ptd(64, "gaussian", size=0.03),
        lambda: ptd(64, "rank1", size=1e-9),
        lambda: legs_state_transfer(1j, 0),
        lambda: blaschke(1j, 0),
    ],
)
def test_errors(call):
    with pytest.raises(ValueError, match=r"^`\w+` .*Received: \w+="):
        call()
