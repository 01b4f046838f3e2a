from keras import ops

from keras_ssm.layers.discrete_system import DiscreteSystem
from keras_ssm.models.pooled_head import PooledHead
from keras_ssm.ops import backend
from keras_ssm.types import Tensor


class PooledStream(PooledHead):
    """A task of one sequence with a pooled head: whole, in pieces, or sample by sample.

    Its state is a dict: `layers`, the states of the backbone's layers, and those of the pooling.
    """

    def run(self, inputs, training=None, initial_state=None, return_state=False):
        """The graph, and beside it what a graph does not know: states and `timesteps`."""
        context = {} if training is None else {"training": training}
        mask = inputs["padding_mask"]
        if initial_state is None and not return_state:
            y = self.backbone(inputs, **context)
            y = self.pooler(y, mask=self.backbone.output_mask(mask))
            return self.apply_head(y, **context)
        if initial_state is None:
            initial_state = self.get_initial_state(ops.shape(mask)[0])
        y, layers = self.backbone(
            inputs, initial_state=initial_state["layers"], return_state=True, **context
        )
        mask = self.backbone.output_mask(mask, initial_state["layers"])
        y, pooled = self.pooler.pool(y, mask, _pooled(initial_state))
        y = self.apply_head(y, **context)
        return (y, {"layers": layers, **pooled}) if return_state else y

    def check_state(self, initial_state, return_state):
        """Raises a `ValueError` for states that do not exist, or of another structure."""
        layers = None
        if initial_state is not None:
            keys = {"layers", *self.pooler.state_keys}
            if not isinstance(initial_state, dict) or set(initial_state) != keys:
                is_dict = isinstance(initial_state, dict)
                raise ValueError(
                    "`initial_state` must be what `get_initial_state`, `step` or a call with "
                    f"`return_state` gave, a dict of {sorted(keys)}. Received: "
                    f"{sorted(initial_state) if is_dict else type(initial_state).__name__}"
                )
            layers = initial_state["layers"]
        self.backbone.check_state(layers, return_state)

    def state_spec(self, batch):
        """The state of `batch` rows as symbolic tensors."""
        pooled = self.pooler.state_spec(batch, self.backbone.hidden_dim)
        return {"layers": self.backbone.state_spec(batch), **pooled}

    def step(
        self,
        x: Tensor,
        state: dict,
        systems: list | None = None,
        timesteps: Tensor | None = None,
        **arguments,
    ) -> tuple[Tensor, dict]:
        """Reads one more sample and returns the outputs so far, at inference, without gradients.

        Args:
            x: float tensor `(batch, input_dim)` as the preprocessor would scale it, or token
                ids `(batch,)`; the samples of a step `(batch, encoder_stride, input_dim)` where
                the encoder strides.
            state: what `get_initial_state` or the last step returned.
            systems: what `discretize` returned, or `None` to compute it here.
            timesteps: float tensor `(batch,)` or `None`; see `S5.step`.
            **arguments: whatever else the mixer's `step` takes of its `call_arguments`.

        Returns:
            Tuple `(outputs, state)`: the outputs for the sequence read so far, such as logits
            `(batch, num_classes)`, and the next state.

        Raises:
            ValueError: for inputs of another shape, or a bidirectional mixer.

        Example:
            ```python
            state, systems = model.get_initial_state(1), model.discretize()
            for pixel in np.zeros((64, 1, 1), "float32"):
                logits, state = model.step(pixel, state, systems)
            ```
        """
        with backend.without_gradients():  # an endless stream would pile them up
            y, layers = self.backbone.step(x, state["layers"], systems, timesteps, **arguments)
            y, pooled = self.pooler.pool(ops.expand_dims(y, 1), None, _pooled(state))
            y = y[:, 0] if self.pooling is None else y
            return self.infer_head(y), {"layers": layers, **pooled}

    def discretize(self) -> list[DiscreteSystem | None]:
        """Returns the discrete system of every layer, for a loop of `step`."""
        return self.backbone.discretize()

    def get_initial_state(self, batch_size: int | Tensor) -> dict:
        """Returns the state before the first sample, for `batch_size` rows."""
        pooled = self.pooler.get_initial_state(batch_size, self.backbone.hidden_dim)
        return {"layers": self.backbone.get_initial_state(batch_size), **pooled}


def _pooled(state):
    """The part of a state that is not of the layers."""
    return {key: part for key, part in state.items() if key != "layers"}
