from keras_ssm.models.streaming.sequence_stream import SequenceStream
from keras_ssm.types import State, Tensor


class Streams:
    """Gives a task the method `stream`, which reads a sequence as it comes.

    A task has `step`, `discretize` and `get_initial_state`, with which a stream reads sample by
    sample. One that can give the outputs after each step of a piece in one pass says so by
    `reads_pieces` and does it in `read_piece`.
    """

    def stream(self, batch_size: int = 1) -> SequenceStream:
        """Returns an object that reads sequences as they come, in pieces of any size.

        Args:
            batch_size: int. Number of sequences that are read side by side. Defaults to `1`.

        Returns:
            A `SequenceStream`: called with what has come, in the form in which `predict` takes
            it, it returns the outputs after each step of that.

        Raises:
            ValueError: for a model that cannot read a sequence before it has all of it: with a
                bidirectional mixer, a `DSS` with a softmax over the length, a truncated kernel,
                or a preprocessor that needs the whole sequence.

        Example:
            ```python
            backbone = keras_ssm.models.SSMBackbone(
                keras_ssm.layers.S4D(state_dim=4), num_layers=1, hidden_dim=4
            )
            model = keras_ssm.models.SSMClassifier(backbone, num_classes=2)
            stream = model.stream()
            logits = stream(np.zeros(100, "float32"))  # (1, 100, 2)
            logits = stream(0.5)  # (1, 1, 2): after one more sample
            ```
        """
        return SequenceStream(self, batch_size)

    @property
    def reads_pieces(self):
        """Whether `read_piece` gives the outputs after each step of a piece."""
        pooler = getattr(self, "pooler", None)
        return self.has_step_outputs or hasattr(pooler, "pool")

    def read_piece(self, inputs: dict, state: State) -> tuple[Tensor, State]:
        """The outputs after each step of a piece, `(batch, steps, ...)`, and the state after it."""
        if self.has_step_outputs:
            return self.run(inputs, False, state, True)
        y, layers = self.backbone(
            inputs, training=False, initial_state=state["layers"], return_state=True
        )
        pooled = {name: part for name, part in state.items() if name != "layers"}
        mask = self.backbone.output_mask(inputs["padding_mask"], state["layers"])
        y, pooled = self.pooler.pool(y, mask, pooled, every_step=True)
        return self.apply_head(y, training=False), {"layers": layers, **pooled}
