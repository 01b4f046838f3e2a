"""Chunks of a stream, as the inputs of its model."""

import numpy as np

from keras_ssm.models.sequence_preprocessor import SequencePreprocessor
from keras_ssm.models.streaming.chunk_shapes import ChunkShapes
from keras_ssm.models.trainer.targets import to_numpy


class ChunkReader:
    """Brings chunks to the inputs of a model, preprocessed and checked.

    Args:
        task: the task model.
        batch_size: int. Rows of a chunk.

    Raises:
        ValueError: for a preprocessor that needs the whole sequence.
    """

    def __init__(self, task, batch_size):
        self.task = task
        self.batch_size = batch_size
        self.key = task.input_key
        self.tokens = self.key == "token_ids"
        self.check_preprocessor()

    def check_preprocessor(self):
        """Raises a `ValueError` for a preprocessor that needs the whole sequence."""
        reason = getattr(self.task.preprocessor, "unstreamable_because", lambda: None)()
        if reason is not None:
            raise ValueError(f"The preprocessor of {self.task.name} {reason}")

    def read(self, chunk: object) -> tuple[dict, np.ndarray]:
        """Returns the inputs of the model, arrays `(batch, steps, ...)`, and steps of each row.

        Steps that a row does not have are at its end, and zero in the `padding_mask`.
        """
        self.check_preprocessor()
        parts = dict(chunk) if isinstance(chunk, dict) else {self.key: chunk}
        if self.key not in parts:
            raise ValueError(
                f"`chunk` must be what comes next, or a dict with {self.key!r}. "
                f"Received: keys {sorted(parts)}"
            )
        self._check_rate(parts.pop("sampling_rate", None))
        x, mask = self._shapes().read(parts.pop(self.key))
        if parts.get("padding_mask") is not None:
            mask = mask & self._checked_mask(parts["padding_mask"], mask.shape)
        parts.pop("padding_mask", None)
        lengths = mask.sum(axis=1)
        if not mask.shape[1]:
            return {}, lengths
        parts = {name: self._argument(value) for name, value in parts.items() if value is not None}
        inputs = self._preprocessed({self.key: x, "padding_mask": mask, **parts})
        mask = inputs["padding_mask"]
        if not self.tokens:
            self._check_finite(inputs[self.key], mask)
        return inputs, mask.sum(axis=1)

    def _check_rate(self, rate):
        """Raises a `ValueError` for samples of a rate that the model does not read."""
        if rate is None:
            return
        reader = self.task.preprocessor
        resamples = getattr(reader, "resample", None) is True and reader.sampling_rate is not None
        if resamples and (to_numpy(rate) != reader.sampling_rate).any():
            raise ValueError(
                f"`chunk` must have the sampling rate of the model, {reader.sampling_rate:g}: "
                "resampling looks at what follows. Or let the model read the other rate by its "
                "`step_scale`, with a preprocessor of resample='step_scale'. "
                f"Received: sampling_rate={rate}"
            )
        none = np.zeros((self.batch_size, 1), "float32")
        inputs = self.task.read_inputs({self.key: none, "sampling_rate": rate})
        if "sampling_rate" in inputs:
            raise ValueError(
                "'sampling_rate' needs a preprocessor that knows the rate of the model. "
                f"Received: sampling_rate={rate}, preprocessor={reader}"
            )

    def _preprocessed(self, parts):
        preprocessor = self.task.preprocessor
        if isinstance(preprocessor, SequencePreprocessor):
            own_keys = {self.key, "padding_mask", "timesteps"}
            inputs = preprocessor.call({k: v for k, v in parts.items() if k in own_keys})
            inputs.update((k, v) for k, v in parts.items() if k not in own_keys)
        elif preprocessor is None or self._reads_ids():
            inputs = parts
        else:
            plain = set(parts) == {self.key, "padding_mask"} and parts["padding_mask"].all()
            inputs = self.task.preprocess(parts[self.key] if plain else parts)[0]
        inputs = {name: to_numpy(value) for name, value in self.task.standardize(inputs).items()}
        inputs["padding_mask"] = inputs["padding_mask"].astype(bool)
        return inputs

    def _reads_ids(self):
        """Whether token ids pass the preprocessor by, as those of a language model do."""
        return hasattr(self.task.preprocessor, "generate_preprocess")

    def _shapes(self):
        preprocessor = self.task.preprocessor
        plain = isinstance(preprocessor, SequencePreprocessor)
        same_features = (
            preprocessor is None or self._reads_ids() or (plain and not preprocessor.mono)
        )
        # Else the preprocessor makes the features.
        features = self.task.backbone.input_dim if same_features else None
        return ChunkShapes(self.batch_size, features, self.tokens, self.tokens and plain)

    def _argument(self, value):
        """A further argument of every step, with an axis of rows."""
        if isinstance(value, (list, tuple)) and np.ndim(value[0]) > 0:
            return value
        value = to_numpy(value)
        if self.batch_size == 1:
            return value.reshape(1, -1) if value.ndim < 2 else value
        return value[:, None] if value.ndim == 1 else value

    def _checked_mask(self, mask, shape):
        mask = to_numpy(mask).astype(bool)
        mask = mask[None] if mask.ndim == 1 and self.batch_size == 1 else mask
        if mask.shape != shape:
            raise ValueError(
                f"`padding_mask` of a chunk must have shape {shape}. "
                f"Received: padding_mask.shape={mask.shape}"
            )
        if (mask[:, 1:] > mask[:, :-1]).any():
            raise ValueError(
                "`padding_mask` of a chunk must pad on the right: a stream has no steps that are "
                "missing between others. Received: a mask with valid steps after masked ones"
            )
        return mask

    def _check_finite(self, x, mask):
        if np.isfinite(x).all():
            return
        wrong = ~np.isfinite(x).reshape(*x.shape[:2], -1).all(axis=2) & mask
        if wrong.any():
            row, step = (int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(
                "`chunk` must hold finite numbers: a state would not recover from others, which "
                "a preprocessor with `allow_nan` reads as zero. "
                f"Received: {x[row, step]} in row {row}, step {step}"
            )
