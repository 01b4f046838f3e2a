import threading
from collections.abc import Mapping
from typing import Self

import keras
import numpy as np
from keras import ops, tree

from keras_ssm.checks import check_positive
from keras_ssm.models.streaming import stream_state
from keras_ssm.models.streaming.chunk_reader import ChunkReader
from keras_ssm.models.streaming.pending import Pending
from keras_ssm.models.streaming.programs import StreamPrograms
from keras_ssm.types import PathLike, Tensor


class SequenceStream:
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
        Array `(batch_size, steps, ...)`: the outputs after each step. A row that has fewer steps
        than others keeps its answer behind them; where every step has an answer of its own, there
        is NaN. A model whose encoder takes several samples for a step answers when it has them.

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
        (batch_size,) = check_positive(batch_size=batch_size)
        if not hasattr(task, "step"):
            raise ValueError(
                "A stream needs a model that reads one sequence step by step, with a `step`. "
                f"Received: {type(task).__name__}"
            )
        task.check_state(None, return_state=True)
        self._task = task
        self._batch_size = batch_size
        self._lock = threading.RLock()
        self._reader = ChunkReader(task, batch_size)
        self._programs = StreamPrograms.of(task)
        self._stride = task.backbone.stride
        self._start()

    def _start(self):
        self._state = self._task.get_initial_state(self._batch_size)
        self._steps = np.zeros(self._batch_size, "int64")
        features, floats = self._task.backbone.input_dim, keras.config.floatx()
        floats = "float64" if floats == "float64" else "float32"
        self._pending = Pending.none(self._batch_size, self._stride, features, floats)

    @property
    def batch_size(self) -> int:
        """Number of sequences that are read side by side."""
        return self._batch_size

    @property
    def steps(self) -> np.ndarray:
        """How many samples of each sequence were read, `(batch_size,)`."""
        return self._steps.copy()

    def __call__(self, chunk: Tensor | list | dict) -> np.ndarray:
        with self._lock:
            if not self._programs.fit():
                self._programs = StreamPrograms.of(self._task)
            inputs, samples = self._reader.read(chunk)
            self._check_length(samples)
            inputs, lengths, pending = self._pending.joined(inputs, samples)
            outputs = self._outputs(inputs, lengths)
            self._pending = pending
            self._steps = self._steps + samples
            return outputs

    def __repr__(self):
        return f"<SequenceStream of {self._task.name}, {self._batch_size} rows>"

    def reset(self, rows: int | list | np.ndarray | None = None) -> None:
        """Begins anew.

        Args:
            rows: int, list of ints, boolean array `(batch_size,)` or `None`. The sequences that
                have ended, in whose places others begin. Defaults to all.

        Raises:
            ValueError: for rows that there are not.
        """
        with self._lock:
            if rows is None:
                self._start()
                return
            chosen = stream_state.chosen_rows(rows, self._batch_size)
            start = self._task.get_initial_state(self._batch_size)
            self._state = stream_state.where_rows(chosen, start, self._state)
            self._steps = np.where(chosen, 0, self._steps)
            self._pending = self._pending.without(chosen)

    def copy(self) -> Self:
        """Returns a stream of the same model that goes its own way from where this one stands."""
        with self._lock:
            other = SequenceStream(self._task, self._batch_size)
            other._state = tree.map_structure(ops.copy, self._state)
            other._steps = self._steps
            other._pending = self._pending
            return other

    # The state as arrays

    @property
    def state(self) -> dict[str, np.ndarray]:
        """All that the stream remembers, as a flat dict of arrays that `numpy.savez` keeps.

        Its size does not depend on how much was read. Setting it goes on from there: in a stream
        of the same model and number of rows, in any process and on any backend. The dict, or the
        file that `numpy.load` opened, must come from a model of the same weights.
        """
        with self._lock:
            return stream_state.to_arrays(
                self._task, self._state, {"steps": self._steps, **self._pending.arrays()}
            )

    @state.setter
    def state(self, value: Mapping):
        with self._lock:
            own = {"steps": self._steps, **self._pending.arrays()}
            self._state, own = stream_state.from_arrays(self._task, value, self._state, own)
            self._steps = own.pop("steps")
            self._pending = Pending(own["samples"], own["waiting"]) if own else self._pending

    def save(self, filepath: PathLike) -> None:
        """Writes the state to a file `.npz`, whole or not at all."""
        stream_state.save(self.state, filepath)

    def load(self, filepath: PathLike) -> None:
        """Goes on from the state in a file that `save` wrote.

        Raises:
            ValueError: for another file, or the state of another model or number of rows.
        """
        self.state = stream_state.load(filepath)

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
        single = stride == 1 and not extra and whole
        if single and (total == 1 or not self._programs.in_pieces):
            return self._one_by_one(inputs[main], total)
        if not self._programs.in_pieces:
            return self._row_by_row(inputs[main], lengths, total)
        found, start = [], 0
        while start < total:
            size = self._programs.size_for(total - start)
            part = slice(start * stride, (start + size) * stride)
            piece = {name: _cut(value, part, size * stride) for name, value in inputs.items()}
            y, self._state = self._programs.piece(piece, self._state)
            found.append(ops.convert_to_numpy(y)[:, :size])
            start += size
        outputs = np.concatenate(found, axis=1) if len(found) > 1 else found[0]
        outputs = outputs[:, :total]
        if task.has_step_outputs and not whole:
            outputs = np.array(outputs)
            outputs[np.arange(total) >= lengths[:, None]] = np.nan
        return outputs

    def _one_by_one(self, x, total):
        found = []
        for t in range(total):
            y, self._state = self._programs.step(x[:, t], self._state)
            found.append(ops.convert_to_numpy(y))
        return np.stack(found, axis=1)

    def _row_by_row(self, x, lengths, total):
        """Steps of rows of unequal length, for a task that reads sample by sample alone."""
        found = []
        for t in range(total):
            before = tree.map_structure(ops.copy, self._state)
            y, after = self._programs.step(x[:, t], self._state)
            going = t < lengths
            self._state = stream_state.where_rows(going, after, before)
            y = np.array(ops.convert_to_numpy(y))
            y[~going] = np.nan
            found.append(y)
        return np.stack(found, axis=1)

    def _check_length(self, lengths):
        longest = self._programs.longest
        if longest is not None and (self._steps + lengths > longest).any():
            raise ValueError(
                "`chunk` must end within the length over which the softmax of the model is taken; "
                f"`reset` begins anew. Received: {int((self._steps + lengths).max())} steps in "
                f"all, softmax_length={longest}"
            )


def _cut(x, part, size):
    """A part of the steps, padded with zeros to a size."""
    x = x[:, part]
    missing = size - x.shape[1]
    return np.pad(x, [(0, 0), (0, missing)] + [(0, 0)] * (x.ndim - 2)) if missing else x
