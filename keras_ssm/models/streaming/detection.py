from typing import NamedTuple


class Detection(NamedTuple):
    """An event that a `Detector` found: the scores from `start` up to `end`.

    Attributes:
        row: int. Which sequence of the batch.
        label: int. Which of several scores of a step; `0` where there is one.
        start: int. The first step, counted from the beginning of the sequence.
        end: int or `None`. The step after the last; `None` while the event goes on.
        peak: int. The step of the largest score.
        score: float. That score.

    Example:
        ```python
        Detection(row=0, label=0, start=100, end=180, peak=140, score=0.97)
        ```
    """

    row: int
    label: int
    start: int
    end: int | None
    peak: int
    score: float
