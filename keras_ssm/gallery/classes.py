"""Pictures of a classifier."""

import numpy as np

from keras_ssm.gallery.calibration import calibration_error
from keras_ssm.gallery.costs import samples_of
from keras_ssm.plotting import plot_answers, plot_confusion_matrix, plot_reliability

PREFIXES = 60  # beginnings of a sequence that a model which does not stream reads
VISIBLE_ERROR = 0.02  # the smallest calibration error that a picture shows


def pictures(subject):
    """Three samples and the answers to them, the confusion matrix, and the calibration."""
    labels, logits = np.asarray(subject.part.y), subject.logits
    answers = logits.argmax(axis=-1)
    names = list(subject.recipe.classes)
    figures = {"samples.png": _answers(subject, labels, answers, names)}
    figures["confusion.png"] = (
        plot_confusion_matrix(labels, answers, names),
        "How often each class of the test part was taken for each other.",
    )
    calibration = calibration_error(logits, labels)
    if calibration.error >= VISIBLE_ERROR:
        figures["reliability.png"] = (
            plot_reliability(
                calibration.confidence,
                calibration.accuracy,
                calibration.counts,
                calibration.error,
            ),
            "How often answers of the test part are right, against the probability that they have.",
        )
    return figures


def _answers(subject, labels, answers, names):
    rows = chosen(labels, answers)
    samples = [np.asarray(subject.part.x[row]) for row in rows]
    titles = [
        f"{names[labels[row]]}"
        + ("" if answers[row] == labels[row] else f", taken for {names[answers[row]]}")
        for row in rows
    ]
    preprocessor = getattr(subject.model, "preprocessor", None)
    figure = plot_answers(
        samples,
        [softmax(_after_each_step(subject, sample)) for sample in samples],
        titles,
        names,
        shape=subject.recipe.picture_shape,
        cmap=subject.recipe.picture_colors,
        sampling_rate=getattr(preprocessor, "sampling_rate", None),
    )
    when = "after each step" if subject.streams else "of what was read so far"
    mistake = ", the last of them a mistake" if answers[rows[-1]] != labels[rows[-1]] else ""
    return figure, f"Three samples of the test part{mistake}, and the probabilities {when}."


def chosen(labels, answers, count=3):
    """Numbers of the first right answers of different classes, and of the first wrong one."""
    wrong = np.flatnonzero(answers != labels)[:1]
    right, seen = [], set()
    for row in np.flatnonzero(answers == labels):
        if len(right) == count - len(wrong):
            break
        if labels[row] not in seen:
            right.append(row)
            seen.add(labels[row])
    return [*map(int, right), *map(int, wrong)]


def _after_each_step(subject, sample):
    """Logits after each step; of a model that needs the whole sequence, of its beginnings."""
    if subject.streams:
        return np.asarray(subject.model.stream()(sample))[0]
    first = samples_of(subject.model)
    ends = np.unique(np.linspace(first, len(sample), min(PREFIXES, len(sample)), dtype=int))
    return np.asarray(subject.model.predict([sample[:end] for end in ends], verbose=0))


def softmax(logits):
    """Probabilities of logits, along the last axis."""
    powers = np.exp(np.asarray(logits, "float64") - np.max(logits, axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
