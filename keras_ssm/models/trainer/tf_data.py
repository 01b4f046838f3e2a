"""Batches of `tf.data`, converted like all others: inputs in TensorFlow, checks in NumPy."""

import keras

from keras_ssm.models.model_timesteps import model_timesteps
from keras_ssm.models.trainer import targets
from keras_ssm.models.trainer.data_streams import packed
from keras_ssm.models.trainer.finite_inputs import check_finite


def convert_tf_dataset(model, dataset, converter):
    """Returns the dataset with converted batches.

    Args:
        model: the model.
        dataset: `tf.data.Dataset` of batches.
        converter: `BatchConverter`.

    Raises:
        ValueError: for elements of unknown rank or that are no batches.
    """
    import tensorflow as tf

    _check_spec(model, dataset.element_spec)

    @tf.autograph.experimental.do_not_convert
    def convert(*batch):
        x, y, sample_weight = converter.unpacked(batch)
        lengths = _lengths(x[model.input_key] if isinstance(x, dict) else x)
        x, y, sample_weight = model._convert(x, y, sample_weight, purpose=converter.purpose)
        if "timesteps" in x:
            x = {**x, "timesteps": _timesteps(converter, x)}
        if y is None or isinstance(y, dict):
            return packed(x, y, sample_weight)
        return x, *_targets(model, converter, x, y, sample_weight, lengths)

    return dataset.map(convert)


def _timesteps(converter, x):
    """The times between samples, checked."""
    import tensorflow as tf

    def check(timesteps, mask):
        with converter.remembering():
            return model_timesteps(timesteps, mask)

    checked = tf.numpy_function(check, [x["timesteps"], x["padding_mask"]], x["timesteps"].dtype)
    checked.set_shape(x["timesteps"].shape)
    return checked


def _targets(model, converter, x, y, sample_weight, lengths):
    """Targets and weights, checked together with the inputs."""
    import tensorflow as tf

    key = model.input_key
    float_dtype = keras.config.floatx()
    parts = {"inputs": x[key], "mask": x["padding_mask"]}
    if lengths is not None:
        parts["lengths"] = lengths
    for name, value in (("y", y), ("sample_weight", sample_weight)):
        if isinstance(value, tf.RaggedTensor):
            parts[f"{name}_lengths"] = value.row_lengths()
            value = value.to_tensor()
        if value is not None:
            parts[name] = value
    weighs = sample_weight is not None or converter.class_weight is not None
    dtypes = [tf.int64 if y.dtype == tf.string else y.dtype] + [tf.as_dtype(float_dtype)] * weighs

    def check(*values):
        with converter.remembering():
            values_by_name = dict(zip(parts, values, strict=True))
            inputs = {key: values_by_name["inputs"], "padding_mask": values_by_name["mask"]}
            check_finite(inputs, key, getattr(model, "backbone", model).mask_inputs)
            y, weights = (_rows(values_by_name, name) for name in ("y", "sample_weight"))
            y = model.label_numbers(y)
            lengths = values_by_name.get("lengths")
            lengths = None if lengths is None else [int(n) for n in lengths]
            y, weights = targets.checked(model, inputs, y, weights, lengths)
            weights = targets.class_weights(model, y, weights, converter.class_weight)
        y = y.astype(dtypes[0].as_numpy_dtype)
        return [y] + ([weights.astype(float_dtype)] if weighs else [])

    checked = tf.numpy_function(check, list(parts.values()), dtypes)
    steps = model.has_step_outputs
    rank = y.shape.rank
    free = 2 if steps else 1
    checked[0].set_shape([None] * min(free, rank) + list(y.shape[free:]))
    if weighs:
        checked[1].set_shape([None] * (2 if steps and rank > 1 else 1))
    return checked


def _rows(values_by_name, name):
    """A part as the caller gave it: a list of rows if it is ragged."""
    value, lengths = values_by_name.get(name), values_by_name.get(f"{name}_lengths")
    if lengths is None:
        return value
    return [row[:n] for row, n in zip(value, lengths, strict=True)]


def _lengths(x):
    """The number of steps of each row before it is padded or cut, or `None`."""
    import tensorflow as tf

    if isinstance(x, tf.RaggedTensor):
        return x.row_lengths()
    if x.dtype == tf.string or len(x.shape) < 2:
        return None
    return tf.repeat(tf.shape(x)[1], tf.shape(x)[0])


def _check_spec(model, spec):
    """Raises a `ValueError` where the elements have no known rank, or are single rows."""
    import tensorflow as tf

    x, y, _ = keras.utils.unpack_x_y_sample_weight(spec)
    x = x.get(model.input_key) if isinstance(x, dict) else x
    for name, value in (("x", x), ("y", y)):
        if isinstance(value, tf.TensorSpec) and value.shape.rank is None:
            raise ValueError(
                f"`{name}` of a `tf.data.Dataset` must have a known rank: give `from_generator` "
                "an `output_signature`, or call `set_shape` after `numpy_function`. "
                f"Received: {value}"
            )
    if not isinstance(x, (tf.TensorSpec, tf.RaggedTensorSpec)):
        return
    rank = len(model.input[model.input_key].shape)
    if x.dtype == tf.string or (
        model.input_key == "inputs" and model.input["inputs"].shape[-1] == 1
    ):
        rank -= 1  # the last axis may be left out
    if getattr(x, "shape", None) is None or x.shape.rank is None:
        return
    single = isinstance(y, tf.TensorSpec) and y.shape.rank == 0
    if x.shape.rank < rank or single:
        received = f"y of shape {tuple(y.shape)}" if single else f"x of shape {tuple(x.shape)}"
        raise ValueError(
            "A `tf.data.Dataset` must yield batches: call `.batch(batch_size)` on it, or "
            f"`.ragged_batch` for rows of different lengths. Received: {received}"
        )
