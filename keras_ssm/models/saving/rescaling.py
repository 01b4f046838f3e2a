"""Copies of a model for samples of another rate."""

import math
from fractions import Fraction
from typing import Self

import keras
import numpy as np

from keras_ssm.checks import check_number


class Rescales:
    """`rescaled` of backbone and task models."""

    def rescaled(self, step_scale: float) -> Self:
        """Returns a copy of the model that reads samples `step_scale` times as far apart.

        It is the way to another sampling rate for the encoder `"conv"`, whose weights are for
        samples of one rate: its stride and width are divided, and the weights of samples that
        become one are added. For inputs that hold still between two samples the outputs are those
        of the model itself. For other encoders the copy has this factor on its `step_scale`.

        Args:
            step_scale: float. 2 for half the sampling rate. With the encoder `"conv"` the stride
                over it must be a whole number.

        Returns:
            A model with its own weights, compiled with its defaults where this one is compiled. A
            `sampling_rate` of its preprocessor is divided by `step_scale`.

        Raises:
            ValueError: for a factor that is not positive or does not divide the stride.

        Example:
            ```python
            backbone = keras_ssm.models.SSMBackbone(
                keras_ssm.layers.S4D(state_dim=4), 1, hidden_dim=4, encoder="conv", encoder_stride=4
            )
            half = backbone.rescaled(2)
            half.stride  # 2
            ```
        """
        check_number("step_scale", step_scale, low=1e-6)
        body = getattr(self, "backbone", self)
        config, factor = body.get_config(), Fraction(step_scale).limit_denominator(1000)
        if body.convolves:
            stride = config["encoder_stride"] / factor
            if stride.denominator != 1 or stride < 1:
                raise ValueError(
                    f"`step_scale` must divide the stride of the encoder, {body.stride}; a "
                    "preprocessor with a `sampling_rate` resamples by any factor. "
                    f"Received: step_scale={step_scale}"
                )
            config["encoder_stride"] = int(stride)
            config["encoder_width"] = max(2, math.ceil(config["encoder_width"] / factor))
        new_body = type(body).from_config(config)
        new = new_body
        if body is not self:
            settings = {**self.get_config(), "compile": False}
            settings["backbone"] = keras.saving.serialize_keras_object(new_body)
            new = type(self).from_config(settings)
            rate = getattr(new.preprocessor, "sampling_rate", None)
            if rate is not None:
                new.preprocessor.sampling_rate = float(rate / factor)
        for weight, target in zip(self.weights, new.weights, strict=True):
            value = keras.ops.convert_to_numpy(weight)
            if weight.shape != target.shape:
                value = _resampled_kernel(value, body.input_dim, factor, target.shape[0])
            target.assign(value)
        if not body.convolves:
            scale = keras.ops.convert_to_numpy(self.step_scale)
            new.step_scale = float(scale) * float(step_scale)
        if getattr(self, "compiled", False):
            new.compile()
        return new


def _resampled_kernel(kernel, features, factor, size):
    """The weights `(size, units)` for samples that are `factor` times as long, zeros first."""
    taps = kernel.astype("float64").reshape(-1, features, kernel.shape[-1])
    taps = np.repeat(taps, factor.denominator, axis=0) / factor.denominator
    missing = size // features * factor.numerator - len(taps)
    taps = np.pad(taps, [(missing, 0), (0, 0), (0, 0)])
    taps = taps.reshape(-1, factor.numerator, *taps.shape[1:]).sum(axis=1)
    return taps.reshape(-1, kernel.shape[-1]).astype(kernel.dtype)
