import keras
import numpy as np

from keras_ssm.checks import check_flags, check_positive
from keras_ssm.models.model_timesteps import padded_timesteps
from keras_ssm.models.sampled_inputs import SampledInputs
from keras_ssm.models.saving.preset_loading import tokenizer_of
from keras_ssm.models.scaled_preprocessor import ScaledPreprocessor
from keras_ssm.models.ssm_backbone import SSMBackbone
from keras_ssm.models.tensorflow_inputs import TensorFlowInputs
from keras_ssm.models.trainer.finite_inputs import is_tensorflow
from keras_ssm.models.trainer.targets import to_numpy
from keras_ssm.signals.read_wav import full_scale


@keras.saving.register_keras_serializable(package="keras_ssm")
class SequencePreprocessor(SampledInputs, TensorFlowInputs, ScaledPreprocessor):
    """Turns what a person has into the inputs of a model.

    Arrays, lists of arrays of different lengths, sound files, integer audio or pixels, and text
    become a dict of a padded array and its `padding_mask`. It works on NumPy data and on `tf.data`.

    Args:
        tokens: bool. Whether the model reads token ids. Strings become their UTF-8 bytes, 0
            to 255. Defaults to `False`: floats.
        scale: float. Factor on float inputs: `1 / 255` for pixels, `1 / 32768` for 16-bit
            audio. Integers are accepted and become floats. Defaults to `1.0`. With a
            `sampling_rate` 1.0 stands for the full range: int16, int32 and uint8 samples, and those
            of files, then lie from -1 to 1. Another scale is the factor on arrays as they are,
            floats among them, and samples of files count as 16-bit integers.
        sequence_length: int or `None`. If set, longer sequences are cut and shorter ones
            padded to it; otherwise a batch is as long as its longest sequence.
        allow_nan: bool. Whether NaN marks missing values, which are read as zero. Defaults to
            `False`: `fit` and `evaluate` refuse NaN outside of padding.
        sampling_rate: float or `None`. Samples a second that the model reads. Files, and data
            that come with a `sampling_rate`, are compared with it; other arrays count as samples
            of that rate. Defaults to `None`: rates and files are refused.
        resample: bool or str. What happens to data of another rate: `True` resamples them,
            `False` refuses them, and `"step_scale"` leaves them as they are for a model whose
            `step_scale` fits, which a task checks. Defaults to `True`.
        normalize: str or `None`. `"peak"` divides each row by its largest size, `"standard"` takes
            the mean of each feature away and divides by its standard deviation, both over the
            valid steps of the row that `sequence_length` leaves; missing values count in neither.
            Defaults to `None`.
        mono: bool. Whether the features of a row, such as the channels of a stereo file, are
            averaged into one. Defaults to `False`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: array `(batch, length, features)` or, for one feature or tokens, `(batch, length)`;
            a list of arrays `(length, features)` or `(length,)`; a list of paths of sound files
            (see `keras_ssm.signals.read_wav`); a list of strings (tokens);
            or a dict of `inputs` or `token_ids` and, optionally, `padding_mask`, `timesteps`:
            `(batch, length)` or a list of arrays `(length,)`, for backbones that read samples at
            irregular times, and `sampling_rate`, a number or one for each row.
        y, sample_weight: passed through.

    Returns:
        Dict of `inputs` or `token_ids`, `padding_mask` and, if given, `timesteps`, packed with
        `y` and `sample_weight` if given.

    Raises:
        ValueError: for empty input, arrays of unlike feature counts, non-integers as tokens,
            or a `padding_mask` of another shape.

    Example:
        ```python
        preprocessor = keras_ssm.models.SequencePreprocessor(scale=1 / 32768)
        clips = [np.zeros(8000, "int16"), np.zeros(5000, "int16")]
        batch = preprocessor(clips)  # inputs (2, 8000, 1), padding_mask (2, 8000)
        ```
    """

    backbone_cls = SSMBackbone
    settable = (
        *("tokens", "scale", "sequence_length", "allow_nan"),
        *("sampling_rate", "resample", "normalize", "mono"),
    )

    def __init__(
        self,
        tokens: bool = False,
        scale: float = 1.0,
        sequence_length: int | None = None,
        allow_nan: bool = False,
        sampling_rate: float | None = None,
        resample: bool | str = True,
        normalize: str | None = None,
        mono: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.tokens = tokens
        self.scale = scale
        self.sequence_length = sequence_length
        self.allow_nan = allow_nan
        self.sampling_rate = sampling_rate
        self.resample = resample
        self.normalize = normalize
        self.mono = mono
        self.built = True

    @property
    def tokens(self):
        """Whether the model reads token ids."""
        return self._tokens

    @tokens.setter
    def tokens(self, value):
        check_flags(tokens=value)
        self._tokens = value

    @property
    def sequence_length(self):
        """Length to which sequences are cut or padded, or `None`."""
        return self._sequence_length

    @sequence_length.setter
    def sequence_length(self, value):
        if value is not None:
            check_positive(sequence_length=value)
        self._sequence_length = value

    def _inputs(self, x):
        key = "token_ids" if self.tokens else "inputs"
        mask = timesteps = None
        x = self.at_own_rate(x)
        if isinstance(x, dict):
            if key not in x or set(x) - {key, "padding_mask", "timesteps"}:
                raise ValueError(
                    f"`x` must be an array, a list or a dict with {key!r} and, optionally, "
                    f"'padding_mask' and 'timesteps'. Received: keys {sorted(x)}"
                )
            x, mask, timesteps = x[key], x.get("padding_mask"), x.get("timesteps")
        convert = self._from_tensorflow if is_tensorflow(x) else self._from_numpy
        x, mask = convert(x, mask)
        inputs = {key: x, "padding_mask": mask}
        if timesteps is not None:
            inputs["timesteps"] = self._timesteps(timesteps, mask)
        return inputs

    @classmethod
    def _add_missing_kwargs(cls, loader, kwargs):
        """Reads tokens where the backbone of a preset does, whose task has another preprocessor."""
        tokenizer = tokenizer_of(loader.preset)
        if tokenizer not in (None, "ByteTokenizer"):  # its ids are the bytes
            raise ValueError(
                f"The texts of preset '{loader.preset}' are read by its tokenizer, which a "
                f"{cls.__name__} has not: pass `preprocessor=None` and token ids. "
                f"Received: a preset with a {tokenizer}"
            )
        vocabulary_size = loader.config.get("config", {}).get("vocabulary_size")
        return {"tokens": vocabulary_size is not None, **kwargs}

    def get_config(self):
        return {
            **super().get_config(),
            "tokens": self.tokens,
            "sequence_length": self.sequence_length,
            **self.sampling_config(),
        }

    def unstreamable_because(self):
        """Why a sequence cannot be read piece by piece, as an error goes on, or `None`."""
        if self.normalize is not None:
            return (
                "brings whole rows to one size, which a stream does not know: scale what goes in, "
                f"or set `normalize` to None. Received: normalize={self.normalize!r}"
            )
        if self.sequence_length is None:
            return None
        return (
            "brings whole sequences to one length, which a stream does not have: set "
            f"`sequence_length` to None. Received: sequence_length={self.sequence_length}"
        )

    def _timesteps(self, timesteps, mask):
        """Times between samples, padded and cut like the inputs."""
        return padded_timesteps(timesteps, mask, self.sequence_length, self._float_dtype())

    def _from_numpy(self, x, mask):
        x = x if isinstance(x, (list, tuple, str, bytes)) else to_numpy(x)
        if isinstance(x, np.ndarray) and x.dtype.kind in "OSU":
            x = list(x)
        if isinstance(x, (str, bytes)):
            raise ValueError(f"`x` must be a batch: a list of strings. Received: x={x!r}")
        if isinstance(x, (list, tuple)):
            rows = [self._row(row) for row in x]
            if not rows or not all(len(row) for row in rows):
                empty = [i for i, row in enumerate(rows) if not len(row)]
                raise ValueError(
                    "`x` must have rows of at least one step. "
                    f"Received: {f'no step in row {empty[0]}' if empty else 'no rows'}"
                )
            for i, row in enumerate(rows):
                if row.shape[1:] != rows[0].shape[1:]:
                    raise ValueError(
                        "All rows of `x` must have the same features. Received: "
                        f"{rows[0].shape[1]} features in row 0, {row.shape[1]} in row {i}"
                    )
            length = max(len(row) for row in rows)
            padded = np.zeros((len(rows), length, *rows[0].shape[1:]), rows[0].dtype)
            lengths = np.array([len(row) for row in rows])
            for row, values in zip(padded, rows, strict=True):
                row[: len(values)] = values
            valid = np.arange(length)[None] < lengths[:, None]
        else:
            if not self.tokens and x.dtype.kind not in "fiub":
                raise ValueError(f"`x` must be real numbers. Received: x.dtype={x.dtype}")
            if self.tokens and x.dtype.kind not in "iu":
                raise ValueError(f"Token ids must be integers. Received: x.dtype={x.dtype}")
            padded = self._values(x)
            if padded.ndim == 2 and not self.tokens:
                padded = padded[..., None]
            if padded.ndim != (2 if self.tokens else 3) or 0 in padded.shape:
                expected = "" if self.tokens else ", features"
                raise ValueError(
                    f"`x` must have shape (batch, length{expected}) with at least one row and "
                    f"step. Received: x.shape={x.shape}"
                )
            valid = np.ones(padded.shape[:2], bool)
        if mask is not None:
            if isinstance(mask, (list, tuple)) and len(mask) == len(valid):
                mask = self._padded_mask(mask, valid)
            mask = to_numpy(mask).astype(bool)
            if mask.shape != valid.shape:
                raise ValueError(
                    f"`padding_mask` must have shape {valid.shape}. "
                    f"Received: padding_mask.shape={mask.shape}"
                )
            valid = valid & mask  # rows of a list have no padding
        if self.sequence_length is not None:
            missing = max(0, self.sequence_length - padded.shape[1])
            edges = [(0, 0), (0, missing)] + [(0, 0)] * (padded.ndim - 2)
            padded = np.pad(padded, edges)[:, : self.sequence_length]
            valid = np.pad(valid, edges[:2])[:, : self.sequence_length]
        return padded if self.tokens else self._sized_batch(padded, valid), valid

    def _padded_mask(self, rows, valid):
        """The masks of a list of rows, as long as these, as one array."""
        padded = np.zeros(valid.shape, bool)
        for i, (row, length) in enumerate(zip(rows, valid.sum(axis=1), strict=True)):
            row = to_numpy(row)
            if row.shape not in ((length,), valid.shape[1:]):
                raise ValueError(
                    f"Row {i} of `padding_mask` must have one entry for each of the {length} "
                    f"steps of its sequence. Received: shape {row.shape}"
                )
            padded[i, : len(row)] = row
        return padded

    def _row(self, row):
        """One sequence of a list, as floats `(length, features)` or ids `(length,)`."""
        if self.tokens and isinstance(row, (str, bytes)):
            row = row.encode() if isinstance(row, str) else row
            return np.frombuffer(row, np.uint8).astype("int32")
        row = to_numpy(row)
        if self.tokens:
            if row.ndim != 1 or row.dtype.kind not in "iu":
                raise ValueError(
                    "Token ids must be one-dimensional integers. "
                    f"Received: shape {row.shape}, dtype {row.dtype}"
                )
            return self._values(row)
        if row.ndim not in (1, 2) or row.dtype.kind not in "fiub":
            raise ValueError(
                "A sequence must be numbers of shape (length,) or (length, features). "
                f"Received: shape {row.shape}, dtype {row.dtype}"
            )
        row = self._values(row)
        row = row[:, None] if row.ndim == 1 else row
        return row.mean(axis=-1, keepdims=True) if self.mono else row

    def _values(self, x):
        """Scaled floats, or ids that do not wrap around into the vocabulary."""
        if self.tokens:
            return x.astype("int64").clip(-1, 2**31 - 1).astype("int32")
        if self.sampling_rate is not None and self.scale == 1.0:
            x = full_scale(x)
        with np.errstate(over="ignore", invalid="ignore"):  # padding may overflow
            x = x.astype(self._float_dtype()) * np.asarray(self.scale, self._float_dtype())
        return x if self.normalize == "standard" else self._filled(x)

    def _float_dtype(self):
        return "float64" if keras.config.floatx() == "float64" else "float32"
