"""Functions of NumPy on the tensors of a graph of TensorFlow, such as `tf.data` traces."""

import numpy as np


def call_from_graph(function, x, weights, dtypes, length, free_rows=None):
    """Calls a function of NumPy from a graph.

    Args:
        function: callable. Takes `x` and `weights` as NumPy arrays, ragged ones as lists of
            arrays, and returns arrays `(rows, length)`, or `(length,)` for one text.
        x: tensor of strings or integers, or dict of `token_ids` and `padding_mask`.
        weights: tensor or `None`.
        dtypes: tuple of str. Those of the arrays that are returned.
        length: int. Steps of a row.
        free_rows: whether even one text gives rows.

    Returns:
        List of tensors.

    Raises:
        ValueError: for tensors of another rank.
    """
    import tensorflow as tf

    parts = dict(x) if isinstance(x, dict) else {"token_ids": x}
    main = parts["token_ids"]
    if weights is not None:
        parts["weights"] = weights
    ragged = [key for key, value in parts.items() if isinstance(value, tf.RaggedTensor)]
    for key in ragged:
        value = parts.pop(key)
        if value.shape.rank != 2:
            raise ValueError(f"`x` must have rows of tokens. Received: {key}.shape={value.shape}")
        parts |= {key: value.flat_values, f"{key}_lengths": value.row_lengths()}
    rank = main.shape.rank
    single = 0 if main.dtype == tf.string else 1
    if rank not in (single, single + 1):
        raise ValueError(
            "`x` must be texts of shape () or (batch,), or token ids of shape (length,) or "
            f"(batch, length). Received: x of shape {main.shape}"
        )

    @tf.autograph.experimental.do_not_convert
    def call(*values):
        given = dict(zip(parts, values, strict=True))
        for key in ragged:
            ends = np.cumsum(given.pop(f"{key}_lengths"))
            given[key] = np.split(given[key], ends[:-1])
        weights = given.pop("weights", None)
        whole = isinstance(x, dict)
        outputs = function(given if whole else given["token_ids"], weights)
        return [part.astype(dtype) for part, dtype in zip(outputs, dtypes, strict=True)]

    outputs = tf.numpy_function(call, list(parts.values()), [tf.as_dtype(d) for d in dtypes])
    is_single_row = rank == single and not free_rows
    for output in outputs:
        output.set_shape([length] if is_single_row else [None, length])
    return outputs
