"""What a preprocessor does to tensors of TensorFlow, as it does it to arrays."""


class TensorFlowInputs:
    """The part of a preprocessor for `tf.data`."""

    def _from_tensorflow(self, x, mask):
        import tensorflow as tf

        if x.dtype.is_complex or (x.dtype == tf.string and not self.tokens):
            raise ValueError(f"`x` must be real numbers. Received: x.dtype={x.dtype.name}")
        if x.dtype == tf.string:
            x = tf.strings.bytes_split(x)
            flat = tf.reshape(tf.io.decode_raw(x.flat_values, tf.uint8), [-1])
            x = x.with_flat_values(flat)
        if self.tokens and not x.dtype.is_integer:
            raise ValueError(f"Token ids must be integers. Received: x.dtype={x.dtype.name}")
        if self.tokens and x.dtype.size > 4:  # ids must not wrap around into the vocabulary
            x = tf.clip_by_value(x, tf.cast(-1, x.dtype), tf.cast(2**31 - 1, x.dtype))
        if self.sampling_rate is not None and self.scale == 1.0 and not self.tokens:
            x = full_scale_tensor(x)
        x = tf.cast(x, tf.int32 if self.tokens else self._float_dtype())
        if not self.tokens:
            x = x * tf.cast(self.scale, x.dtype)
            if self.allow_nan and self.normalize != "standard":
                x = tf.where(tf.math.is_nan(x), tf.zeros_like(x), x)
        if isinstance(x, tf.RaggedTensor):
            lengths = x.row_lengths()
            x = x.to_tensor()
            valid = tf.sequence_mask(lengths, tf.shape(x)[1])
            if isinstance(mask, tf.RaggedTensor):
                mask = mask.to_tensor()
            if mask is not None:
                tf.debugging.assert_equal(
                    tf.shape(mask),
                    tf.shape(valid),
                    message="`padding_mask` must have one entry for each step of `x`.",
                )
            mask = valid if mask is None else valid & tf.cast(mask, tf.bool)
        if len(x.shape) == 2 and not self.tokens:
            x = x[..., None]
        mask = tf.ones(tf.shape(x)[:2], tf.bool) if mask is None else tf.cast(mask, tf.bool)
        if self.sequence_length is not None:
            missing = tf.maximum(0, self.sequence_length - tf.shape(x)[1])
            edges = [[0, 0], [0, missing]] + [[0, 0]] * (len(x.shape) - 2)
            x = tf.pad(x, edges)[:, : self.sequence_length]
            mask = tf.pad(mask, edges[:2])[:, : self.sequence_length]
            x = tf.ensure_shape(x, [None, self.sequence_length, *x.shape[2:]])
        if not self.tokens:
            x = sized_tensor(x, mask, self.normalize, self.mono, self.allow_nan)
        return x, mask


def full_scale_tensor(x):
    """Integers of audio as floats from -1 to 1; see `keras_ssm.signals.read_wav.full_scale`."""
    import tensorflow as tf

    if not x.dtype.is_integer:
        return x
    if x.dtype == tf.uint8:
        return (tf.cast(x, tf.float32) - 128.0) / 128.0
    if x.dtype not in (tf.int16, tf.int32):
        raise ValueError(
            "Samples of audio must be floats, int16, int32 or uint8, which tell their full range; "
            f"a `scale` is the factor for others. Received: dtype {x.dtype.name}"
        )
    return tf.cast(tf.cast(x, tf.float64) / -float(x.dtype.min), tf.float32)


def sized_tensor(x, mask, normalize, mono, allow_nan=False):
    """A padded batch `(batch, length, features)`, each row brought to one size."""
    import tensorflow as tf

    if mono:
        x = tf.reduce_mean(x, axis=-1, keepdims=True)
    if normalize is None:
        return x
    valid, one = mask[..., None], tf.ones((), x.dtype)
    read = tf.where(valid, x, tf.zeros_like(x))
    if normalize == "peak":
        size = tf.reduce_max(tf.abs(read), axis=[1, 2], keepdims=True)
        return tf.where(valid, x / tf.where(size > 0, size, one), x)
    if allow_nan:  # missing values do not count, and become zero at last
        known = ~tf.math.is_nan(x)
        x, valid = tf.where(known, x, tf.zeros_like(x)), valid & known
        read = tf.where(valid, x, tf.zeros_like(x))
    count = tf.maximum(tf.reduce_sum(tf.cast(valid, x.dtype), axis=1, keepdims=True), one)
    mean = tf.reduce_sum(read, axis=1, keepdims=True) / count
    centered = tf.where(valid, x - mean, tf.zeros_like(x))
    size = tf.sqrt(tf.reduce_sum(centered**2, axis=1, keepdims=True) / count)
    return tf.where(valid, centered / tf.where(size > 0, size, one), x)
