from collections.abc import Mapping
from typing import Self

import numpy as np

from keras_ssm.checks import check_number
from keras_ssm.models.streaming.detection import Detection
from keras_ssm.models.streaming.stream_state import chosen_rows
from keras_ssm.models.trainer.targets import to_numpy
from keras_ssm.types import Tensor

NONE = -1  # in place of a step: no event


class Detector:
    """Finds events in scores that come step by step: a threshold with hysteresis.

    An event begins where a score reaches `on` and ends where it falls below `off`, so that a score
    that trembles about one threshold makes one event and not many. It does not matter how the
    scores are cut into chunks.

    Args:
        on: float. Score from which an event begins.
        off: float or `None`. Score below which it ends, at most `on`. Defaults to `on`.
        min_length: int. Steps that an event must have; shorter ones are none. Defaults to `1`.
        refractory: int. Steps after an event in which no other begins. Defaults to `0`.

    Call arguments:
        scores: float array `(steps,)`, `(batch, steps)` or `(batch, steps, labels)`, such as
            probabilities that a stream returned. The first call fixes batch and labels. Steps
            with NaN are none: a `SequenceStream` gives them where a row has no step.

    Returns:
        List of the `Detection`s that have ended, in the order of their ends. Those that have begun
        are in `active`.

    Raises:
        ValueError: for thresholds out of order, lengths below their least, or scores of another
            shape than before.

    Example:
        ```python
        detector = Detector(on=0.8, off=0.4, min_length=3)
        detector(np.array([0.1, 0.9, 0.7]))  # nothing has ended
        detector.active  # one, from step 1 on: not shown before it has 3 steps
        detector(np.array([0.6, 0.5, 0.2]))  # one, from step 1 to step 5, with its peak at 1
        ```
    """

    def __init__(
        self, on: float, off: float | None = None, min_length: int = 1, refractory: int = 0
    ):
        check_number("on", on)
        off = on if off is None else off
        check_number("off", off, high=on)
        for name, value, least in (("min_length", min_length, 1), ("refractory", refractory, 0)):
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            if not whole or value < least:
                raise ValueError(
                    f"`{name}` must be a whole number of steps, at least {least}. "
                    f"Received: {name}={value!r}"
                )
        self.on, self.off = float(on), float(off)
        self.min_length, self.refractory = int(min_length), int(refractory)
        self._tracks = None

    def __call__(self, scores: Tensor) -> list[Detection]:
        scores = self._checked(scores)
        if self._tracks is None:
            self._tracks = self._fresh(scores.shape[0], scores.shape[2])
        events = [
            detection
            for row in range(scores.shape[0])
            for label in range(scores.shape[2])
            for detection in self._read(row, label, scores[row, :, label])
        ]
        return sorted(events, key=lambda event: (event.end, event.row, event.label))

    @property
    def active(self) -> list[Detection]:
        """The events that have begun, have `min_length` steps and go on; their `end` is `None`."""
        if self._tracks is None:
            return []
        steps, starts = self._tracks["steps"], self._tracks["start"]
        long = (starts != NONE) & (steps - starts >= self.min_length)
        return [self._event(row, label, None) for row, label in np.argwhere(long).tolist()]

    def finish(self) -> list[Detection]:
        """Ends the events that go on, where the sequences end, and begins anew."""
        events = []
        for event in self.active:
            events.append(event._replace(end=int(self._tracks["steps"][event.row, event.label])))
        self.reset()
        return events

    def reset(self, rows: int | list | np.ndarray | None = None) -> None:
        """Begins anew.

        Args:
            rows: int, list of ints, boolean array `(batch,)` or `None`. The sequences that have
                ended. Defaults to all.

        Raises:
            ValueError: for rows that there are not.
        """
        if rows is None or self._tracks is None:
            self._tracks = None
            return
        batch, labels = self._tracks["steps"].shape
        chosen, fresh = chosen_rows(rows, batch), self._fresh(batch, labels)
        for name, values in self._tracks.items():
            values[chosen] = fresh[name][chosen]

    def copy(self) -> Self:
        """Returns a detector that stands where this one does and goes its own way."""
        duplicate = Detector(self.on, self.off, self.min_length, self.refractory)
        duplicate.state = self.state
        return duplicate

    @property
    def state(self) -> dict[str, np.ndarray]:
        """All that the detector remembers, as arrays that `numpy.savez` keeps; it can be set."""
        return {name: values.copy() for name, values in (self._tracks or {}).items()}

    @state.setter
    def state(self, value: Mapping):
        names = sorted(self._fresh(1, 1))
        tracks = {name: np.array(values) for name, values in dict(value).items()}
        shapes = {values.shape for values in tracks.values()}
        if tracks and (sorted(tracks) != names or len(shapes) != 1 or len(shapes.pop()) != 2):
            raise ValueError(
                f"`state` must be that of a detector, with arrays {names} of one shape "
                f"(batch, labels). Received: {sorted(tracks)}"
            )
        self._tracks = tracks or None

    def _fresh(self, batch, labels):
        shape = (batch, labels)
        return {
            "steps": np.zeros(shape, "int64"),
            "start": np.full(shape, NONE, "int64"),
            "peak": np.zeros(shape, "int64"),
            "score": np.full(shape, -np.inf),
            "quiet": np.zeros(shape, "int64"),  # the step before which no event begins
        }

    def _checked(self, scores):
        scores = to_numpy(scores)
        received = scores.shape
        if scores.ndim == 1:
            scores = scores[None]
        if scores.ndim == 2:
            scores = scores[..., None]
        former = None if self._tracks is None else self._tracks["steps"].shape
        fits = scores.ndim == 3 and former in (None, (scores.shape[0], scores.shape[2]))
        if not fits or scores.dtype.kind in "cOSUmM":  # the kind of bfloat16 is "V"
            labels = "" if former is None or former[1] == 1 else f", {former[1]}"
            expected = f"({'batch' if former is None else former[0]}, steps{labels})"
            raise ValueError(
                f"`scores` must be numbers of shape {expected}. "
                f"Received: shape {received}, dtype {scores.dtype}"
            )
        return scores.astype("float64")

    def _read(self, row, label, scores):
        """The events of one track that end within a chunk."""
        tracks = {name: values[row, label : label + 1] for name, values in self._tracks.items()}
        scores = scores[~np.isnan(scores)]
        before, i, events = int(tracks["steps"][0]), 0, []
        rises = np.flatnonzero(scores >= self.on)
        falls = np.flatnonzero(scores < self.off)
        while i < len(scores):
            if tracks["start"][0] == NONE:
                first = max(i, int(tracks["quiet"][0]) - before)
                place = np.searchsorted(rises, first)
                if place == len(rises):
                    break
                i = int(rises[place])
                tracks["start"][0], tracks["score"][0] = before + i, -np.inf
            place = np.searchsorted(falls, i)
            ends = place < len(falls)
            end = int(falls[place]) if ends else len(scores)
            if end > i:
                peak = i + int(np.argmax(scores[i:end]))
                if scores[peak] > tracks["score"][0]:
                    tracks["peak"][0], tracks["score"][0] = before + peak, scores[peak]
            if ends:
                if before + end - tracks["start"][0] >= self.min_length:
                    events.append(self._event(row, label, before + end))
                    tracks["quiet"][0] = before + end + self.refractory
                tracks["start"][0] = NONE
            i = end
        tracks["steps"][0] += len(scores)
        return events

    def _event(self, row, label, end):
        start, peak, score = (self._tracks[name][row, label] for name in ("start", "peak", "score"))
        return Detection(row, label, int(start), end, int(peak), float(score))
