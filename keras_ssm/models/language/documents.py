"""What a person calls texts or token ids, as documents: one array of ids each."""

import numpy as np

from keras_ssm.models.trainer.finite_inputs import is_tensorflow
from keras_ssm.models.trainer.targets import as_arrays, to_numpy


def documents_of(x, tokenizer):
    """Brings texts or token ids to documents.

    Args:
        x: str or bytes, a list or array of them; a list of ints or an integer array `(length,)`; a
            list of such rows, an integer array `(batch, length)`, a ragged tensor; or a dict of
            `token_ids` and, optionally, `padding_mask`.
        tokenizer: callable from texts to token ids.

    Returns:
        Tuple of a list of int64 arrays `(tokens,)` and whether `x` was a batch.

    Raises:
        ValueError: for anything else.
    """
    mask = None
    if isinstance(x, dict):
        if "token_ids" not in x or set(x) - {"token_ids", "padding_mask"}:
            raise ValueError(
                "`x` must be texts, token ids, or a dict of 'token_ids' and, optionally, "
                f"'padding_mask'. Received: keys {sorted(x)}"
            )
        x, mask = x["token_ids"], x.get("padding_mask")
    x = as_arrays(x)
    if isinstance(x, np.ndarray) and x.dtype.kind in "OSU":
        x = x.tolist()
    if _is_text(x):
        documents, batched = _tokenized([x], tokenizer), False
    elif isinstance(x, np.ndarray):
        if x.ndim not in (1, 2) or x.dtype.kind not in "iu":
            raise ValueError(
                "Token ids must be integers of shape (length,) or (batch, length). "
                f"Received: shape {x.shape}, dtype {x.dtype}"
            )
        documents, batched = [x] if x.ndim == 1 else list(x), x.ndim == 2
    elif isinstance(x, (list, tuple)) and len(x):
        if all(_is_text(row) for row in x):
            documents, batched = _tokenized(list(x), tokenizer), True
        else:
            batched = not all(np.ndim(row) == 0 for row in x)
            documents = [_row(row) for row in (x if batched else [x])]
    else:
        raise ValueError(f"`x` must hold at least one text or row of token ids. Received: {x!r}")
    documents = [np.asarray(row, "int64") for row in documents]
    if mask is not None:
        documents = _masked(documents, mask, batched)
    for row in documents:
        if row.size and not 0 <= row.min() <= row.max() < 2**31:
            raise ValueError(
                f"Token ids must be from 0 to 2**31 - 1. Received: {row.min()} to {row.max()}"
            )
    return documents, batched


def is_graph(x):
    """Whether `x` holds tensors of a graph of TensorFlow, such as `tf.data` traces."""
    x = x.get("token_ids") if isinstance(x, dict) else x
    if not is_tensorflow(x):
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()


def _is_text(x):
    return isinstance(x, (str, bytes))


def _is_bytes(x):
    return isinstance(x, bytes)


def _tokenized(texts, tokenizer):
    # Many tokenizers take no bytes. Those return what is no UTF-8 as it was, or refuse it.
    rows = tokenizer([t.decode("utf-8", "surrogateescape") if _is_bytes(t) else t for t in texts])
    return [_row(row) for row in (as_arrays(rows) if hasattr(rows, "shape") else rows)]


def _row(row):
    if _is_text(row):
        raise ValueError(f"`x` must hold texts or token ids, not both. Received: {row!r}")
    row = to_numpy(row) if hasattr(row, "shape") else np.asarray(row)
    if row.ndim != 1 or (row.dtype.kind not in "iu" and row.size):
        raise ValueError(
            "A row of token ids must be one-dimensional integers. "
            f"Received: shape {row.shape}, dtype {row.dtype}"
        )
    return row


def _masked(documents, mask, batched):
    mask = as_arrays(mask)
    rows = list(mask) if batched else [mask]
    shapes = [np.shape(row) for row in rows], [row.shape for row in documents]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "`padding_mask` must have one entry for each of the token ids. "
            f"Received: rows of shapes {shapes[0][:3]} for {shapes[1][:3]}"
        )
    pairs = zip(documents, rows, strict=True)
    return [row[np.asarray(to_numpy(valid), bool)] for row, valid in pairs]
