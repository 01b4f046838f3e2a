"""Heart beats that a detector finds, and how well they match the annotated ones."""

from typing import NamedTuple

import numpy as np

from keras_ssm.models import Detector
from keras_ssm.signals import match_events


class Beats(NamedTuple):
    """Heart beats of one signal, in their order.

    Fields:
        places: int array `(beats,)`. Sample of the peak of each.
        labels: int array `(beats,)`. Its class.
        decided: int array `(beats,)` or `None`. The last sample that was read when it was found.
    """

    places: np.ndarray
    labels: np.ndarray
    decided: np.ndarray | None = None

    def between(self, start: int, end: int) -> "Beats":
        """Returns the beats from one sample up to another; their places stay as they are."""
        inside = (self.places >= start) & (self.places < end)
        return Beats(*(part if part is None else part[inside] for part in self))


def beats_of(logits: np.ndarray, stride: int, on: float, quiet: int, delay: int) -> Beats:
    """Returns the beats in the logits of a signal.

    Args:
        logits: float array `(steps, classes)`. The first class is that of no beat.
        stride: int. Samples of a step.
        on: float. Probability of any beat from which there is one.
        quiet: int. Steps after a beat in which no other is found.
        delay: int. Samples from the peak of a beat to the step that reports it.
    """
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    detector = Detector(on=on, refractory=quiet)
    events = detector(1.0 - weights[:, 0] / weights.sum(axis=1)) + detector.finish()
    peaks = np.array([event.peak for event in events], "int64")
    ends = np.array([event.end for event in events], "int64")
    return Beats(
        np.round((peaks + 0.5) * stride).astype("int64") - delay,
        1 + logits[peaks, 1:].argmax(axis=1),
        np.minimum(ends + 1, len(logits)) * stride - 1,  # the first step after the beat
    )


def beat_scores(
    found: list[Beats],
    known: list[Beats],
    names: tuple[str, ...],
    tolerance: int,
    first: int,
    rate: float,
) -> dict[str, float]:
    """Scores of a detector over several signals.

    Args:
        found: list of `Beats` with `decided`.
        known: list of `Beats`, as annotated.
        names: tuple of str. Names of the classes 1, 2, ... that are scored.
        tolerance: int. Samples within which a beat is found.
        first: int. Sample from which beats count.
        rate: float. Samples a second.

    Returns:
        Dict of `macro-F1`, sensitivity and positive predictivity of all beats and of each class,
        and the median and the 95 % quantile of the delays, in milliseconds.
    """
    pairs, delays = [], []
    for ours, theirs in zip(found, known, strict=True):
        matched = match_events(ours.places, theirs.places, tolerance)
        answered = np.zeros(len(theirs.places), "int64")
        answered[matched[:, 1]] = ours.labels[matched[:, 0]]
        unmatched = np.ones(len(ours.places), bool)
        unmatched[matched[:, 0]] = False
        counted = theirs.places >= first
        pairs.append(np.stack([theirs.labels, answered], axis=1)[counted])
        unmatched = ours.labels[unmatched & (ours.places >= first)]
        pairs.append(np.stack([np.zeros_like(unmatched), unmatched], axis=1))
        matched = matched[counted[matched[:, 1]]]
        delays.append(ours.decided[matched[:, 0]] - theirs.places[matched[:, 1]])
    truth, answers = np.concatenate(pairs).T
    delays = 1000.0 * np.concatenate(delays) / rate
    of_all = _rates(truth > 0, answers > 0, (truth > 0) & (answers > 0))
    of_each = [
        _rates(truth == i, answers == i, (truth == i) & (answers == i))
        for i in range(1, len(names) + 1)
    ]
    f1 = [2 * a * b / (a + b) if a + b else 0.0 for a, b in of_each]
    scores = {"macro-F1": float(np.mean(f1))}
    for name, (sensitivity, predictivity) in zip(
        ("beats", *names), (of_all, *of_each), strict=True
    ):
        scores[f"sensitivity of {name}"] = sensitivity
        scores[f"positive predictivity of {name}"] = predictivity
    for name, share in (("median of the delays in ms", 0.5), ("95 % of the delays in ms", 0.95)):
        scores[name] = float(np.quantile(delays, share)) if len(delays) else 0.0
    return scores


def _rates(truth, answers, both):
    """Sensitivity and positive predictivity."""
    matched = float(both.sum())
    return matched / max(1, int(truth.sum())), matched / max(1, int(answers.sum()))
