from keras import ops

from keras_ssm.checks import check_positive
from keras_ssm.layers.discrete_system import DiscreteSystem
from keras_ssm.layers.featurewise_layer import FeaturewiseLayer
from keras_ssm.layers.kernel_evaluation import KernelEvaluation
from keras_ssm.layers.one_sampling_rate import OneSamplingRate
from keras_ssm.layers.ssm_layer import valid_steps
from keras_ssm.ops import backend
from keras_ssm.ops.exporting import known
from keras_ssm.ops.fourier import fft_conv
from keras_ssm.ops.recurrent import recurrent
from keras_ssm.ops.window import direct_conv, last_of_rows, window_step
from keras_ssm.types import State, Tensor


class KernelLayer(KernelEvaluation, OneSamplingRate, FeaturewiseLayer):
    """Base class of the layers that hold their convolution kernel, and no system that makes it.

    It convolves, adds the skip D, and streams exactly: the state is the last inputs, one fewer
    than the kernel has entries. That state, and the work of a step, grow with the kernel. Samples
    further away than the kernel is long do not contribute, and a shorter sequence meets the
    beginning of the kernel. A layer of this kind adds its weights in `build_kernel`, and says its
    length in `kernel_length` and its entries in `whole_kernel`.

    A kernel belongs to one sampling rate: there is no dt, and `step_scale` stays 1.

    Args:
        max_length: int. The longest sequence whose samples all meet each other.
        channels: int. Outputs for each feature; channel c of feature h is output
            `c * features + h`.
        method: str. `"auto"` and `"fft"` convolve by Fourier transforms, `"direct"` sums over the
            kernel (for short kernels, and in files without transforms), `"recurrent"` reads
            sample by sample.
        **kwargs: Arguments of `SSMLayer`.

    Raises:
        ValueError: for sizes below 1 or an unknown `method`.
    """

    one_rate_because = "holds a kernel for one sampling rate, and no dt"

    def __init__(self, max_length: int, **kwargs):
        super().__init__(**kwargs)
        check_positive(max_length=max_length)
        self.max_length = max_length

    # Methods that a layer provides

    @property
    def kernel_length(self) -> int:
        """Number of lags of the kernel."""
        return self.max_length

    def build_kernel(self, features, rng):
        """Adds the weights of the kernel, all but D."""
        raise NotImplementedError

    def whole_kernel(self) -> Tensor:
        """Returns the kernel `(planes, features, kernel_length)` of the current weights.

        Bidirectional ones have the past in the first half of the planes, from lag 0 on, and the
        future in the second, from lag -1 backwards.
        """
        raise NotImplementedError

    # Methods that all share

    def build_system(self, features: int) -> None:
        rng = self.make_rng()
        self.build_kernel(features, rng)
        self.add_skip(features, rng)

    def state_shape(self, features: int) -> tuple[int, ...]:
        return (features, self.kernel_length - 1)

    def full_kernel(self, length: int) -> Tensor:
        K = self.whole_kernel()[..., :length]
        return backend.pad(K, [(0, 0), (0, 0), (0, length - K.shape[-1])])

    def discretize(self) -> DiscreteSystem:
        """Returns the kernel and D of the current weights, for a loop of `step`.

        Returns:
            A `DiscreteSystem`: `dC` `(channels, features, kernel_length)`, the kernel from its
            last entry to its first, and `D` `(channels, features)`; `dA` and `dB` are `None`.

        Raises:
            ValueError: if the layer is bidirectional.
        """
        self.check_has_state()
        self.check_built()
        return self._system(self.whole_kernel(), self.copied_skip())

    def advance(self, x: Tensor, state: State, system: DiscreteSystem) -> tuple[Tensor, State]:
        y, state = window_step(x, state, system.dC)
        return y + self.skip_of(x, system.D), state

    def evaluate(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        initial_state: State | None = None,
        return_state: bool = False,
        kernel: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        lengths = valid_steps(mask, return_state)
        K = self.whole_kernel() if kernel is None else kernel
        D, method = self.skip_weight(), self.chosen_method(x.shape[1])
        if method == "recurrent":
            system = self._system(K, D)
            start = self._zero_state(x) if initial_state is None else initial_state
            return recurrent(
                x, lambda sample, state: self.advance(sample, state, system), start, lengths
            )
        before = None if initial_state is None else ops.transpose(initial_state, (0, 2, 1))
        y = self._convolve(x, K, D, before, method)
        state = None
        if return_state:
            before = ops.transpose(self._zero_state(x), (0, 2, 1)) if before is None else before
            whole = ops.concatenate([before, x], axis=1)
            state = last_of_rows(whole, self.kernel_length - 1, lengths)
        return y, state

    def get_config(self):
        config = {**super().get_config(), "max_length": self.max_length}
        del config["chunk_size"]
        return config

    def _convolve(self, x, K, D, before, method):
        """The convolution of x, after the inputs `before` it, and its skip."""
        extra = 0 if before is None else before.shape[1]
        whole = x if before is None else ops.concatenate([before, x], axis=1)
        if method == "direct":
            y = self.direct(whole, K) + self.skip_of(whole, D)
        else:
            length = known(whole.shape[1])
            K = K if length is None else K[..., :length]
            y = fft_conv(whole, K, self.bidirectional, D)
        return y[:, extra:]

    def direct(self, x, K):
        """The convolution of `"direct"`, a sum over the kernel."""
        return direct_conv(x, K, self.bidirectional)

    def _system(self, K, D):
        return DiscreteSystem(None, None, ops.flip(K, axis=-1), D)

    def _zero_state(self, x):
        size = self.kernel_length - 1
        return ops.repeat(ops.zeros_like(x[:, 0, :, None]), size, axis=-1)
