"""From token ids to what a language model trains on: the next token at every step."""

import functools

import keras
import numpy as np

from keras_ssm.models.sequence_preprocessor import SequencePreprocessor
from keras_ssm.models.trainer import targets
from keras_ssm.models.trainer.finite_inputs import is_tensorflow


def next_tokens(inputs, sample_weight, lengths, ends):
    """The inputs without their last step, and for each step the token that comes next.

    Args:
        inputs: dict of `token_ids`, `padding_mask` and whatever else a step has, NumPy or
            TensorFlow arrays `(batch, length, ...)`.
        sample_weight: weights of the rows or of the tokens, or `None`.
        lengths: the number of tokens of each row before it was padded, or `None`.
        ends: tuple of int. Ids that end a document.

    Returns:
        Tuple `(inputs, targets, weights)`: one step shorter, the weights 0 where a step or its
        target is padding, or the target begins another document.

    Raises:
        ValueError: if no row has two tokens one after the other.
    """
    ids, mask = inputs["token_ids"], inputs["padding_mask"]
    mask = _cast(mask, "bool")
    pairs = mask[:, 1:] & mask[:, :-1]
    if isinstance(pairs, np.ndarray) and not pairs.any():
        raise ValueError(
            "`x` must have rows of at least two tokens, of which one predicts the other. "
            f"Received: shape {tuple(ids.shape)}, no two valid tokens side by side"
        )
    shorter = {name: value[:, :-1] for name, value in inputs.items()}
    weights = _cast(pairs, keras.config.floatx())
    if sample_weight is not None:
        if isinstance(ids, np.ndarray):
            sample_weight = targets.weights_of("sample_weight", sample_weight, mask, lengths)
        given = _cast(sample_weight, keras.config.floatx())
        weights = weights * (given[:, None] if len(given.shape) == 1 else given[:, 1:])
    weights = without_boundaries(shorter["token_ids"], weights, ends)
    return shorter, ids[:, 1:], weights


def without_boundaries(ids, weights, ends):
    """The weights of the targets, 0 behind a token that ends a document.

    Args:
        ids: integers `(batch, length)`, what is read.
        weights: array of the same shape, or `None`: all count.
        ends: tuple of int.
    """
    for end in ends:
        goes_on = ids != end
        goes_on = _cast(goes_on, keras.config.floatx())
        weights = goes_on if weights is None else goes_on * _cast(weights, goes_on.dtype)
    return weights


def is_text(x):
    """Whether data is text: strings, or a list, an array or a tensor of them."""
    if isinstance(x, (list, tuple)):
        return len(x) > 0 and is_text(x[0])
    if isinstance(x, np.ndarray):
        kind = x.dtype.kind
        return kind in "US" or (kind == "O" and x.size > 0 and is_text(x.flat[0]))
    if is_tensorflow(x):
        return getattr(x, "dtype", None) == "string"
    return isinstance(x, (str, bytes))


def texts_of(x):
    """Texts as a list of str, or as the tensor of a TensorFlow graph that they are."""
    if is_tensorflow(x):
        return x
    if isinstance(x, (str, bytes)):
        raise ValueError(f"`x` must be a batch: a list of texts. Received: x={x[:40]!r}")
    rows = x.ravel().tolist() if isinstance(x, np.ndarray) else list(x)
    # Bytes that are no UTF-8: a tokenizer of bytes returns them, others refuse them.
    return [
        row.decode("utf-8", "surrogateescape") if isinstance(row, bytes) else row for row in rows
    ]


@functools.cache
def padder():
    """What brings token ids of every kind to one padded array and its mask."""
    return SequencePreprocessor(tokens=True, name="padding")


def _cast(x, dtype):
    """x in another dtype, of NumPy or of TensorFlow as before."""
    if isinstance(x, np.ndarray):
        return x.astype(dtype)
    if is_tensorflow(x):
        import tensorflow as tf

        return tf.cast(x, dtype)
    return targets.to_numpy(x).astype(dtype)
