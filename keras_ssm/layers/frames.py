"""Streams along one axis of a grid: what arrives is a frame, of all other axes."""

import keras
from keras import ops

from keras_ssm.checks import compatible
from keras_ssm.layers.axis_layers import along_axis, sizes
from keras_ssm.layers.discrete_system import DiscreteSystem
from keras_ssm.types import State, Tensor


class Frames:
    """The state of `S4ND` and its steps.

    The state is that of the first axis whose layer streams, for every position of a frame. That
    axis is read before the others.
    """

    @property
    def stream_axis(self) -> int | None:
        """The first axis, counted from 0, along which the layer streams, or `None`."""
        able = [i for i, layer in enumerate(self.axis_layers) if layer.streams]
        return able[0] if able else None

    @property
    def causal(self) -> bool:
        """Whether no output depends on later samples of the axis along which it streams."""
        return self.streams

    def stateless_because(self):
        if self.stream_axis is not None:
            return None
        for layer in self.axis_layers:
            if not layer.bidirectional:
                return layer.stateless_because()
        return (
            "reads every axis both ways and has no state: `step`, `initial_state` and "
            "`return_state` need an axis that is read forwards, such as the first of "
            "bidirectional=[False, True, True]. Received: bidirectional=True"
        )

    def along_first(self, x, axis, mask, initial_state, return_state):
        """Along the axis of the stream, whose states are those of the inputs."""
        layer, start = self.axis_layers[axis], initial_state
        if start is not None:
            check_sizes(self.name, start.shape[1 : self.axes], x.shape, axis)
            start = ops.reshape(start, (-1, *start.shape[self.axes :]))

        def along(rows, valid):
            return layer.evaluate(rows, valid, start, return_state)

        y, state = along_axis(x, axis + 1, along, mask if return_state else None)
        if return_state:
            lead = [n for i, n in enumerate(sizes(x)[:-1]) if i != axis + 1]
            state = ops.reshape(state, (*lead, *state.shape[1:]))
        return y, state

    def state_shape(self, features: int) -> tuple[int | None, ...]:
        """Shape of the state of one row: sizes of a frame, and the state of its positions."""
        layer = self.axis_layers[self.stream_axis]
        return (*[None] * (self.axes - 1), *layer.state_shape(features))

    def state_spec(self, batch: int | None, features: int) -> State:
        shape = (batch, *self.state_shape(features))
        return keras.KerasTensor(shape, dtype=self.system_dtype, name="state")

    def get_initial_state(
        self, batch_size: int | Tensor, frame_sizes: tuple[int, ...] | None = None
    ) -> State:
        """Returns the zero state.

        Args:
            batch_size: int or scalar tensor. Number of rows.
            frame_sizes: tuple of int. Sizes of a frame: of all axes but the one of the stream.

        Returns:
            Tensor `(batch_size, *frame_sizes, *state)`, with the state of the mixer.

        Raises:
            ValueError: without the sizes of a frame, or for a layer without state.
        """
        self.check_has_state()
        self.check_built()
        frame_sizes = () if frame_sizes is None else tuple(frame_sizes)
        if len(frame_sizes) != self.axes - 1:
            raise ValueError(
                f"`frame_sizes` of {self.name} must hold the {self.axes - 1} sizes of a frame, "
                f"without the axis of the stream. Received: frame_sizes={frame_sizes or None}"
            )
        state = self.axis_layers[self.stream_axis].state_shape(self.features)
        return ops.zeros((batch_size, *frame_sizes, *state), dtype=self.system_dtype)

    def discretize(self) -> DiscreteSystem:
        """Returns the system of the axis of the stream, and D, for a loop of `step`.

        Returns:
            The `DiscreteSystem` of its layer, with the `D` `(channels, features)` of this one.
            The layers of the other axes are read in every step.

        Raises:
            ValueError: for a layer without state.
        """
        self.check_has_state()
        self.check_built()
        system = self.axis_layers[self.stream_axis].discretize()
        return system._replace(D=self.copied_skip())

    def advance(self, x: Tensor, state: State, system: DiscreteSystem) -> tuple[Tensor, State]:
        """Maps one float frame `(batch, *frame sizes, features)` to `(y, state)`."""
        axis = self.stream_axis
        check_sizes(self.name, state.shape[1 : self.axes], x.shape, None)
        lead, rest = sizes(x)[:-1], state.shape[self.axes :]
        y, after = self.axis_layers[axis].advance(
            ops.reshape(x, (-1, x.shape[-1])),
            ops.reshape(state, (-1, *rest)),
            system._replace(D=None),
        )
        y = self.along_others(ops.reshape(y, (*lead, y.shape[-1])), axis)
        return self.finish(x, y, system.D), ops.reshape(after, (*lead, *rest))

    def check_mask(self, mask, shape, return_state):
        if return_state and self.stream_axis:
            order = [0, self.stream_axis + 1]
            order += [i for i in range(1, self.axes + 1) if i not in order]
            self._check_mask_shape(mask.shape, shape)
            mask, shape = ops.transpose(mask, order), [*(shape[i] for i in order), shape[-1]]
        super().check_mask(mask, shape, return_state)


def check_sizes(name, received, shape, axis):
    """Raises a `ValueError` unless a state has the sizes of a frame of such inputs."""
    expected = tuple(n for i, n in enumerate(shape[1:-1]) if i != axis)
    if not compatible(tuple(received), expected):
        raise ValueError(
            f"A state of {name} must have the sizes of a frame, {expected}. "
            f"Received: {tuple(received)}"
        )
