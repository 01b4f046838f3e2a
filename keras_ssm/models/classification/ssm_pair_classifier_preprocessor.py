import keras
import numpy as np

from keras_ssm.models.sequence_preprocessor import SequencePreprocessor
from keras_ssm.models.trainer.targets import to_numpy


@keras.saving.register_keras_serializable(package="keras_ssm")
class SSMPairClassifierPreprocessor(SequencePreprocessor):
    """Turns pairs of sequences into the inputs of a pair classifier.

    All sequences of a batch are padded to the same length, first and second ones alike.

    Args:
        tokens, scale, sequence_length, allow_nan: as in `SequencePreprocessor`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: array `(batch, 2, length, features)` or, for one feature or tokens,
            `(batch, 2, length)`; a list of pairs of arrays `(length, features)` or `(length,)`,
            or of strings (tokens); or a dict of `inputs` or `token_ids` and, optionally,
            `padding_mask`.
        y, sample_weight: passed through.

    Returns:
        Dict of `inputs` or `token_ids` and `padding_mask`, with pairs on the second axis,
        packed with `y` and `sample_weight` if given.

    Raises:
        ValueError: for what is no pair, and as in `SequencePreprocessor`.

    Example:
        ```python
        preprocessor = keras_ssm.models.SSMPairClassifierPreprocessor(tokens=True)
        batch = preprocessor([("state", "space")])  # token_ids (1, 2, 5)
        ```
    """

    def at_own_rate(self, x, step_scale=None):
        if not isinstance(x, (list, tuple)) or self.tokens:
            return super().at_own_rate(x, step_scale)
        if any(isinstance(pair, str) or not hasattr(pair, "__len__") for pair in x):
            return x  # no pairs
        rows = super().at_own_rate([row for pair in x for row in pair], step_scale)
        ends = np.cumsum([len(pair) for pair in x])
        return [tuple(rows[end - len(pair) : end]) for pair, end in zip(x, ends, strict=True)]

    def _from_numpy(self, x, mask):
        if isinstance(x, (list, tuple)):
            if any(isinstance(pair, (str, bytes)) or len(pair) != 2 for pair in x):
                raise ValueError(
                    "Each entry of `x` must be a pair of sequences. "
                    f"Received: {type(x[0]).__name__} first"
                )
            rows = [row for pair in x for row in pair]
        else:
            rows = self._rows(to_numpy(x))
        if mask is not None:
            mask = self._rows(to_numpy(mask))
        padded, valid = super()._from_numpy(rows, mask)
        return tuple(part.reshape(-1, 2, *part.shape[1:]) for part in (padded, valid))

    def _timesteps(self, timesteps, mask):
        if isinstance(mask, np.ndarray):
            pairs = isinstance(timesteps, (list, tuple))
            rows = [r for pair in timesteps for r in pair] if pairs else self._rows(timesteps)
            return super()._timesteps(rows, mask.reshape(-1, mask.shape[-1])).reshape(mask.shape)
        import tensorflow as tf

        if isinstance(timesteps, tf.RaggedTensor):
            rows = timesteps.merge_dims(0, 1)
        else:
            rows = tf.reshape(timesteps, [-1, tf.shape(timesteps)[-1]])
        flat = super()._timesteps(rows, tf.reshape(mask, [-1, tf.shape(mask)[-1]]))
        return tf.ensure_shape(tf.reshape(flat, tf.shape(mask)), mask.shape)

    def _rows(self, x):
        if x.ndim < 2 or x.shape[1] != 2:
            raise ValueError(
                f"`x` must hold pairs, of shape (batch, 2, ...). Received: shape {x.shape}"
            )
        return x.reshape(-1, *x.shape[2:])

    def _from_tensorflow(self, x, mask):
        import tensorflow as tf

        def rows(x):
            if isinstance(x, tf.RaggedTensor):
                return x.merge_dims(0, 1)
            return tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], axis=0))

        x, mask = super()._from_tensorflow(rows(x), None if mask is None else rows(mask))
        return tuple(
            tf.ensure_shape(
                tf.reshape(part, tf.concat([[-1, 2], tf.shape(part)[1:]], axis=0)),
                [None, 2, *part.shape[1:]],
            )
            for part in (x, mask)
        )
