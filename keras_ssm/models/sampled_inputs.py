import os
import warnings

import numpy as np

from keras_ssm.checks import check_choice, check_flags, check_number
from keras_ssm.models.trainer.finite_inputs import is_tensorflow
from keras_ssm.models.trainer.targets import to_numpy
from keras_ssm.signals.read_wav import full_scale, read_wav
from keras_ssm.signals.resample import resample

NORMALIZATIONS = (None, "peak", "standard")
STEP_SCALE = "step_scale"


class SampledInputs:
    """What a preprocessor knows of sampling rates: files, resampling, full scale, normalisation."""

    @property
    def sampling_rate(self):
        """Samples a second that the model reads, or `None`."""
        return self._sampling_rate

    @sampling_rate.setter
    def sampling_rate(self, value):
        if value is not None:
            check_number("sampling_rate", value, low=1e-3)
        self._sampling_rate = value

    @property
    def resample(self):
        """What happens to data of another rate."""
        return self._resample

    @resample.setter
    def resample(self, value):
        if value != STEP_SCALE:
            check_flags(resample=value)
        self._resample = value

    @property
    def normalize(self):
        """How each row is brought to the same size."""
        return self._normalize

    @normalize.setter
    def normalize(self, value):
        check_choice("normalize", value, NORMALIZATIONS)
        self._normalize = value

    @property
    def mono(self):
        """Whether the channels of a row are averaged."""
        return self._mono

    @mono.setter
    def mono(self, value):
        check_flags(mono=value)
        self._mono = value

    def at_own_rate(self, x: object, step_scale: float | None = None) -> object:
        """Reads files and brings rows to the preset's sampling rate.

        Args:
            x: what the preprocessor is called with.
            step_scale: float or `None`. That of the model, which must be that of the data where
                `resample="step_scale"`. Defaults to no check.

        Returns:
            The same without paths and without a `sampling_rate`. Data that have neither are
            returned as they are: they count as samples of the preset's rate.
        """
        if self.tokens:
            if changed := self.sampling_config():
                raise ValueError(
                    "Token ids are no samples: a preprocessor of tokens goes without "
                    f"{', '.join(changed)}. Received: tokens=True, {changed}"
                )
            return x
        inputs = dict(x) if isinstance(x, dict) else {"inputs": x}
        rates = inputs.pop("sampling_rate", None)
        rows = inputs.get("inputs")
        if isinstance(rows, np.ndarray) and rows.dtype.kind in "OU":
            rows = list(rows)
        if isinstance(rows, (os.PathLike, str)):
            raise ValueError(f"`x` must be a batch: a list of paths. Received: x={rows!r}")
        self._warn_of_full_scale(rows)
        listed = isinstance(rows, (list, tuple))
        files = listed and any(isinstance(row, (str, os.PathLike)) for row in rows)
        if rates is None and not files:
            return x
        if self.sampling_rate is None:
            needed = "paths of files" if files else "a 'sampling_rate'"
            raise ValueError(
                f"A preprocessor that takes {needed} needs to know at which rate the model reads: "
                "give it a `sampling_rate`. Received: sampling_rate=None"
            )
        if rows is None or is_tensorflow(rows):
            raise ValueError(
                "'sampling_rate' goes with 'inputs' that are arrays, lists or paths. "
                f"Received: keys {sorted(inputs)}"
            )
        count = len(rows)
        rates = [None] * count if rates is None else self._rates(rates, count)
        if files:
            rows = list(rows)
            for i, row in enumerate(rows):
                if isinstance(row, (str, os.PathLike)):
                    rows[i], rates[i] = self._read(row, rates[i])
        rates = [self.sampling_rate if rate is None else rate for rate in rates]
        inputs["inputs"] = self._resampled(rows, rates, inputs, step_scale)
        return inputs if isinstance(x, dict) else inputs["inputs"]

    def _rates(self, rates, count):
        """One rate for each row."""
        rates = to_numpy(rates)
        if rates.ndim == 0:
            rates = np.repeat(rates, count)
        real = rates.dtype.kind in "fiu"
        if rates.shape != (count,) or not real or not (np.isfinite(rates) & (rates > 0)).all():
            raise ValueError(
                "'sampling_rate' must be a positive number, or one for each of the "
                f"{count} rows. Received: sampling_rate={rates.tolist()}"
            )
        return [float(rate) for rate in rates]

    def _read(self, path, stated_rate):
        """Samples of a file in the units of `scale`, and their rate."""
        samples, rate = read_wav(path)
        if stated_rate is not None and stated_rate != rate:
            raise ValueError(
                f"'{path}' must have the 'sampling_rate' that goes with it, {stated_rate:g}. "
                f"Received: a file of {rate} samples a second"
            )
        return (samples if self.scale == 1.0 else samples * np.float32(32768)), float(rate)

    def _resampled(self, rows, rates, inputs, step_scale):
        own = float(self.sampling_rate)
        differing = [rate for rate in rates if rate != own]
        if self.resample == STEP_SCALE:
            self._check_scale(rates, step_scale)
            return rows
        if not differing:
            return rows
        if not self.resample:
            raise ValueError(
                f"The data must have the sampling rate of the model, {own:g}, or the preprocessor "
                f"`resample=True`. Received: {differing[0]:g} in row {rates.index(differing[0])}"
            )
        if inputs.get("timesteps") is not None:
            raise ValueError(
                "`timesteps` tell the time of each sample and cannot go with data that are "
                f"resampled. Received: sampling_rate={differing[0]:g} with timesteps"
            )
        mask = inputs.pop("padding_mask", None)
        if mask is not None:
            rows = _valid(rows, to_numpy(mask).astype(bool))
        resampled = []
        for i, (row, rate) in enumerate(zip(rows, rates, strict=True)):
            row = to_numpy(row)
            row = full_scale(row) if self.scale == 1.0 else row
            if row.ndim not in (1, 2) or not len(row):
                raise ValueError(
                    "A row that is resampled must have shape (length,) or (length, features). "
                    f"Received: shape {row.shape} in row {i}"
                )
            resampled.append(resample(self._filled(row), rate, own))
        return resampled

    def _check_scale(self, rates, step_scale):
        """Raises a `ValueError` unless the model reads at the rate of the data."""
        if len(set(rates)) > 1:
            raise ValueError(
                "With resample='step_scale' all rows must have the same rate, since a model has "
                f"one `step_scale`. Received: rates {sorted(set(rates))}"
            )
        scale = float(self.sampling_rate) / rates[0]
        if step_scale is not None and not np.isclose(scale, step_scale, rtol=1e-5):
            raise ValueError(
                f"Data of {rates[0]:g} samples a second need `model.step_scale = {scale:g}`, "
                f"since the model reads {self.sampling_rate:g} and resample='step_scale'. "
                f"Received: step_scale={step_scale:g}"
            )

    def _sized(self, row):
        """A row of floats `(length, features)` brought to one size."""
        if self.normalize == "peak":
            return row / _or_one(np.abs(row).max())
        if self.normalize == "standard":
            known = ~np.isnan(row) if self.allow_nan else np.ones(row.shape, bool)
            row = np.where(known, row, np.zeros((), row.dtype))
            counted = known | ~known.any(axis=0)  # a feature without any known value is zero
            row = row - row.mean(axis=0, keepdims=True, where=counted)
            row = row / _or_one(row.std(axis=0, keepdims=True, where=counted))
            return np.where(known, row, np.zeros((), row.dtype))
        return row

    def _sized_batch(self, padded, mask):
        """A padded batch, each row brought to one size by its valid steps."""
        if not self.mono and self.normalize is None:
            return padded
        if self.mono:
            padded = padded.mean(axis=-1, keepdims=True)
        if self.normalize is not None:
            padded = padded.copy()
            for row, valid in zip(padded, mask, strict=True):
                if valid.any():
                    row[valid] = self._sized(row[valid])
        return self._filled(padded)

    def _filled(self, x):
        """Zeros in the place of missing values."""
        return np.where(np.isnan(x), np.zeros((), x.dtype), x) if self.allow_nan else x

    def _warn_of_full_scale(self, rows):
        """Warns of floats around 1 where `scale` is for integers and leaves next to nothing."""
        if self.sampling_rate is None or self.normalize or abs(self.scale) > 1 / 127:
            return
        for row in rows if isinstance(rows, (list, tuple)) else [rows]:
            if row is None or isinstance(row, (str, os.PathLike)) or is_tensorflow(row):
                continue
            row = to_numpy(row)
            sizes = np.abs(row[np.isfinite(row)]) if row.dtype.kind == "f" else row[:0]
            if sizes.size and 0 < sizes.max() <= 2 and (sizes % 1 > 0).any():
                warnings.warn(
                    f"Samples around 1 are multiplied by scale={self.scale:g}, which is for "
                    f"integers: multiply them by {1 / self.scale:g} before, or pass integers",
                    stacklevel=2,
                )
                return

    def sampling_config(self):
        """What the configuration says of all this, where it is not the default."""
        defaults = {"sampling_rate": None, "resample": True, "normalize": None, "mono": False}
        return {
            name: getattr(self, name)
            for name, value in defaults.items()
            if getattr(self, name) != value
        }


def _valid(rows, mask):
    """The valid samples of each row, which must not have holes."""
    if isinstance(rows, (list, tuple)) or mask.shape != rows.shape[:2]:
        raise ValueError(
            "Data that are resampled may have a `padding_mask` of their own shape, if they are an "
            f"array. Received: padding_mask.shape={mask.shape}"
        )
    valid_rows = []
    for i, (row, valid) in enumerate(zip(rows, mask, strict=True)):
        places = np.flatnonzero(valid)
        if not len(places) or len(places) != places[-1] - places[0] + 1:
            raise ValueError(
                "Data that are resampled must have no holes, and a valid sample in each row. "
                f"Received: a mask of {len(places)} valid samples in row {i}"
            )
        valid_rows.append(row[valid])
    return valid_rows


def _or_one(size):
    """Sizes to divide by: of silence one."""
    return np.where(size > 0, size, np.ones((), size.dtype))
