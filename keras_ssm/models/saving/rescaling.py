"""Copies of a model for samples of another rate."""

import math
from fractions import Fraction
from typing import Self

import keras
import numpy as np

from keras_ssm.checks import check_number
from keras_ssm.layers import SSMLayer
from keras_ssm.layers.one_sampling_rate import OneSamplingRate
from keras_ssm.models.sampled_inputs import STEP_SCALE


class Rescales:
    """`rescaled` of backbone and task models."""

    def rescaled(self, step_scale: float | list) -> Self:
        """Returns a copy of the model that reads samples `step_scale` times as far apart.

        It is the way to another sampling rate for the encoder `"conv"`, whose weights are for
        samples of one rate: its stride and width are divided, and the weights of samples that
        become one are added. Where the stride over the factor is a whole number, the outputs for
        inputs that hold still between two samples are those of the model itself. Otherwise the
        stride is rounded, and `step_scale` of the layers makes up for it: they read steps that are
        a little nearer or further apart. For other encoders the copy has the whole factor on its
        `step_scale`.

        Args:
            step_scale: float. 2 for half the sampling rate, 0.8 for five quarters of it. A model
                of images takes one for all axes, or a list of one for each.

        Returns:
            A model with its own weights, compiled with its defaults where this one is compiled. A
            `sampling_rate` of its preprocessor is divided by `step_scale`, unless the preprocessor
            leaves other rates to `step_scale`.

        Raises:
            ValueError: for a factor that is not positive; for layers without a `step_scale`, such
                as `Mamba`, unless the stride over the factor is a whole number.

        Example:
            ```python
            backbone = keras_ssm.models.SSMBackbone(
                keras_ssm.layers.S4D(state_dim=4), 1, hidden_dim=4, encoder="conv", encoder_stride=4
            )
            half = backbone.rescaled(2)
            half.stride  # 2
            ```
        """
        body = getattr(self, "backbone", self)
        if body.axes > 1:
            return self._rescaled_axes(step_scale)
        check_number("step_scale", step_scale, low=1e-6)
        config, factor = body.get_config(), Fraction(step_scale).limit_denominator(1000)
        factor_of_steps = factor
        if body.convolves:
            stride = max(1, round(body.stride / factor))
            config["encoder_stride"] = stride
            config["encoder_width"] = max(2, stride, math.ceil(config["encoder_width"] / factor))
            factor_of_steps = factor * stride / body.stride
            mixers = [block.mixer for block in body.blocks]
            scales = all(
                isinstance(mixer, SSMLayer) and not isinstance(mixer, OneSamplingRate)
                for mixer in mixers
            )
            if factor_of_steps != 1 and not scales:
                raise ValueError(
                    f"`step_scale` must divide the stride of the encoder, {body.stride}, where the "
                    "layers have no `step_scale` to make up for it; a preprocessor with a "
                    f"`sampling_rate` resamples by any factor. Received: step_scale={step_scale}"
                )
        new_body = type(body).from_config(config)
        new = new_body
        if body is not self:
            settings = {**self.get_config(), "compile": False}
            settings["backbone"] = keras.saving.serialize_keras_object(new_body)
            new = type(self).from_config(settings)
            rate = getattr(new.preprocessor, "sampling_rate", None)
            if rate is not None and (body.convolves or new.preprocessor.resample != STEP_SCALE):
                new.preprocessor.sampling_rate = float(rate / factor)
        for weight, target in zip(self.weights, new.weights, strict=True):
            value = keras.ops.convert_to_numpy(weight)
            if weight.shape != target.shape:
                value = _resampled_kernel(value, body.input_dim, factor, target.shape[0])
            target.assign(value)
        if factor_of_steps != 1:
            blocks = getattr(new, "backbone", new).blocks
            for block, other in zip(body.blocks, blocks, strict=True):
                scale = float(keras.ops.convert_to_numpy(block.step_scale))
                other.step_scale = scale * float(factor_of_steps)
        if getattr(self, "compiled", False):
            new.compile()
        return new

    def _rescaled_axes(self, step_scale):
        """A copy of a model of images."""
        uncompiled = {"compile": False} if hasattr(self, "backbone") else {}
        new = type(self).from_config({**self.get_config(), **uncompiled})
        for weight, target in zip(self.weights, new.weights, strict=True):
            target.assign(keras.ops.convert_to_numpy(weight))
        body, other = (getattr(model, "backbone", model) for model in (self, new))
        other.step_scale = step_scale
        for block, copy in zip(body.blocks, other.blocks, strict=True):
            pairs = zip(block.step_scale, copy.step_scale, strict=True)
            copy.step_scale = [float(keras.ops.convert_to_numpy(a * b)) for a, b in pairs]
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
