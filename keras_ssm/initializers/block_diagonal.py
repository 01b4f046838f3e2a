"""Block-diagonal normal state matrices of the S5 layer, in NumPy float64."""

import numpy as np

from keras_ssm.initializers.hippo import normal_eigenpairs


def block_diagonal(state_dim, blocks=1, conj_sym=True):
    """Diagonalises a block-diagonal matrix of copies of the normal part of HiPPO-LegS.

    Args:
        state_dim: int. Size N of the full state.
        blocks: int. Number of equal blocks on the diagonal. Defaults to `1`.
        conj_sym: bool. Whether one of each conjugate pair is kept, the one of negative
            imaginary part: P = N/2 modes, otherwise P = N. Defaults to `True`.

    Returns:
        Tuple of complex128 arrays `(Lambda, V, V_inv)` of shapes `(P,)`, `(N, P)` and
        `(P, N)`: eigenvalues by ascending imaginary part within each block, eigenvectors and
        their conjugate transpose.

    Raises:
        ValueError: if `blocks` does not divide `state_dim`, or a block is odd with `conj_sym`.

    Example:
        ```python
        Lambda, V, V_inv = block_diagonal(state_dim=16, blocks=8)
        assert Lambda.shape == (8,) and V.shape == (16, 8) and V_inv.shape == (8, 16)
        ```

    Reference:
        [S5](https://arxiv.org/abs/2208.04933), appendix B.1.
    """
    if state_dim < 1:
        raise ValueError(f"`state_dim` must be positive. Received: state_dim={state_dim}")
    if blocks < 1 or state_dim % blocks:
        raise ValueError(
            "`blocks` must be positive and divide `state_dim`. "
            f"Received: blocks={blocks}, state_dim={state_dim}"
        )
    size = state_dim // blocks
    if conj_sym and size % 2:
        raise ValueError(
            "`state_dim` must be an even multiple of `blocks` where conjugate pairs are halved. "
            f"Received: state_dim={state_dim}, blocks={blocks}"
        )
    modes = size // 2 if conj_sym else size
    W, V = normal_eigenpairs("legs", size)
    V = np.kron(np.eye(blocks), V[:, :modes])
    return np.tile(W[:modes], blocks), V, V.conj().T
