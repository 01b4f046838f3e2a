"""Initial values against the recordings and the definitions."""

import numpy as np
import pytest

from keras_ssm import initializers
from keras_ssm.initializers.diagonal import COMBINATIONS, INITS
from keras_ssm.initializers.hippo import FOURIER, MEASURES
from tests.shared_data import golden

pytestmark = pytest.mark.once("torch")

SIZES = [4, 16, 64]


def close(value, reference, tolerance=1e-12):
    return np.abs(value - reference).max() <= tolerance * max(np.abs(reference).max(), 1e-30)


def needed_rank(measure):
    return 2 if measure == "legt" else 1


def assembled(A, P, B):
    """The full matrix and its input columns [B, P] of a halved system."""
    A, P, B = (np.concatenate([x, x.conj()], axis=-1) for x in (A, P, B))
    return np.diag(A) - P.T @ P.conj(), np.column_stack([B, *P])


def gram_response(matrix, columns, s):
    """columns^H (s - matrix)^-1 columns, in which no basis and no phase of it enters."""
    return columns.conj().T @ np.linalg.solve(s * np.eye(len(matrix)) - matrix, columns)


@pytest.mark.parametrize("N", SIZES)
@pytest.mark.parametrize("measure", MEASURES)
def test_transition(measure, N):
    data, _ = golden(f"hippo/hippo_N{N}")
    A, B = initializers.transition(measure, N)
    assert close(A, data[f"transition/{measure}/A"])
    assert close(B, data[f"transition/{measure}/B"][:, 0])


@pytest.mark.parametrize("N", [1, 5, 16])
@pytest.mark.parametrize("measure", MEASURES)
def test_low_rank_makes_the_matrix_normal(measure, N):
    A, _ = initializers.transition(measure, N)
    P = initializers.low_rank(measure, N, rank=3)
    S = A + P.T @ P
    assert P.shape == (3, N) and not P[2].any()
    assert np.allclose(S + S.T, 2 * S[0, 0] * np.eye(N), atol=1e-12)


# The recorded zero mode of "foud" is wrong: the next test would fail on it.
@pytest.mark.parametrize("N", SIZES)
@pytest.mark.parametrize("measure", [m for m in MEASURES if m != "foud"])
def test_nplr(measure, N):
    data, _ = golden(f"hippo/hippo_N{N}")
    recorded = {k: data[f"nplr/{measure}/f64/{k}"] for k in ("W", "P", "B", "B_noclip")}
    rank = needed_rank(measure)
    system = initializers.nplr(measure, N, rank)
    # Where an eigenvalue is zero the recorded vectors carry 1e-8 of rounding.
    tolerance = 1e-6 if measure in FOURIER else 1e-10
    assert system.P.shape == (rank, N // 2)
    assert close(system.A, recorded["W"], tolerance)
    assert close(np.abs(system.P), np.abs(recorded["P"]), tolerance)
    plain = initializers.nplr(measure, N, rank, clip=False)
    relative_phase = plain.P.conj() * plain.B
    assert close(relative_phase, recorded["P"].conj() * recorded["B_noclip"], tolerance)
    if measure in FOURIER:
        assert close(np.abs(system.B), np.abs(recorded["B"]), tolerance)
    else:
        # The recorded first rows are real: B agrees up to a sign, the clip included.
        assert close(np.abs(system.B.real), np.abs(recorded["B"].real), tolerance)
        assert close(np.abs(system.B.imag), np.abs(recorded["B"].imag), tolerance)


@pytest.mark.parametrize("N", [4, 6, 16, 64])
@pytest.mark.parametrize("measure", MEASURES)
def test_nplr_gives_the_dense_system_back(measure, N):
    A, B = initializers.transition(measure, N)
    P = initializers.low_rank(measure, N, rank=2)
    system = initializers.nplr(measure, N, rank=2, clip=False)
    for s in (0.3 + 2.0j, 5.0 - 40.0j):
        exact = gram_response(A, np.column_stack([B, *P]), s)
        assert close(gram_response(*assembled(*system), s), exact, 1e-10)


@pytest.mark.parametrize("measure", MEASURES)
def test_eigenvectors_are_unitary_and_have_a_fixed_phase(measure):
    W, V = initializers.hippo.normal_eigenpairs(measure, 16)
    P = initializers.low_rank(measure, 16, rank=2)
    assert close(V.conj().T @ V, np.eye(16))
    normal = initializers.transition(measure, 16)[0] + P.T @ P
    assert close((V * W) @ V.conj().T, normal, 1e-11)
    assert (W[8:] == W[:8].conj()[::-1]).all() and (V[:, 8:] == V[:, :8].conj()[:, ::-1]).all()
    first = V[np.argmax(np.abs(V) > 1e-9, axis=0), np.arange(16)]
    assert (first.real > 0).all() and np.abs(first.imag).max() < 1e-15


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
def test_every_system_is_stable(init):
    A, B = initializers.diagonal(init, 16, num_ssm=4, seed=0)
    assert A.shape == B.shape == (4, 8)
    assert (A.real < 0).all() and np.isfinite(B).all()
    system = initializers.dplr(init, 16, rank=2, num_ssm=4, seed=0)
    assert system.A.shape == system.B.shape == (4, 8) and system.P.shape == (2, 4, 8)
    for i in range(4):
        matrix, _ = assembled(system.A[i], system.P[:, i], system.B[i])
        assert (np.linalg.eigvals(matrix).real < 0).all()
    if init != "rand":
        assert (system.A == A).all() and (system.B == B).all()


def test_mixtures_are_equal_shares_in_order():
    A, _ = initializers.diagonal("diag", 8, num_ssm=4)
    assert close(A[:2], initializers.diagonal("inv", 8, 2)[0])
    assert close(A[2:], initializers.diagonal("lin", 8, 2)[0])
    assert len(COMBINATIONS["all"]) == 4


def test_mixtures_of_dplr_against_the_recording():
    data, _ = golden("s4/dplr_all_combo")
    system = initializers.dplr("all", 8, num_ssm=4, seed=0)
    # The recorded features go through the four systems in turn.
    assert close(system.A, data["par/A"][:4], 1e-5)
    assert close(np.abs(system.P), np.abs(data["par/P"][:, :4]), 1e-5)
    assert close(np.abs(system.B), np.abs(data["par/B"][0, :4]), 1e-5)


def test_low_rank_of_closed_forms_is_complex_normal():
    P = initializers.dplr("lin", 64, rank=2, num_ssm=500, seed=0).P
    assert abs(np.mean(np.abs(P) ** 2) - 1) < 0.02
    assert abs(np.mean(P**2)) < 0.02 and abs(np.mean(P)) < 0.02


@pytest.mark.parametrize("N", SIZES)
def test_skew_hippo(N):
    data, _ = golden(f"hippo/hippo_N{N}")
    recorded = data["dss/hippo_skew_evals_2N"][:N]
    assert close(initializers.skew_hippo(N), recorded.imag * 1j - 0.5, 1e-6)


@pytest.mark.parametrize("N", SIZES)
def test_block_diagonal_against_the_recording(N):
    data, _ = golden(f"hippo/hippo_N{N}")
    Lambda, V, V_inv = initializers.block_diagonal(N, conj_sym=False)
    assert close(Lambda, data["s5/Lambda"], 1e-5)
    assert close(np.abs(V), np.abs(data["s5/V"]), 1e-4)
    assert close(np.abs(V_inv @ data["s5/B_orig"]), np.abs(data["s5/B"]), 1e-4)
    half, _, _ = initializers.block_diagonal(N)
    assert close(half, data["s5/Lambda"][: N // 2], 1e-5) and (half.imag < 0).all()


@pytest.mark.parametrize(("N", "blocks"), [(16, 8), (16, 1), (24, 3), (9, 3)])
def test_block_diagonal(N, blocks):
    size = N // blocks
    normal = np.kron(np.eye(blocks), initializers.transition("legsd", size)[0])
    Lambda, V, V_inv = initializers.block_diagonal(N, blocks, conj_sym=False)
    assert close(V * Lambda @ V_inv, normal, 1e-11) and close(V_inv @ V, np.eye(N))
    if size % 2 == 0:
        Lambda, V, V_inv = initializers.block_diagonal(N, blocks)
        assert V.shape == (N, N // 2) and V_inv.shape == (N // 2, N)
        assert close(2 * (V * Lambda @ V_inv).real, normal, 1e-11)


def test_lecun_normal():
    values = initializers.lecun_normal((400, 500), fan_in=25, rng=0)
    assert abs(values.var() * 25 - 1) < 0.02 and abs(values.mean()) < 0.002
    assert np.abs(values).max() <= 2 / 5 / 0.8796
    assert (values == initializers.lecun_normal((400, 500), 25, np.random.default_rng(0))).all()


def test_steps_are_log_uniform():
    log_dt = initializers.log_uniform_step((20000,), 1e-3, 1e-1, seed=0)
    assert log_dt.min() >= np.log(1e-3) and log_dt.max() <= np.log(1e-1)
    assert abs(log_dt.mean() - np.log(1e-2)) < 0.02


@pytest.mark.parametrize(
    "call",
    [
        lambda: initializers.transition("hippo", 4),
        lambda: initializers.transition("legs", 0),
        lambda: initializers.low_rank("legt", 4),
        lambda: initializers.low_rank("legs", 4, rank=0),
        lambda: initializers.nplr("legs", 2),
        lambda: initializers.nplr("legs", 5),
        lambda: initializers.nplr("legt", 4),
        lambda: initializers.diagonal("lin", 3),
        lambda: initializers.diagonal("linear", 4),
        lambda: initializers.diagonal("diag", 4, num_ssm=3),
        lambda: initializers.diagonal("lin", 4, num_ssm=0),
        lambda: initializers.dplr("lin", 3),
        lambda: initializers.dplr("linear", 4),
        lambda: initializers.dplr("lin", 4, rank=0),
        lambda: initializers.dplr("legt", 4, rank=1),
        lambda: initializers.dplr("hippo", 4, num_ssm=3),
        lambda: initializers.skew_hippo(0),
        lambda: initializers.block_diagonal(0),
        lambda: initializers.block_diagonal(16, blocks=3),
        lambda: initializers.block_diagonal(16, blocks=0),
        lambda: initializers.block_diagonal(9, blocks=3),
        lambda: initializers.lecun_normal((2,), fan_in=0),
        lambda: initializers.log_uniform_step((2,), 0.1, 0.01),
    ],
)
def test_errors(call):
    with pytest.raises(ValueError, match=r"^`\w+` .*Received: \w+="):
        call()
