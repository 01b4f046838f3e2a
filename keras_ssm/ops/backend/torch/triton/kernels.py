"""The scan of a diagonal system as a GPU kernel for PyTorch, written in Triton.

Triton is imported at the first use. With `TRITON_INTERPRET=1` in the environment by then, the
kernel runs in its interpreter, on a CPU.
"""

from keras_ssm.ops.backend.kernel_support import check_diagonal_scan


def diagonal_scan(dA, inputs, initial, reverse=False, portable=None):
    """Returns the state after each step of a diagonal recurrence, in one pass or two.

    Args:
        dA: float32 tensor `(..., steps or 1, 2 modes)`. State transition of each step, or the
            same for all; its leading axes broadcast against those of `inputs`.
        inputs: float32 tensor `(..., steps, 2 modes)`. What each step adds to the state.
        initial: float32 tensor `(..., 2 modes)`. State before the first step (after the last
            one if `reverse`), with the leading axes of `inputs`.
        reverse: bool. Whether the recurrence runs from the last step to the first.
        portable: function of the three tensors with the same result, for gradients of
            gradients, or `None`.

    Returns:
        Tensor `(..., steps, 2 modes)`, with gradients for all three.

    Raises:
        ValueError: if shapes do not fit each other.

    Reference:
        [S5](https://arxiv.org/abs/2208.04933), section 2.2.
    """
    from keras_ssm.ops.backend.torch.triton.scan import DiagonalScan

    check_diagonal_scan(dA, inputs, initial)
    return DiagonalScan.apply(dA, inputs, initial, bool(reverse), portable)
