import keras
from keras import ops

from keras_ssm.layers import SSMBlock


@keras.saving.register_keras_serializable(package="keras_ssm")
class DirectBlock(SSMBlock):
    """An `SSMBlock` without its residual sum: norm(f(x)), as the published test of PTD has it.

    Whatever its system suppresses is lost, since no path leads around the system.

    Args:
        mixer, activation, gate, norm, dropout, **kwargs: as in `SSMBlock`.

    Example:
        ```python
        block = keras_ssm.experiments.DirectBlock(keras_ssm.layers.S4D(state_dim=8))
        y = block(np.zeros((2, 100, 16), "float32"))  # (2, 100, 16)
        ```

    Reference:
        [PTD](https://arxiv.org/abs/2310.01698), section 5.1; the released script `robustness.py`.
    """

    def finish(self, x, read, y, apply, training=False):
        return super().finish(ops.zeros_like(x), read, y, apply, training)
