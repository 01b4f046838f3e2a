"""Initial values against the recordings and the definitions."""

import numpy as np
import pytest

from keras_ssm import initializers
from keras_ssm.initializers.diagonal import COMBINATIONS, INITS
from tests.shared_data import golden

SIZES = [4, 16, 64]


def close(value, reference, tolerance=1e-12):
    return np.abs(value - reference).max() <= tolerance * max(np.abs(reference).max(), 1e-30)


@pytest.mark.parametrize("N", SIZES)
@pytest.mark.parametrize("measure", ["legs", "legsd", "fourier", "foud"])
def test_transition(measure, N):
    data, _ = golden(f"hippo/hippo_N{N}")
    A, B = initializers.transition(measure, N)
    assert close(A, data[f"transition/{measure}/A"])
    assert close(B, data[f"transition/{measure}/B"][:, 0])


@pytest.mark.parametrize("N", SIZES)
@pytest.mark.parametrize("measure", ["legs", "legsd", "fourier"])
def test_nplr(measure, N):
    data, _ = golden(f"hippo/hippo_N{N}")
    recorded = {k: data[f"nplr/{measure}/f64/{k}"] for k in ("W", "P", "B", "B_noclip")}
    system = initializers.nplr(measure, N)
    # Where an eigenvalue is zero the recorded vectors carry 1e-8 of rounding.
    tolerance = 1e-6 if measure == "fourier" else 1e-10
    assert close(system.A, recorded["W"], tolerance)
    assert close(np.abs(system.P), np.abs(recorded["P"][:1]), tolerance)
    plain = initializers.nplr(measure, N, clip=False)
    relative_phase = plain.P[0].conj() * plain.B
    assert close(relative_phase, recorded["P"][0].conj() * recorded["B_noclip"], tolerance)
    if measure == "legs":
        # The recorded first rows are real: B agrees up to a sign, the clip included.
        assert close(np.abs(system.B.real), np.abs(recorded["B"].real), tolerance)
        assert close(np.abs(system.B.imag), np.abs(recorded["B"].imag), tolerance)


@pytest.mark.parametrize("N", [4, 16, 64])
@pytest.mark.parametrize("measure", ["legs", "legsd", "fourier", "foud"])
def test_nplr_gives_the_dense_system_back(measure, N):
    A, B = initializers.transition(measure, N)
    s = 0.3 + 2.0j
    P = initializers.low_rank(measure, N)[0]
    exact = np.linalg.solve(s * np.eye(N) - (A + np.outer(P, P)), B)
    system = initializers.nplr(measure, N, clip=False)
    # B^T (s - S)^-1 B needs no eigenvectors, so no phase enters.
    pairs = np.abs(system.B) ** 2 * (1 / (s - system.A) + 1 / (s - system.A.conj()))
    assert close(pairs.sum(), B @ exact, 1e-9)


@pytest.mark.parametrize("N", SIZES)
@pytest.mark.parametrize("init", ["lin", "inv", "inv2", "quad", "real", "legs"])
def test_diagonal(init, N):
    data, _ = golden(f"hippo/hippo_N{N}")
    A, B = initializers.diagonal(init, N)
    assert close(A[0], data[f"diag/{init}/A"], 1e-6)
    if init == "legs":
        assert close(np.abs(B[0].real), np.abs(data["diag/legs/B"].real), 1e-5)
    else:
        assert (B == 1).all()


@pytest.mark.parametrize("init", INITS)
def test_every_diagonal_system_is_stable(init):
    A, B = initializers.diagonal(init, 16, num_ssm=4, seed=0)
    assert A.shape == B.shape == (4, 8)
    assert (A.real < 0).all() and np.isfinite(B).all()


def test_mixtures_are_equal_shares_in_order():
    A, _ = initializers.diagonal("diag", 8, num_ssm=4)
    assert close(A[:2], initializers.diagonal("inv", 8, 2)[0])
    assert close(A[2:], initializers.diagonal("lin", 8, 2)[0])
    assert len(COMBINATIONS["all"]) == 4


def test_steps_are_log_uniform():
    log_dt = initializers.log_uniform_step((20000,), 1e-3, 1e-1, seed=0)
    assert log_dt.min() >= np.log(1e-3) and log_dt.max() <= np.log(1e-1)
    assert abs(log_dt.mean() - np.log(1e-2)) < 0.02


@pytest.mark.parametrize(
    "call",
    [
        lambda: initializers.transition("hippo", 4),
        lambda: initializers.transition("legs", 0),
        lambda: initializers.nplr("legs", 2),
        lambda: initializers.nplr("legs", 5),
        lambda: initializers.diagonal("lin", 3),
        lambda: initializers.diagonal("linear", 4),
        lambda: initializers.log_uniform_step((2,), 0.1, 0.01),
    ],
)
def test_errors(call):
    with pytest.raises(ValueError, match="Received"):
        call()
