"""Diagonal systems of many inputs and outputs: project, scan, project back."""

from collections.abc import Callable

from keras import ops

from keras_ssm.ops import backend, exporting
from keras_ssm.ops.recurrence import scan
from keras_ssm.types import Tensor


def mimo(
    u: Tensor, dA: Tensor, dB: Tensor, C: Tensor, D: Tensor, initial: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns outputs and last state of x_t = dA x_(t-1) + dB u_t, y_t = Re(C x_t) + D u_t.

    Real parts, then imaginary parts, lie on the last axis of everything complex.

    Args:
        u: tensor `(batch, length, features)`. Input.
        dA: tensor `(2 modes,)`. State transition.
        dB: tensor `(features, 2 modes)`. Input matrix.
        C: tensor `(directions, features, 2 modes)`. Output matrices as `read_out` takes them.
        D: tensor `(features,)`. Direct term.
        initial: tensor `(batch, 2 modes)`. State before the first step.

    Returns:
        Tuple `(y, last)`: `(batch, length, features)`, and the state after the last step
        `(batch, 2 modes)`.

    Example:
        ```python
        dA, dB = ops.convert_to_tensor([0.5, 0.0]), ops.convert_to_tensor([[1.0, 0.0]])
        y, last = mimo(ops.ones((1, 3, 1)), dA, dB, dB[None], ops.zeros(1), ops.zeros((1, 2)))
        y[0, :, 0]  # 1, 1.5, 1.75
        ```

    Reference:
        [S5](https://arxiv.org/abs/2208.04933), equations 5 and 6.
    """

    def portable(u, dA, dB, C, D, initial):
        def over_all(*arguments):
            return scan(dA[None, None], *arguments)

        y, states = read_out(u, backend.project(u, dB), C, D, initial, over_all)
        return y, states[:, -1]

    if not exporting.loops_allowed() or exporting.known(u.shape[1]) is None:
        return portable(u, dA, dB, C, D, initial)
    outputs = backend.fused_mimo(u, dA, dB, C, D, initial, portable)
    return portable(u, dA, dB, C, D, initial) if outputs is None else outputs


def read_out(
    u: Tensor, driven: Tensor, C: Tensor, D: Tensor, initial: Tensor, scan: Callable
) -> tuple[Tensor, Tensor]:
    """Returns the outputs of a system whose inputs have reached the states, and the states.

    Args:
        u: tensor `(batch, length, features)`. Input.
        driven: tensor `(batch, length, 2 modes)`. What each step adds to the states.
        C: tensor `(directions, features, 2 modes)`. What states are multiplied by as real
            vectors: the real parts, and the imaginary parts with their sign changed. The rows
            of a second direction read a scan from the last step to the first, from zero.
        D: tensor `(features,)`. Direct term.
        initial: tensor `(batch, 2 modes)`. State before the first step.
        scan: function `(driven, initial, reverse)` that returns the states after each step.

    Returns:
        Tuple `(y, states)`: `(batch, length, features)`, and `(batch, length, 2 modes)` of the
        first direction.
    """
    states = scan(driven, initial, False)
    y = backend.project(states, ops.transpose(C[0]))
    if C.shape[0] == 2:
        later = scan(driven, ops.zeros_like(initial), True)
        y = y + backend.project(later, ops.transpose(C[1]))
    # In rows: for a batch of one, XLA takes 100 times as long for the gradient of D.
    direct = ops.reshape(u, (-1, u.shape[-1])) * D
    return y + ops.reshape(direct, ops.shape(u)), states
