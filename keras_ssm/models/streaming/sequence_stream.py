import keras
import numpy as np
from keras import ops, tree

from keras_ssm.models.streaming import stream_state
from keras_ssm.models.streaming.chunk_reader import ChunkReader
from keras_ssm.models.streaming.pending import Pending
from keras_ssm.models.streaming.programs import StreamPrograms
from keras_ssm.models.streaming.stream import Stream
from keras_ssm.types import Tensor


class SequenceStream(Stream):
    """Reads sequences as they come: chunks of any size in, the outputs after each step out.

    `task.stream(batch_size)` makes one. An output is what the model gives for the sequence that was
    read so far, so that it does not matter how a sequence is cut. A chunk takes as long as its
    steps, however much was read before. Programs are compiled once for a model, for a single
    sample and for pieces of a few lengths. New weights, of `fit`, `load_weights` or
    `step_scale`, hold from the next chunk on.

    Several threads may each have a stream of one model; a stream takes one chunk at a time.

    Args:
        task: task model, such as `SSMClassifier`.
        batch_size: int. Number of sequences that are read side by side. Defaults to `1`.

    Call arguments:
        chunk: what comes next of each sequence, as `predict` takes it: it goes through the model's
            preprocessor. An array `(batch_size, steps, features)`, `(batch_size, steps)` for one
            feature or token ids; for a single sequence also `(steps, features)` or `(steps,)`;
            one step of each without the axis of steps; a list of `batch_size` rows, each of as
            many steps as it has, none included; or a dict of any of these under `"inputs"` or
            `"token_ids"` with a `padding_mask` that pads on the right, or `timesteps`.

    Returns:
        Array `(batch_size, steps, ...)`: the outputs after each step, and NaN behind them in a row
        that has fewer steps than others. A model whose encoder takes several samples for a step
        answers when it has them.

    Raises:
        ValueError: for a model that cannot stream, and for a chunk of another shape or kind, or
            with NaN. The stream is then as before.

    Example:
        ```python
        stream = keras_ssm.models.SSMClassifier.from_preset("s4d_digits").stream()
        pixels = np.zeros(64, "uint8")
        logits = stream(pixels[:40])  # (1, 40, 10)
        stream.save("half.npz")
        logits = stream(pixels[40:])  # (1, 24, 10): the last are those of `predict`
        stream.load("half.npz")  # in another process, or on another backend
        ```
    """

    def __init__(self, task: keras.Model, batch_size: int = 1):
        if not hasattr(task, "step"):
            raise ValueError(
                "A stream needs a model that reads one sequence step by step, with a `step`. "
                f"Received: {type(task).__name__}"
            )
        task.check_state(None, return_state=True)
        super().__init__(task, batch_size)
        self._reader = ChunkReader(task, self._batch_size)
        self._programs = StreamPrograms.of(task)

    def __call__(self, chunk: Tensor | list | dict) -> np.ndarray:
        return super().__call__(chunk)

    def begin(self):
        self._state = self._task.get_initial_state(self._batch_size)
        features, wide = self._task.backbone.input_dim, keras.config.floatx() == "float64"
        self._stride = self._task.backbone.stride
        self._pending = Pending.none(
            self._batch_size, self._stride, features, "float64" if wide else "float32"
        )

    def begin_rows(self, rows):
        start = self._task.get_initial_state(self._batch_size)
        self._state = stream_state.where_rows(rows, start, self._state)
        self._pending = self._pending.without(rows)

    def another(self):
        return SequenceStream(self._task, self._batch_size)

    def parts(self):
        return {**stream_state.named(self._state), **self._pending.arrays()}

    def set_parts(self, parts):
        # Copies, since JAX gives the buffers of the state to the next step.
        self._state = stream_state.like(self._state, parts)
        self._pending = self._pending.of(parts)

    def read(self, chunk):
        if not self._programs.fit():
            self._programs = StreamPrograms.of(self._task)
        inputs, samples = self._reader.read(chunk)
        self._check_length(samples)
        inputs, lengths, pending = self._pending.joined(inputs, samples)
        outputs = self._outputs(inputs, lengths)
        self._pending = pending
        return outputs, samples

    # Outputs

    def _outputs(self, inputs, lengths):
        task, stride = self._task, self._stride
        total = int(lengths.max(initial=0))
        if not total:
            tail = task.outputs[0].shape[2 if task.has_step_outputs else 1 :]
            return np.zeros((self._batch_size, 0, *tail), "float32")
        whole = bool((lengths == total).all())
        if not whole and not task.backbone.mask_inputs:
            raise ValueError(
                "`chunk` must have as many steps in each row for a backbone that reads padding, "
                f"with mask_inputs=False. Received: rows of {lengths.tolist()} steps"
            )
        main = self._reader.key
        extra = set(inputs) - {main, "padding_mask"}
        single = not extra and whole
        if single and (total == 1 or not self._programs.in_pieces):
            return self._one_by_one(inputs[main], total)
        if not self._programs.in_pieces:
            return self._row_by_row(inputs[main], lengths, total)
        parts, start = [], 0
        while start < total:
            size = self._programs.size_for(total - start)
            part = slice(start * stride, (start + size) * stride)
            piece = {name: _cut(value, part, size * stride) for name, value in inputs.items()}
            y, self._state = self._programs.piece(piece, self._state)
            parts.append(ops.convert_to_numpy(y)[:, :size])
            start += size
        outputs = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        outputs = outputs[:, :total]
        if not whole:  # an answer that stays would pass for further steps
            outputs = np.array(outputs)
            outputs[np.arange(total) >= lengths[:, None]] = np.nan
        return outputs

    def _one_by_one(self, x, total):
        outputs = []
        for t in range(total):
            y, self._state = self._programs.step(self._sample(x, t), self._state)
            outputs.append(ops.convert_to_numpy(y))
        return np.stack(outputs, axis=1)

    def _sample(self, x, t):
        """What step t reads: one sample of each row, or as many as the stride of the encoder."""
        return x[:, t] if self._stride == 1 else x[:, t * self._stride : (t + 1) * self._stride]

    def _row_by_row(self, x, lengths, total):
        """Steps of rows of unequal length, for a task that reads sample by sample alone."""
        outputs = []
        for t in range(total):
            before = tree.map_structure(ops.copy, self._state)
            y, after = self._programs.step(self._sample(x, t), self._state)
            going = t < lengths
            self._state = stream_state.where_rows(going, after, before)
            y = np.array(ops.convert_to_numpy(y))
            y[~going] = np.nan
            outputs.append(y)
        return np.stack(outputs, axis=1)

    def _check_length(self, lengths):
        longest = self._programs.longest
        steps = (self._steps + lengths) // self._stride
        if longest is not None and (steps > longest).any():
            raise ValueError(
                "`chunk` must end within the length over which the softmax of the model is taken; "
                f"`reset` begins anew. Received: {int(steps.max())} steps in "
                f"all, softmax_length={longest}"
            )


def _cut(x, part, size):
    """A part of the steps, padded with zeros to a size."""
    x = x[:, part]
    missing = size - x.shape[1]
    return np.pad(x, [(0, 0), (0, missing)] + [(0, 0)] * (x.ndim - 2)) if missing else x
