import functools

from keras import ops

from keras_ssm.checks import check_positive
from keras_ssm.layers.discrete_system import DiscreteSystem
from keras_ssm.layers.ssm_layer import SSMLayer, valid_steps
from keras_ssm.ops import backend, pair
from keras_ssm.ops.fourier import fft_scan
from keras_ssm.ops.mimo import mimo, read_out
from keras_ssm.ops.recurrence import scan
from keras_ssm.ops.recurrent import recurrent
from keras_ssm.types import Pair, State, Tensor


class MIMOLayer(SSMLayer):
    """Base class of the layers with one diagonal system for all features together.

    It projects the inputs, scans the states and projects back, in every way there is, and gives
    the discrete system and the steps. A layer of this kind adds its weights in `build_system`,
    the skip `D` by `add_skip`, and says what they mean in `eigenvalues`,
    `discrete_matrices` and `output_matrices`.

    Args:
        state_dim: int. Full size N of the state.
        **kwargs: Arguments of `SSMLayer`.

    Raises:
        ValueError: for a size below 1.
    """

    # Whether one of each conjugate pair is kept, so that y = 2 Re(C x).
    conj_sym = False

    def __init__(self, state_dim: int = 64, **kwargs):
        super().__init__(**kwargs)
        check_positive(state_dim=state_dim)
        self.state_dim = state_dim

    # Methods that a system provides

    def eigenvalues(self) -> Pair:
        """Returns the pair of continuous eigenvalues, `(modes,)`."""
        raise NotImplementedError

    def discrete_matrices(self) -> tuple[Pair, Tensor]:
        """Returns log dA, a pair of `(modes,)`, and dB `(features, 2 * modes)`."""
        raise NotImplementedError

    def output_matrices(self) -> Tensor:
        """Returns C of each direction, `(directions, features, 2 * modes)`."""
        raise NotImplementedError

    # Methods that all share

    def add_skip(self, features, rng):
        """Adds D, the last weight."""
        D = rng.standard_normal(features)
        self.D = self.add_system_weight("D", D) if self.skips else None

    @property
    def modes(self) -> int:
        """Number of eigenvalues that are stored."""
        return self.state_dim // 2 if self.conj_sym else self.state_dim

    def state_shape(self, features: int) -> tuple[int, ...]:
        return (2 * self.modes,)

    def discretize(self) -> DiscreteSystem:
        """Returns dA, dB, dC and D of the current weights, for a loop of `step`.

        Returns:
            A `DiscreteSystem`: `dA` `(2 * modes,)`, `dB` `(features, 2 * modes)`, `dC`
            `(features, 2 * modes)`, `D` `(features,)`, real parts then imaginary parts on the
            last axis.

        Raises:
            ValueError: if the layer is bidirectional.
        """
        self.check_has_state()
        self.check_built()
        return self._system(*self.discrete_matrices(), self.copied_skip())

    def advance(self, x: Tensor, state: State, system: DiscreteSystem) -> tuple[Tensor, State]:
        state = pair.join(pair.multiply(pair.split(system.dA), pair.split(state)))
        state = state + backend.matmul(x, system.dB)
        # The sign of the imaginary parts is changed in the state, which is smaller than dC.
        y = backend.matmul(self._rows(state), ops.transpose(system.dC))
        return y if system.D is None else y + x * system.D, state

    def evaluate(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        initial_state: State | None = None,
        return_state: bool = False,
    ) -> tuple[Tensor, State]:
        lengths = valid_steps(mask, return_state)
        log_dA, dB = self.discrete_matrices()
        start = self.start(x, dB, initial_state)
        method, D = self.chosen_method(x.shape[1]), self._skip_or_zero()
        if method == "recurrent":
            system = self._system(log_dA, dB, D)
            return recurrent(
                x, lambda sample, state: self.advance(sample, state, system), start, lengths
            )
        if lengths is None and method != "fft":
            dA, C = pair.join(pair.exp(log_dA)), self._rows(self.output_matrices())
            return mimo(x, dA, dB, C, D, start)
        return self.scanned(x, log_dA, backend.project(x, dB), start, lengths, return_state)

    def start(self, x: Tensor, dB: Tensor, initial_state: State | None) -> Tensor:
        """The state before the first sample: the given one, or zero for every row."""
        if initial_state is not None:
            return initial_state
        return ops.zeros_like(backend.matmul(x[:, 0], dB))

    def scanned(
        self,
        x: Tensor,
        log_dA: Pair,
        driven: Tensor,
        start: Tensor,
        lengths: Tensor | None,
        return_state: bool,
    ) -> tuple[Tensor, State]:
        """Outputs, and the last state of each row, from what the inputs add to the states.

        Args:
            x: tensor `(batch, length, features)`.
            log_dA: pair of `(modes,)`, or of `(batch, length, modes)` where it changes.
            driven: tensor `(batch, length, 2 * modes)`.
            start: tensor `(batch, 2 * modes)`.
            lengths: tensor `(batch,)` or `None`. Valid steps of each row.
            return_state: bool.
        """
        C, D = self._rows(self.output_matrices()), self._skip_or_zero()
        method = self.chosen_method(x.shape[1])
        y, states = read_out(x, driven, C, D, start, functools.partial(self._scan, method, log_dA))
        return y, self._final(states, start, lengths) if return_state else None

    def get_config(self):
        return {**super().get_config(), "state_dim": self.state_dim}

    def _skip_or_zero(self):
        D = self.skip_weight()
        return ops.zeros((self.features,), dtype=self.system_dtype) if D is None else D

    def _system(self, log_dA, dB, D):
        return DiscreteSystem(pair.join(pair.exp(log_dA)), dB, self.output_matrices()[0], D)

    def _scan(self, method, log_dA, driven, start, reverse):
        varies = len(log_dA[0].shape) > 1
        if method == "fft" and not varies:
            if not reverse:
                return fft_scan(log_dA, driven, start)
            return ops.flip(fft_scan(log_dA, ops.flip(driven, axis=1), start), axis=1)
        dA = pair.join(pair.exp(log_dA))
        return scan(dA if varies else dA[None, None], driven, start, reverse)

    def _rows(self, C):
        """C so that its product with a state, both as real vectors, is the output.

        That is 2 Re(C x), or Re(C x) of a system that is not real.
        """
        factor = 2.0 if self.conj_sym else 1.0
        return factor * pair.join(pair.conjugate(pair.split(C)))

    def _final(self, states, start, lengths):
        if lengths is None:
            return states[:, -1]
        index = ops.cast(ops.maximum(lengths - 1, 0), "int32")
        state = ops.take_along_axis(states, index[:, None, None], axis=1)[:, 0]
        return ops.where((lengths > 0)[:, None], state, start)
