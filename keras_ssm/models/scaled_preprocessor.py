from typing import Self

import keras
from keras_hub.models import Preprocessor

from keras_ssm.attributes import Attributes
from keras_ssm.checks import check_flags, check_number
from keras_ssm.keras_internals import brief_errors
from keras_ssm.models.saving.preset_loading import opened
from keras_ssm.types import PathLike


class ScaledPreprocessor(Attributes, Preprocessor):
    """Base class of the preprocessors of numbers: a scale, missing values, presets.

    A subclass sets `scale` and `allow_nan`, and makes the inputs of the model in `_inputs`.
    """

    tokenizer = audio_converter = image_converter = video_converter = None  # not needed
    scale_can_be_none = False

    # Read anew for each batch: a new value acts from the next batch on.

    @property
    def scale(self):
        """Factor on the numbers."""
        return self._scale

    @scale.setter
    def scale(self, value):
        if value is not None or not self.scale_can_be_none:
            check_number("scale", value)
            if not 1e-12 <= abs(value) <= 1e12:  # outside, float32 inputs vanish or overflow
                raise ValueError(
                    f"`scale` must lie between 1e-12 and 1e12. Received: scale={value}"
                )
        self._scale = value

    @property
    def allow_nan(self):
        """Whether NaN is read as zero."""
        return self._allow_nan

    @allow_nan.setter
    def allow_nan(self, value):
        check_flags(allow_nan=value)
        self._allow_nan = value

    def call(self, x: object, y: object = None, sample_weight: object = None) -> dict | tuple:
        with brief_errors():
            inputs = self._inputs(x)
        return keras.utils.pack_x_y_sample_weight(inputs, y, sample_weight)

    @classmethod
    def from_preset(cls, preset: PathLike, revision: str | None = None, **kwargs) -> Self:
        """Loads the preprocessor of a preset; see `SSMClassifier.from_preset`."""
        with opened(preset, revision) as files:
            return super().from_preset(str(files.directory), **kwargs)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale, "allow_nan": self.allow_nan}

    def _inputs(self, x):
        """The inputs of the model, a dict."""
        raise NotImplementedError
