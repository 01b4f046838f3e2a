"""Pictures of a classifier that answers at each step."""

import numpy as np

from keras_ssm.gallery.classes import softmax
from keras_ssm.plotting import plot_answers, plot_confusion_matrix

SHOWN = 150  # steps of a picture


def pictures(subject):
    """Three stretches with the probabilities of each step, and the confusion of steps."""
    stretches = subject.recipe.step_samples(subject.part, subject.settings)
    if not stretches:
        return {}
    names = list(subject.recipe.classes)
    answers = [np.asarray(subject.model.stream()(x))[0] for x, _ in stretches]
    figures = {"samples.png": _stretches(subject, stretches, answers, names)}
    labels = np.concatenate([labels for _, labels in stretches])
    classes = np.concatenate(answers).argmax(axis=-1)
    figures["confusion.png"] = (
        plot_confusion_matrix(labels, classes, names, normalize="true"),
        f"How often the steps of each class were taken for each other, in {len(stretches)} "
        "sequences of the test part. Classes of neighbouring steps count as mistakes here.",
    )
    return figures


def _stretches(subject, stretches, answers, names):
    samples, shown, truths = [], [], []
    for (x, labels), logits in zip(stretches, answers, strict=True):
        stride = len(x) // len(labels)
        end = _middle(labels)
        start = max(0, end - SHOWN)
        samples.append(x[start * stride : end * stride])
        shown.append(softmax(logits[start:end]))
        truths.append(labels[start:end])
    preprocessor = getattr(subject.model, "preprocessor", None)
    figure = plot_answers(
        samples,
        shown,
        [", ".join(names[i] for i in np.unique(labels)) for labels in truths],
        names,
        sampling_rate=getattr(preprocessor, "sampling_rate", None),
        truths=truths,
    )
    return figure, (
        "Stretches of the test part, and the probabilities after each step; bars below them are "
        "what was there."
    )


def _middle(labels):
    """The end of a stretch that has the first event of the rarest class in its middle."""
    classes, counts = np.unique(labels, return_counts=True)
    event = int(np.flatnonzero(labels == classes[counts.argmin()])[0])
    return min(len(labels), max(SHOWN, event + SHOWN // 2))
