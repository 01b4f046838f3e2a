from typing import NamedTuple

import numpy as np

from keras_ssm.checks import check_positive

BINS = 15


class Calibration(NamedTuple):
    """How the probabilities of a classifier compare with how often it is right.

    Fields:
        error: float. Expected calibration error: the mean distance of the two.
        confidence: array `(bins,)`. Mean probability of the answers in a bin; NaN if it is empty.
        accuracy: array `(bins,)`. Share of right answers in a bin; NaN if it is empty.
        counts: integer array `(bins,)`.
    """

    error: float
    confidence: np.ndarray
    accuracy: np.ndarray
    counts: np.ndarray


def calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Calibration:
    """Returns the expected calibration error of a classifier, and the bins that it is made of.

    The probability of the answer falls into one of `bins` equal parts of 0 to 1, those at an edge
    into the lower one. In each part the mean probability is compared with the share of right
    answers.

    Args:
        logits: array `(rows, classes)`.
        labels: integer array `(rows,)`. True classes; negative ones do not count.
        bins: int. Defaults to `15`.

    Returns:
        `Calibration`.

    Raises:
        ValueError: for arrays of other shapes, or without a row that counts.

    Example:
        ```python
        logits = np.log([[0.8, 0.2], [0.8, 0.2], [0.8, 0.2], [0.8, 0.2], [0.8, 0.2]])
        found = keras_ssm.gallery.calibration_error(logits, np.array([0, 0, 0, 0, 1]))
        print(found.error)  # 0.0: of the answers with 80 % four of five are right
        ```

    References:
        C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger,
        [On Calibration of Modern Neural Networks](https://arxiv.org/abs/1706.04599), 2017, eq. 3.
    """
    (bins,) = check_positive(bins=bins)
    logits, labels = np.asarray(logits, "float64"), np.asarray(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            "`logits` must have shape (rows, classes) and `labels` shape (rows,). "
            f"Received: shapes {logits.shape} and {labels.shape}"
        )
    logits, labels = logits[labels >= 0], labels[labels >= 0]
    if not len(labels):
        raise ValueError("`labels` must have a class that counts. Received: none")
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    confidences, is_right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bin_numbers = np.clip(np.ceil(confidences * bins - 1e-9).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(bin_numbers, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(bin_numbers, confidences, bins) / counts
        accuracy = np.bincount(bin_numbers, is_right, bins) / counts
    error = np.nansum(np.abs(confidence - accuracy) * counts) / len(labels)
    return Calibration(float(error), confidence, accuracy, counts)
