import numpy as np
from keras import ops

from keras_ssm.checks import check_positive
from keras_ssm.layers.discrete_system import DiscreteSystem
from keras_ssm.layers.featurewise_layer import FeaturewiseLayer
from keras_ssm.layers.ssm_layer import valid_steps
from keras_ssm.ops import backend
from keras_ssm.ops.chunked import chunked
from keras_ssm.ops.exporting import known, loops_allowed
from keras_ssm.ops.fourier import fft_conv
from keras_ssm.ops.powers import kernel
from keras_ssm.ops.recurrent import recurrent, step
from keras_ssm.types import State, Tensor


class SISOLayer(FeaturewiseLayer):
    """Base class of the layers with a single-input single-output system for each feature.

    It applies a bank of systems in every way there is, adds the skip D, and gives the kernel,
    the discrete system and the steps. A layer of this kind adds its weights in `build_bank` and
    turns them into a bank of `keras_ssm.ops` in `bank`.

    Args:
        state_dim: int. Full size N of the state of a feature.
        channels: int. Outputs for each feature; channel c of feature h is output
            `c * features + h`.
        max_kernel_length: int or `None`. If set, samples further away than this do not
            contribute. Such a layer convolves (`"fft"`) and has no state.
        **kwargs: Arguments of `SSMLayer`.

    Raises:
        ValueError: for sizes below 1, or a `method` that cannot truncate the kernel.
    """

    def __init__(
        self, state_dim: int = 64, channels: int = 1, max_kernel_length: int | None = None, **kwargs
    ):
        super().__init__(channels=channels, **kwargs)
        check_positive(state_dim=state_dim)
        if max_kernel_length is not None:
            check_positive(max_kernel_length=max_kernel_length)
        self.state_dim = state_dim
        self.max_kernel_length = max_kernel_length
        self.check_method(self.method)

    # Methods that a system provides

    def build_bank(self, features, rng):
        """Adds the weights of the systems, all but D."""
        raise NotImplementedError

    def bank(self, length=None):
        """Returns the bank of the current weights, `DiagonalBank` or `DenseBank`.

        `length` is that of the sequence, for systems that depend on it; `None` in a stream.
        """
        raise NotImplementedError

    def convolution_kernel(self, bank, length):
        """Returns the kernel that `"fft"` convolves with, `(channels, features, length)`."""
        return kernel(bank, length)

    # Methods that all share

    def check_method(self, method):
        super().check_method(method)
        # The attribute is missing while the constructor of the base class runs.
        truncated = getattr(self, "max_kernel_length", None) is not None
        if truncated and method not in ("auto", "fft"):
            raise ValueError(
                "A layer with `max_kernel_length` is evaluated by method='fft'. "
                f"Received: method={method!r}"
            )

    def chosen_method(self, length: int | None) -> str:
        return "fft" if self.max_kernel_length is not None else super().chosen_method(length)

    def sequence_dtype(self, x: Tensor) -> str:
        known_whole = known(x.shape[1]) is not None and loops_allowed()  # kernels need both
        if known_whole and self.chosen_method(x.shape[1]) == "chunked" and backend.reads_short(x):
            return x.dtype
        return super().sequence_dtype(x)

    def needs_transform(self, length: int | None) -> bool:
        return self.max_kernel_length is not None

    def build_system(self, features: int) -> None:
        rng = self.make_rng()
        self.build_bank(features, rng)
        self.add_skip(features, rng)

    def draw_C(self, shape, rng):
        """Complex normal output vectors of unit variance, for every channel and direction."""
        real, imag = rng.standard_normal((2, self.planes, *shape)) * np.sqrt(0.5)
        return real + 1j * imag

    def discretize(self) -> DiscreteSystem:
        """Returns dA, dB, dC and D of the current weights, for a loop of `step`.

        Returns:
            A `DiscreteSystem`: of a diagonal layer `dA`, `dB` `(features, states)`, `dC`
            `(channels, features, states)` and `D` `(channels, features)`; of `S4` a dense
            `dA` `(features, states, states)` and `low_rank`, the factors of dA - I.

        Raises:
            ValueError: if the layer has no state.
        """
        self.check_has_state()
        self.check_built()
        return self.discrete_system(self.bank(), self.copied_skip())

    def discrete_system(self, bank, D):
        """The `DiscreteSystem` of a bank and a skip."""
        return DiscreteSystem(*bank.matrices(), D)

    def advance(self, x: Tensor, state: State, system: DiscreteSystem) -> tuple[Tensor, State]:
        y, state = step(x, state, system.dA, system.dB, system.dC)
        return y + self.skip_of(x, system.D), state

    def evaluate(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        initial_state: State | None = None,
        return_state: bool = False,
    ) -> tuple[Tensor, State]:
        lengths = valid_steps(mask, return_state)
        bank = self.bank(known(x.shape[1]) or ops.shape(x)[1])
        return self.apply_bank(x, bank, self.skip_weight(), initial_state, lengths, return_state)

    def apply_bank(self, x, bank, D, initial_state=None, lengths=None, return_state=False):
        """The outputs of a bank and a skip, and the state after `lengths` steps of each row."""
        method = self.chosen_method(x.shape[1])
        if method == "fft":
            return self._convolve(x, bank, D, initial_state, lengths, return_state)
        if method == "recurrent":
            return self._recur(x, self.discrete_system(bank, D), initial_state, lengths)
        return chunked(
            x,
            bank,
            initial_state=initial_state,
            lengths=lengths,
            bidirectional=self.bidirectional,
            chunk_size=self.chunk_size,
            return_state=return_state,
            D=D,
        )

    def full_kernel(self, length: int) -> Tensor:
        bank = self.bank(length)
        return self.truncated_kernel(length, lambda steps: kernel(bank, steps))

    def truncated_kernel(self, length, function):
        """A function of a number of steps, with zeros past `max_kernel_length`."""
        most = self.max_kernel_length
        if most is None or not isinstance(length, int) or length <= most:
            return function(length)
        return backend.pad(function(most), [(0, 0), (0, 0), (0, length - most)])

    def get_config(self):
        return {
            **super().get_config(),
            "state_dim": self.state_dim,
            "max_kernel_length": self.max_kernel_length,
        }

    def stateless_because(self):
        reason = super().stateless_because()
        if reason is not None or self.max_kernel_length is None:
            return reason
        return (
            "has a truncated kernel, which no state produces. "
            f"Received: max_kernel_length={self.max_kernel_length}"
        )

    def _recur(self, x, system, initial_state, lengths):
        if initial_state is None:
            shape = self.state_shape(x.shape[-1])
            initial_state = ops.broadcast_to(0.0 * x[:, 0, :, None], (*x[:, 0].shape, shape[-1]))
        return recurrent(
            x, lambda sample, state: self.advance(sample, state, system), initial_state, lengths
        )

    def _convolve(self, x, bank, D, initial_state, lengths, return_state):
        steps = length = known(x.shape[1]) or ops.shape(x)[1]
        if self.max_kernel_length is not None:
            shorter = min if isinstance(length, int) else ops.minimum
            steps = shorter(length, self.max_kernel_length)
        K = self.convolution_kernel(bank, steps)
        y = fft_conv(x, K, bidirectional=self.bidirectional, D=D)
        state = None
        if initial_state is not None:
            y = y + chunked(ops.zeros_like(x), bank, initial_state, chunk_size=self.chunk_size)[0]
        if return_state:
            state = chunked(
                x, bank, initial_state, lengths, chunk_size=self.chunk_size, return_state=True
            )[1]
        return y, state
