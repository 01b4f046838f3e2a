"""Targets and weights of a batch, or of whole arrays: their shapes, their padding, their checks."""

import keras
import numpy as np

from keras_ssm.models.trainer.finite_inputs import is_tensorflow


def to_numpy(x):
    """Any array or tensor, PyTorch's included, as a NumPy array."""
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise ValueError(
            "Masked arrays of NumPy are not read: pass `x.filled(0)`, with `~x.mask` as the "
            f"`padding_mask`. Received: an array of shape {x.shape} with masked entries"
        )
    if isinstance(x, np.ndarray):
        return np.ma.getdata(x)
    if hasattr(x, "detach"):
        x = x.detach().cpu()
    try:
        array = np.asarray(keras.ops.convert_to_numpy(x))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Data must be arrays, or lists of numbers of one length. Received: {error}"
        ) from error
    if array.dtype.kind == "O" and array.ndim == 0:
        raise ValueError(
            f"Data must be arrays, or lists of numbers. Received: a {type(x).__name__}"
        )
    return array


def as_arrays(x):
    """Inputs without the tensors of any library, but for those of a TensorFlow graph."""
    if isinstance(x, dict):
        return {key: as_arrays(value) for key, value in x.items()}
    if is_tensorflow(x):
        import tensorflow as tf

        if not tf.executing_eagerly():
            return x
        return [row.numpy() for row in x] if hasattr(x, "row_splits") else x.numpy()
    return to_numpy(x) if hasattr(x, "shape") else x


def row_lengths(x, key):
    """The number of steps of each row as given, before it is padded or cut; `None` if unknown."""
    x = x.get(key) if isinstance(x, dict) else x
    if isinstance(x, (list, tuple)):
        if not all(hasattr(row, "__len__") for row in x):
            return None
        return [
            len(row.encode("utf-8", "surrogatepass")) if isinstance(row, str) else len(row)
            for row in x
        ]
    if hasattr(x, "shape") and not is_tensorflow(x) and len(x.shape) > 1:
        return [x.shape[1]] * x.shape[0]
    return None


def checked(model, x, y, sample_weight, lengths):
    """Returns targets and weights as NumPy arrays that fit the outputs of the model.

    Args:
        model: the model, which has `has_step_outputs`, `check_targets` and a loss.
        x: dict of NumPy arrays, as the graph takes it.
        y, sample_weight: what a person passed, or `None`.
        lengths: what `row_lengths` gave.

    Returns:
        Tuple `(y, sample_weight)`.

    Raises:
        ValueError: for another number of rows or steps, targets that are not finite where Keras'
            own losses read them, or that the model refuses.
    """
    if y is None or isinstance(y, dict) or isinstance(sample_weight, dict):
        return y, sample_weight
    mask = np.asarray(to_numpy(x["padding_mask"]), bool)
    steps = model.has_step_outputs
    body = getattr(model, "backbone", model)
    if steps and body.stride > 1:
        mask = np.asarray(to_numpy(body.output_mask(mask)), bool)
        lengths = None if lengths is None else [n // body.stride for n in lengths]
    fill = ignored_class(model) if steps else None
    y = _rows("y", y, mask, lengths, steps, 0 if fill is None else fill)
    reads_all = reads_every_target(model)
    if steps and reads_all and (y.ndim < 2 or y.shape[1] != mask.shape[1]):
        raise ValueError(
            f"`y` must have one entry for each of the {mask.shape[1]} steps of a row of `x`. "
            f"Received: y.shape={y.shape}"
        )
    if reads_all and y.dtype.kind == "f" and not np.isfinite(y).all():
        position = tuple(int(i) for i in np.argwhere(~np.isfinite(y))[0])
        raise ValueError(f"`y` must be finite. Received: {y[position]} at {position}")
    model.check_targets(y)
    if sample_weight is not None:
        sample_weight = _rows("sample_weight", sample_weight, mask, lengths, steps, 0)
        sample_weight = _weights(sample_weight, y, mask, steps)
    return y, sample_weight


def weights_of(name, value, mask, lengths):
    """Weights of rows or of steps as a finite NumPy array `(batch,)` or `(batch, length)`.

    Args:
        name: str. What they are called, for messages.
        value: array, or a list of arrays as long as the rows.
        mask: boolean NumPy array `(batch, length)` of the inputs.
        lengths: what `row_lengths` gave.
    """
    return _weights(_rows(name, value, mask, lengths, True, 0), mask, mask, True)


def class_weights(model, y, sample_weight, class_weight):
    """Returns the sample weights that weigh each row, or each step, by its class.

    Args:
        model: the model.
        y: NumPy array of labels or of one-hot rows.
        sample_weight: array or `None`.
        class_weight: dict from class, or its name, to weight, 1 for one that is not there, or
            `None`.

    Returns:
        `sample_weight` where there is no `class_weight`; else a float array of the shape of the
        labels.

    Raises:
        ValueError: if both are given, or for something else than classes.
    """
    if class_weight is None:
        return sample_weight
    if not isinstance(class_weight, dict) or not hasattr(model, "num_classes"):
        raise ValueError(
            "`class_weight` must be a dict from class to weight, for a model with classes. "
            f"Received: class_weight={class_weight}"
        )
    numbers = getattr(model, "label2id", {})
    unknown = [key for key in class_weight if isinstance(key, str) and key not in numbers]
    if unknown:
        raise ValueError(
            f"`class_weight` must have classes of {list(numbers) or 'numbers'} as keys. "
            f"Received: {unknown[0]!r}"
        )
    class_weight = {numbers.get(key, key): weight for key, weight in class_weight.items()}
    if sample_weight is not None:
        raise ValueError(
            "Pass `class_weight` or `sample_weight`, not both. Received: class_weight="
            f"{class_weight}, sample_weight.shape={np.shape(sample_weight)}"
        )
    if not isinstance(y, np.ndarray):
        raise ValueError(
            f"`class_weight` needs targets that name classes. Received: y={type(y).__name__}"
        )
    labels = y
    if y.ndim > 1 + model.has_step_outputs:
        one_hot = ((y == 0) | (y == 1)).all() and (y.sum(axis=-1) == 1).all()
        if y.shape[-1] != 1 and not one_hot:
            raise ValueError(
                "`class_weight` needs one class for each output; weigh those of several at once by "
                "`sample_weight`. Received: rows of `y` that are no one-hot rows"
            )
        labels = y[..., 0] if y.shape[-1] == 1 else y.argmax(-1)
    values, where = np.unique(np.round(labels).astype("int64"), return_inverse=True)
    weights = np.array([class_weight.get(int(v), 1.0) for v in values], keras.config.floatx())
    return weights[where].reshape(labels.shape)


def split_rows(x, y, sample_weight, share):
    """Splits arrays as Keras does: the last `share` of the rows is for validation."""
    if not isinstance(y, np.ndarray):
        raise ValueError(
            "`validation_split` needs arrays or lists: pass `validation_data` with a stream. "
            f"Received: validation_split={share}"
        )
    at = int(len(y) * (1.0 - share))
    if not 0 < at < len(y):
        raise ValueError(
            "`validation_split` must leave rows for both parts. "
            f"Received: validation_split={share} of {len(y)} rows"
        )
    parts = [
        (
            {name: value[rows] for name, value in x.items()},
            y[rows],
            None if sample_weight is None else sample_weight[rows],
        )
        for rows in (slice(None, at), slice(at, None))
    ]
    return parts[0], parts[1] if sample_weight is not None else parts[1][:2]


def _rows(name, value, mask, lengths, steps, fill):
    """An array with one entry a row; per step as long as the inputs, `fill` where padded."""
    count, length = len(mask), mask.shape[1]
    if steps and isinstance(value, (list, tuple)):
        rows = [to_numpy(row) for row in value]
        value = (
            np.array(rows)
            if not any(row.ndim for row in rows)
            else _padded(name, rows, mask, lengths, fill)
        )
    value = to_numpy(value)
    if value.dtype.kind not in "fiub":
        hint = f"`{name}` must be numbers"
        if value.dtype.kind in "OSU":
            hint += (
                f"; `classes, {name} = np.unique(names, return_inverse=True)` makes them, and a "
                "classifier with `class_names` reads names"
            )
        raise ValueError(f"{hint}. Received: {name}.dtype={value.dtype}")
    if value.ndim == 0 or len(value) != count:
        raise ValueError(
            f"`{name}` must have one entry for each of the {count} rows of `x`. "
            f"Received: {name}.shape={value.shape}"
        )
    if not steps or value.ndim < 2:
        return value
    if lengths and set(lengths) == {value.shape[1]} and value.shape[1] != length:
        value = _as_long(value, length, fill)  # cut or padded like the inputs
    if value.shape[1] == length and not mask.all():
        covered = mask.reshape(*mask.shape, *[1] * (value.ndim - 2))
        value = np.where(covered, value, np.asarray(fill, value.dtype))
    return value


def _padded(name, rows, mask, lengths, fill):
    """Label arrays of different lengths as one array, padded like the inputs."""
    if len(rows) != len(mask):
        raise ValueError(
            f"`{name}` must have one entry for each of the {len(mask)} rows of `x`. "
            f"Received: {len(rows)} entries"
        )
    for i, (row, valid) in enumerate(zip(rows, mask, strict=True)):
        count = int(valid.sum())
        allowed = {mask.shape[1] if lengths is None else lengths[i]}
        if valid[:count].all():
            allowed.add(count)
        if row.ndim == 0 or len(row) not in allowed:
            raise ValueError(
                f"Row {i} of `{name}` must have one entry for each of the {max(allowed)} steps "
                f"of its sequence. Received: shape {row.shape}"
            )
    if len({row.shape[1:] for row in rows}) > 1:
        shapes = sorted({row.shape for row in rows})
        raise ValueError(f"Rows of `{name}` must be alike but for their length. Received: {shapes}")
    return np.concatenate([_as_long(row[None], mask.shape[1], fill) for row in rows])


def _as_long(value, length, fill):
    """Cuts or fills the second axis to a length."""
    missing = max(0, length - value.shape[1])
    edges = [(0, 0), (0, missing)] + [(0, 0)] * (value.ndim - 2)
    if missing and not np.can_cast(np.min_scalar_type(fill), value.dtype, "same_kind"):
        value = value.astype("int64")
    return np.pad(value[:, :length], edges, constant_values=fill)


def _weights(weights, y, mask, steps):
    """Sample weights of the shape of the losses: one a row, or one a step."""
    shape = mask.shape if steps and y.ndim > 1 and y.shape[:2] == mask.shape else mask.shape[:1]
    if weights.ndim == 2 and weights.shape[1] == 1:
        weights = weights[:, 0]
    if len(shape) == 2 and weights.ndim == 1:
        weights = np.repeat(weights[:, None], shape[1], axis=1)  # the loss leaves out padding
    if weights.shape != shape:
        raise ValueError(
            f"`sample_weight` must have shape {shape[:1]}"
            f"{f' or {shape}' if len(shape) == 2 else ''}. "
            f"Received: sample_weight.shape={weights.shape}"
        )
    if not np.isfinite(weights).all():
        raise ValueError(
            "`sample_weight` must be finite. "
            f"Received: {weights[~np.isfinite(weights)][0]} among its values"
        )
    return weights


def check_like_outputs(model, y, loss):
    """Raises a `ValueError` for targets that a loss of Keras would stretch to the outputs.

    Args:
        model: the model.
        y: NumPy array.
        loss: its loss.
    """
    width = model.outputs[0].shape[-1]
    name = (loss if isinstance(loss, str) else type(loss).__name__).lower()
    free = name.startswith(("sparse", "circle", "ctc")) or name == "lossfunctionwrapper"
    if not is_of_keras(loss) or free:
        return
    if not is_like_outputs(model, y):
        free = ", length" * model.has_step_outputs
        raise ValueError(
            f"`y` must have the shape of the outputs, (batch{free}, {width}), for this loss; "
            "labels as numbers go with 'sparse_categorical_crossentropy'. "
            f"Received: y.shape={y.shape}"
        )


def is_like_outputs(model, y):
    """Whether targets have the shape of the outputs, whose last axis may lack if it is 1."""
    width, rank = model.outputs[0].shape[-1], len(model.outputs[0].shape)
    return (y.ndim == rank and y.shape[-1] == width) or (width == 1 and y.ndim == rank - 1)


def ignored_class(model):
    """The class that the loss leaves out, or `None`."""
    return getattr(getattr(model, "loss", None), "ignore_class", None)


def reads_every_target(model):
    """Whether the loss is one of Keras', which reads every target."""
    return is_of_keras(getattr(model, "loss", None))


def is_of_keras(function):
    """Whether this is the name of a loss or metric of Keras, or one itself."""
    function = getattr(function, "_fn", function)  # the function that Keras wrapped
    return (
        isinstance(function, str)
        or str(getattr(function, "__module__", "")).split(".")[0] == "keras"
    )
