"""Documents of token ids as rows of one length, with the next token as the target of each."""

import keras
import numpy as np

from keras_ssm.models.trainer.targets import as_arrays, to_numpy

PACKING = (None, "split", "join")


def pack(documents, length, packing=None, start=(), end=(), pad=0, weights=None):
    """Packs documents into rows.

    Args:
        documents: list of integer arrays `(tokens,)`.
        length: int. Steps of a row.
        packing: `None`: a row for each document, which is cut to fit `length + 1` tokens with its
            start and end. `"split"`: what does not fit goes on in a further row. `"join"`: one
            document after the other, without a break, in rows that are full but for the last.
            Every token but the first of its document, or row of `None`, is a target once.
        start, end: tuples of ids before and after each document.
        pad: int. Id where there is no token.
        weights: float array with one weight for each document, or `None`.

    Returns:
        Tuple `(token_ids, valid, y, sample_weight)`, each `(rows, length)`: int32, bool, int32,
        and bool or, with `weights`, floats: zero where there is no target, or where the target is
        the first token of the next document.
    """
    room = length + 1 - len(start) - len(end)
    rows = [
        np.concatenate([start, row if packing else row[: max(0, room)], end]).astype("int32")
        for row in documents
    ]
    if not packing:
        rows = [row[: length + 1] for row in rows]
    counts = [np.arange(len(row)) > 0 for row in rows]  # the first of a document is no target
    if weights is not None:
        counts = [count * weight for count, weight in zip(counts, weights, strict=True)]
    if packing == "join":
        rows, counts = [np.concatenate(rows)], [np.concatenate(counts)]
    parts = [_windows(row, count, length, pad) for row, count in zip(rows, counts, strict=True)]
    if packing:
        parts = [part for part, row in zip(parts, rows, strict=True) if len(row) > 1]
        if not parts:
            raise ValueError(
                "`x` must hold a document of two tokens, the second of which is a target. "
                f"Received: {len(rows)} documents of at most one token"
            )
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def pad_prompts(documents, length, start=(), pad=0):
    """Packs prompts into rows, cut to fit.

    Args:
        documents, length, start, pad: as in `pack`.

    Returns:
        Tuple `(token_ids, valid)`, each `(rows, length)`.
    """
    token_ids = np.full((len(documents), length), pad, "int32")
    valid = np.zeros(token_ids.shape, bool)
    for i, row in enumerate(documents):
        row = np.concatenate([start, row]).astype("int32")[:length]
        token_ids[i, : len(row)] = row
        valid[i, : len(row)] = True
    return token_ids, valid


def row_weights(weights, rows):
    """Sample weights as an array with one entry for each text.

    Args:
        weights: array, or a list of numbers.
        rows: int. Number of texts.

    Raises:
        ValueError: for another shape.
    """
    weights = np.asarray(to_numpy(as_arrays(weights)), keras.config.floatx())
    if weights.shape != (rows,):
        raise ValueError(
            f"`sample_weight` must have one entry for each of the {rows} texts. "
            f"Received: sample_weight.shape={weights.shape}"
        )
    return weights


def _windows(row, count, length, pad):
    """The windows of one row of tokens: each begins with the last target of the one before."""
    windows = max(1, -(-(len(row) - 1) // length))
    missing = windows * length + 1 - len(row)
    valid = np.arange(windows * length + 1) < len(row)
    row = np.pad(row, (0, missing), constant_values=pad)
    count = np.pad(count, (0, missing))
    inputs, targets = slice(None, -1), slice(1, None)
    shape = (windows, length)
    return (
        row[inputs].reshape(shape),
        valid[inputs].reshape(shape),
        row[targets].reshape(shape),
        count[targets].reshape(shape),
    )
