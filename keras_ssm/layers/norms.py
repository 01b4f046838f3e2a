"""The norms of a block."""

import keras
from keras import ops

from keras_ssm.checks import check_choice
from keras_ssm.layers.exact_layers import LayerNormalization, OnePassNorm, RMSNormalization
from keras_ssm.layers.scalar_normalization import ScalarNormalization
from keras_ssm.ops import backend

NORMS = (None, "layer", "rms", "batch", "scalar")


def make_norm(kind, epsilon, momentum, **kwargs):
    """Returns the norm layer of that name, or `None`.

    Args:
        kind: str or `None`.
        epsilon, momentum: as in `SSMBlock`.
        **kwargs: Arguments of the layer. With `autocast=False` it reads a wide input unrounded.
    """
    check_choice("norm", kind, NORMS)
    if kind == "rms":
        kwargs.pop("autocast", None)  # always off here
    if kind == "layer":
        return LayerNormalization(epsilon=epsilon, **kwargs)
    if kind == "rms":
        return RMSNormalization(epsilon=epsilon, **kwargs)
    if kind == "batch":
        return _BatchNormalization(epsilon=epsilon, momentum=momentum, **kwargs)
    return ScalarNormalization(**kwargs) if kind == "scalar" else None


class _BatchNormalization(keras.layers.BatchNormalization):
    """Statistics of all steps, padded ones too, in two passes.

    Keras would leave out what the mask of its input covers, and takes the mean of squares less
    the square of the mean, which loses the digits of a variance below it.
    """

    def _moments(self, inputs, mask):
        mean = backend.mean(inputs, axis=self._reduction_axes)
        centered = inputs - mean
        return mean, backend.mean(centered * centered, axis=self._reduction_axes)

    def call(self, inputs, training=None, mask=None):
        if self.compute_dtype != "float64":  # Keras casts float64 to float32
            return super().call(inputs, training=training, mask=mask)
        gamma, beta, mean, variance = map(
            ops.convert_to_tensor, (self.gamma, self.beta, self.moving_mean, self.moving_variance)
        )
        if training and self.trainable:
            old_share, new_share = self.momentum, 1.0 - self.momentum
            old_mean, old_variance = mean, variance
            mean, variance = self._moments(inputs, mask)
            self.moving_mean.assign(old_share * old_mean + new_share * mean)
            self.moving_variance.assign(old_share * old_variance + new_share * variance)
        return (inputs - mean) * ops.rsqrt(variance + self.epsilon) * gamma + beta


def normalize(norm, x, apply):
    """Applies a norm layer, or none, to sequences or to single samples.

    `apply(layer, x)` is `infer`, or what `applied` returns.
    """
    if norm is None:
        return x
    if len(x.shape) == 2:  # batch norm insists on sequences
        return apply(norm, x[:, None])[:, 0]
    return apply(norm, x)


def normalize_sum(norm, x, y, apply):
    """`normalize` of x + y, which has the dtype of x."""
    found = None
    if isinstance(norm, OnePassNorm) and not _is_watched(norm):
        found = norm.of_sum(x, y)
    return normalize(norm, x + ops.cast(y, x.dtype), apply) if found is None else found


def _is_watched(norm):
    """Whether somebody has put a `call` in place of its own, or waits for it on PyTorch."""
    return "call" in vars(norm) or bool(getattr(norm, "_forward_hooks", None))
