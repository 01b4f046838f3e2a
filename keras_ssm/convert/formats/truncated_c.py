"""C of an S4 kernel from the C~ that published checkpoints store."""

import numpy as np

# Dense matrices of a larger state do not fit in memory.
LARGEST_STATE = 4096


def plain_C(C, A, P, dt, length):
    """Returns C from C~ = C (I - dA^length), and the condition number of that solve.

    The official code trains C~, which is bound to a length of the kernel. The system is
    A - P P^H with conjugate pairs, discretised with the bilinear rule.

    Args:
        C: complex array `(channels, features, modes)`. C~.
        A: complex array `(copies, modes)`. Feature h has copy h mod copies.
        P: complex array `(rank, copies, modes)`.
        dt: array `(features, 1)`.
        length: int. The kernel length that C~ is bound to; 0 if C is stored as it is.

    Returns:
        Tuple of C, as `C`, and the largest condition number of I - dA^length.

    Raises:
        ValueError: for a state too large for dense matrices.

    Example:
        ```python
        one = np.ones((1, 1))
        C, condition = plain_C(one[None] + 0j, -one + 0j, 0j * one[None], 2 * one, length=1)
        # dA = 0, so that C~ is C; the condition number is 1
        ```

    Reference:
        [S4](https://arxiv.org/abs/2111.00396), appendix C.3 and algorithm 1.
    """
    if not length:
        return C, 1.0
    features, modes = C.shape[1:]
    if 2 * modes > LARGEST_STATE:
        raise ValueError(
            f"C~ can be undone for states up to {LARGEST_STATE}. Received: a state of {2 * modes}"
        )
    untruncated, worst, eye = np.empty_like(C), 1.0, np.eye(2 * modes)
    A, P = _both(A), _both(P)
    for h in range(features):
        copy = h % len(A)
        half_step = (
            0.5
            * dt[h, 0]
            * (np.diag(A[copy]) - np.einsum("ri,rj->ij", P[:, copy], P[:, copy].conj()))
        )
        dA = np.linalg.solve(eye - half_step, eye + half_step)
        difference = eye - np.linalg.matrix_power(dA, length)
        worst = max(worst, np.linalg.cond(difference))
        untruncated[:, h] = np.linalg.solve(difference.T, _both(C[:, h]).T).T[:, :modes]
    return untruncated, float(worst)


def _both(values):
    """The entries, then their conjugates."""
    return np.concatenate([values, values.conj()], axis=-1)
