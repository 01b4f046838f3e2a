"""What comes into a stream, as the inputs of its model."""

import numpy as np

from keras_ssm.models.sequence_preprocessor import SequencePreprocessor
from keras_ssm.models.trainer.targets import to_numpy

TEXTS = (str, bytes)


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
        given = dict(chunk) if isinstance(chunk, dict) else {self.key: chunk}
        if self.key not in given:
            raise ValueError(
                f"`chunk` must be what comes next, or a dict with {self.key!r}. "
                f"Received: keys {sorted(given)}"
            )
        rows = self._rows(given.pop(self.key))
        ragged = isinstance(rows, list)
        x, mask = self._padded(rows) if ragged else (self._with_batch(rows), None)
        if mask is None:
            mask = np.ones(x.shape[:2], bool)
        if given.get("padding_mask") is not None:
            mask = mask & self._checked_mask(given["padding_mask"], mask.shape)
        given.pop("padding_mask", None)
        lengths = mask.sum(axis=1)
        if not mask.shape[1]:
            return {}, lengths
        given = {name: self._argument(value) for name, value in given.items() if value is not None}
        inputs = self._preprocessed({self.key: x, "padding_mask": mask, **given})
        mask = inputs["padding_mask"]
        if not self.tokens:
            self._check_finite(inputs[self.key], mask)
        return inputs, mask.sum(axis=1)

    def _preprocessed(self, given):
        preprocessor = self.task.preprocessor
        if isinstance(preprocessor, SequencePreprocessor):
            known = {self.key, "padding_mask", "timesteps"}
            inputs = preprocessor.call({k: v for k, v in given.items() if k in known})
            inputs.update((k, v) for k, v in given.items() if k not in known)
        elif preprocessor is None or self._reads_ids():
            inputs = given
        else:
            plain = set(given) == {self.key, "padding_mask"} and given["padding_mask"].all()
            inputs = self.task.preprocess(given[self.key] if plain else given)[0]
        inputs = {name: to_numpy(value) for name, value in self.task.standardize(inputs).items()}
        inputs["padding_mask"] = inputs["padding_mask"].astype(bool)
        return inputs

    def _reads_ids(self):
        """Whether token ids pass the preprocessor by, as those of a language model do."""
        return hasattr(self.task.preprocessor, "generate_preprocess")

    # Shapes

    def _rows(self, x):
        """A list of rows, or an array."""
        if isinstance(x, TEXTS):
            x = [x]
        if isinstance(x, (list, tuple)) and any(isinstance(row, TEXTS) for row in x):
            if not self.tokens or not isinstance(self.task.preprocessor, SequencePreprocessor):
                raise ValueError(
                    "`chunk` must hold numbers: which tokens a text has may depend on what "
                    f"follows, so a stream takes their ids. Received: {x[0]!r}"
                )
            x = [np.frombuffer(r.encode() if isinstance(r, str) else r, np.uint8) for r in x]
        elif not isinstance(x, (list, tuple)):
            x = to_numpy(x)
            if x.dtype != object:
                return x
            x = list(x)
        elif self.batch_size == 1 and (len(x) != 1 or np.ndim(x[0]) == 0):
            return to_numpy(x)  # the steps of the one row
        if len(x) != self.batch_size or any(np.ndim(row) == 0 for row in x):
            if len(x) == self.batch_size:
                return to_numpy(x)  # one number for each row
            raise self._other(f"a list of {len(x)}")
        return [to_numpy(row) for row in x]

    def _padded(self, rows):
        width = None if self.tokens else self._features()
        for i, row in enumerate(rows):
            if row.ndim == 1 and width is not None:
                rows[i] = row[:, None] if width == 1 or not row.size else row[None]
                if row.size == 0:
                    rows[i] = np.zeros((0, width), row.dtype)
        shapes = {row.shape[1:] for row in rows}
        if len(shapes) != 1 or (width is not None and shapes != {(width,)}):
            raise self._other(f"rows of shapes {[row.shape for row in rows]}")
        steps = max(len(row) for row in rows)
        kind = np.result_type(*rows)
        padded = np.zeros((len(rows), steps, *shapes.pop()), kind)
        for place, row in zip(padded, rows, strict=True):
            place[: len(row)] = row
        return padded, np.arange(steps) < np.array([[len(row)] for row in rows])

    def _with_batch(self, x):
        """An array as `(batch, steps, features)`, or `(batch, steps)` for token ids."""
        batch, shape, features = self.batch_size, x.shape, self._features()
        if features is None:  # a preprocessor of one's own makes them of whatever it takes
            if x.ndim < 2 or len(x) != batch:
                raise self._other(f"shape {shape}")
            return x
        if self.tokens or (features == 1 and x.ndim < 3):
            if x.ndim == 0 or (x.ndim == 1 and batch == 1):
                x = x.reshape(1, -1)
            elif x.ndim == 1:
                x = x[:, None]
            elif not self.tokens and batch == 1 and shape[1] == 1:
                x = x.reshape(1, -1)
            fits = x.ndim == 2 and len(x) == batch
            x = x if self.tokens or not fits else x[..., None]
        else:
            if x.ndim == 1:
                x = x[None]
            if x.ndim == 2:
                x = x[None] if batch == 1 else x[:, None]
            fits = x.ndim == 3 and len(x) == batch and x.shape[2] == features
        if not fits:
            raise self._other(f"shape {shape}")
        return x

    def _features(self):
        own = self.task.preprocessor
        if own is None or isinstance(own, SequencePreprocessor) or self._reads_ids():
            return self.task.backbone.input_dim
        return None

    def _argument(self, value):
        """What goes with every step, with an axis of rows."""
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

    def _other(self, received):
        features = "" if self.tokens else f", {self._features() or 'features'}"
        return ValueError(
            f"`chunk` must have shape ({self.batch_size}, steps{features}), or be a list of "
            f"{self.batch_size} rows. Received: {received}"
        )
