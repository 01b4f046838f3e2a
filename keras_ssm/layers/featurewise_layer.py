from keras import ops

from keras_ssm.checks import check_positive
from keras_ssm.layers.ssm_layer import SSMLayer
from keras_ssm.types import Tensor


class FeaturewiseLayer(SSMLayer):
    """Base class of the layers that convolve each feature by itself: kernels, channels, skip D.

    Args:
        channels: int. Outputs for each feature; channel c of feature h is output
            `c * features + h`.
        **kwargs: Arguments of `SSMLayer`.

    Raises:
        ValueError: for a number of channels below 1.
    """

    def __init__(self, channels: int = 1, **kwargs):
        super().__init__(**kwargs)
        check_positive(channels=channels)
        self.channels = channels

    # Methods that a layer provides

    def full_kernel(self, length: int) -> Tensor:
        """The kernel with all channels and directions on the first axis."""
        raise NotImplementedError

    # Methods that all share

    @property
    def planes(self) -> int:
        """Kernels of a feature: one for each channel and direction."""
        return (2 if self.bidirectional else 1) * self.channels

    def add_skip(self, features, rng):
        """Adds D, the last weight."""
        D = rng.standard_normal((self.channels, features))
        self.D = self.add_system_weight("D", D) if self.skips else None

    def kernel(self, length: int) -> Tensor:
        """Returns the convolution kernel of each feature.

        Args:
            length: int. Number of steps.

        Returns:
            Tensor `(features, length)`; `(channels, features, length)` with several channels;
            a leading axis of 2 (past, future) if bidirectional. The future half starts at the
            sample after the current one. Zeros past a `max_kernel_length`.

        Raises:
            ValueError: if the length is not a positive integer.
        """
        check_positive(length=length)
        self.check_built()
        K = self.full_kernel(length)
        directions = (2,) if self.bidirectional else ()
        channels = (self.channels,) if self.channels > 1 else ()
        return ops.reshape(K, (*directions, *channels, self.features, length))

    def get_config(self):
        return {**super().get_config(), "channels": self.channels}

    def skip_of(self, x, D):
        """D u for each channel, channels outermost: `(..., channels * features)`."""
        if D is None:
            return 0.0
        if self.channels == 1:
            return x * D[0]
        return ops.concatenate([x * D[c] for c in range(self.channels)], axis=-1)
