from keras import ops

from keras_ssm.layers.discrete_system import DiscreteSystem
from keras_ssm.types import State, Tensor


class FixedSystem:
    """Mixers whose systems do not depend on the inputs: one `DiscreteSystem` serves a stream."""

    has_system = True

    def discretize(self) -> DiscreteSystem:
        """Returns the `DiscreteSystem` of the current weights."""
        raise NotImplementedError

    def advance(self, x: Tensor, state: State, system: DiscreteSystem) -> tuple[Tensor, State]:
        """Maps one float sample `(batch, features)` to `(y, state)`."""
        raise NotImplementedError

    def step(
        self, x: Tensor, state: State, system: DiscreteSystem | None = None
    ) -> tuple[Tensor, State]:
        """Advances the layer by one sample.

        Args:
            x: float tensor `(batch, features)`. One sample.
            state: the state before it, as `get_initial_state` returns it.
            system: `DiscreteSystem` or `None`. What `discretize` returned; pass it when
                stepping in a loop, so that it is computed once.

        Returns:
            Tuple `(y, state)`: the output `(batch, channels * features)` and the next state.

        Raises:
            ValueError: for inputs or states of another shape, or a layer without state.
        """
        x, state = self._checked_step(x, state)
        system = self.discretize() if system is None else system.on_device()
        y, state = self.advance(x, state, system)
        return ops.cast(y, self.compute_dtype), state
