import threading
from collections.abc import Mapping
from typing import Self

import numpy as np

from keras_ssm.checks import check_positive
from keras_ssm.models.saving import state_files
from keras_ssm.models.streaming import stream_state
from keras_ssm.types import PathLike


class Stream:
    """Base of streams: rows that begin anew, copies, and a state that goes to files and back.

    A stream reads a chunk in `read`. It begins in `begin`, and in `begin_rows` for some rows. What
    it remembers are the arrays that `parts` returns and `set_parts` takes.

    Args:
        task: task model.
        batch_size: int. Number of sequences that are read side by side.
    """

    def __init__(self, task, batch_size):
        (self._batch_size,) = check_positive(batch_size=batch_size)
        self._task = task
        self._lock = threading.RLock()
        self._steps = np.zeros(self._batch_size, "int64")
        self.begin()

    @property
    def batch_size(self) -> int:
        """Number of sequences that are read side by side."""
        return self._batch_size

    @property
    def steps(self) -> np.ndarray:
        """How many samples of each sequence were read, `(batch_size,)`."""
        return self._steps.copy()

    def __call__(self, chunk: object) -> np.ndarray:
        with self._lock:
            outputs, samples = self.read(chunk)
            self._steps = self._steps + samples
            return outputs

    def __repr__(self):
        return f"<{type(self).__name__} of {self._task.name}, {self._batch_size} rows>"

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
                chosen = np.ones(self._batch_size, bool)
                self.begin()
            else:
                chosen = stream_state.chosen_rows(rows, self._batch_size)
                self.begin_rows(chosen)
            self._steps = np.where(chosen, 0, self._steps)

    def copy(self) -> Self:
        """Returns a stream of the same model that goes its own way from where this one stands."""
        with self._lock:
            duplicate = self.another()
            duplicate.set_parts(self.parts())
            duplicate._steps = self._steps
            return duplicate

    @property
    def state(self) -> dict[str, np.ndarray]:
        """All that the stream remembers, as a flat dict of arrays that `numpy.savez` keeps.

        Its size does not depend on how much was read. Setting it goes on from there: in a stream
        of the same model and number of rows, in any process and on any backend. The dict, or the
        file that `numpy.load` opened, must come from a model of the same weights.
        """
        with self._lock:
            return stream_state.to_arrays(self._task, self._all_parts())

    @state.setter
    def state(self, value: Mapping):
        with self._lock:
            parts = stream_state.from_arrays(self._task, value, self._all_parts())
            self._steps = parts.pop(stream_state.STEPS).astype("int64")
            self.set_parts(parts)

    def save(self, filepath: PathLike) -> None:
        """Writes the state to a file `.npz`, whole or not at all."""
        state_files.save(self.state, filepath)

    def load(self, filepath: PathLike) -> None:
        """Goes on from the state in a file that `save` wrote.

        Raises:
            ValueError: for another file, or the state of another model or number of rows.
        """
        self.state = state_files.load(filepath, f"{type(self).__name__}.save")

    def _all_parts(self):
        return {**self.parts(), stream_state.STEPS: self._steps}

    # Methods that a stream provides

    def read(self, chunk):
        """Reads a chunk; returns the outputs, and the samples of each row."""
        raise NotImplementedError

    def begin(self):
        """Sets the state before the first sample."""
        raise NotImplementedError

    def begin_rows(self, rows):
        """Sets it for the rows of a boolean array."""
        raise NotImplementedError

    def another(self):
        """A stream like this one at its beginning."""
        raise NotImplementedError

    def parts(self):
        """The memory of the stream, a flat dict of arrays or tensors."""
        raise NotImplementedError

    def set_parts(self, parts):
        """Takes arrays or tensors of these names, shapes and kinds."""
        raise NotImplementedError
