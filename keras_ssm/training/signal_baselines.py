"""Classifiers of signals of other kinds: of a waveform, of its log-mel bands, of heart beats."""

import keras
import numpy as np
from keras import ops
from keras.layers import LSTM, BatchNormalization, Conv1D, Dense, Dropout, GlobalAveragePooling1D

from keras_ssm.training.baselines import masked_inputs
from keras_ssm.types import Tensor

RATE, FRAME, HOP, BANDS = 8000, 200, 80, 40


@keras.saving.register_keras_serializable(package="keras_ssm")
class LogMel(keras.layers.Layer):
    """Logarithms of the power in 40 mel bands, in frames of 25 ms every 10 ms, at 8,000 Hz.

    Call arguments:
        x: float tensor `(batch, length, 1)` from -1 to 1.

    Returns:
        Tensor `(batch, frames, 40)`.

    Example:
        ```python
        y = keras_ssm.training.LogMel()(np.zeros((1, 8000, 1), "float32"))  # (1, 98, 40)
        ```
    """

    def build(self, input_shape):
        hertz = np.fft.rfftfreq(FRAME, 1 / RATE)
        angles = 2 * np.pi * np.outer(np.arange(FRAME), hertz / RATE)
        window = np.hanning(FRAME)[:, None]
        self.waves = np.concatenate([window * np.cos(angles), window * np.sin(angles)], axis=1)
        mel = 2595 * np.log10(1 + hertz / 700)
        edges = np.linspace(0, mel[-1], BANDS + 2)
        rising = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
        falling = (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])
        self.filters = np.clip(np.minimum(rising, falling), 0, None).astype("float32")
        self.waves = self.waves[:, None].astype("float32")
        self.built = True

    def call(self, x: Tensor) -> Tensor:
        parts = ops.conv(x, ops.convert_to_tensor(self.waves), strides=HOP, padding="valid")
        real, imaginary = ops.split(parts, 2, axis=-1)
        return ops.log(ops.matmul(real**2 + imaginary**2, self.filters) + 1e-4)

    def compute_output_shape(self, input_shape):
        length = input_shape[1]
        return (input_shape[0], None if length is None else (length - FRAME) // HOP + 1, BANDS)


def waveform_cnn(num_classes: int, settings: dict, scale: float = 1.0) -> keras.Model:
    """Returns a convolutional network on the waveform: M5, with a mean over the valid steps.

    Each row is divided by its root mean square over the valid samples first. Without that a loud
    row decides the statistics of its batch, and those of training do not fit single recordings.

    Args:
        num_classes: int. Number of logits.
        settings: dict of `num_layers`, `hidden_dim` and `dropout`.
        scale: float. Factor on the inputs. Defaults to `1.0`.

    Returns:
        A `keras.Model`, not compiled, of a dict of `inputs` and `padding_mask`.

    Example:
        ```python
        settings = {"num_layers": 4, "hidden_dim": 32, "dropout": 0.1}
        model = keras_ssm.training.waveform_cnn(10, settings)
        ```

    Reference:
        [M5](https://arxiv.org/abs/1610.00087), table 1.
    """
    inputs, x, valid = _inputs(scale)
    power = ops.sum(x**2, axis=1, keepdims=True) / ops.maximum(ops.sum(valid, 1, keepdims=True), 1)
    x = x * ops.rsqrt(power + 1e-8)
    x, valid = _layer(x, valid, settings, width=80, stride=4)
    for _ in range(settings["num_layers"] - 1):
        x = keras.layers.MaxPooling1D(4, padding="same")(x)
        valid = keras.layers.MaxPooling1D(4, padding="same")(valid)
        x, valid = _layer(x * valid, valid, settings, width=3)
    return _classifier(inputs, x, valid, num_classes, "waveform_cnn")


def log_mel_cnn(num_classes: int, settings: dict, scale: float = 1.0) -> keras.Model:
    """Returns a convolutional network on `LogMel`, with a mean over the valid frames.

    Args:
        num_classes: int. Number of logits.
        settings: dict of `num_layers`, `hidden_dim` and `dropout`.
        scale: float. Factor on the inputs. Defaults to `1.0`.

    Returns:
        A `keras.Model`, not compiled, of a dict of `inputs` and `padding_mask`.

    Example:
        ```python
        settings = {"num_layers": 4, "hidden_dim": 32, "dropout": 0.1}
        model = keras_ssm.training.log_mel_cnn(10, settings)
        ```
    """
    inputs, x, valid = _log_mel(scale)
    for _ in range(settings["num_layers"]):
        x, valid = _layer(x * valid, valid, settings, width=5)
    return _classifier(inputs, x, valid, num_classes, "log_mel_cnn")


def log_mel_lstm(num_classes: int, settings: dict, scale: float = 1.0) -> keras.Model:
    """Returns an LSTM on `LogMel`; the state after the last valid frame gives the logits.

    Args:
        num_classes: int. Number of logits.
        settings: dict of `num_layers`, `hidden_dim` and `dropout`.
        scale: float. Factor on the inputs. Defaults to `1.0`.

    Returns:
        A `keras.Model`, not compiled, of a dict of `inputs` and `padding_mask`.

    Example:
        ```python
        settings = {"num_layers": 1, "hidden_dim": 32, "dropout": 0.1}
        model = keras_ssm.training.log_mel_lstm(10, settings)
        ```
    """
    inputs, x, valid = _log_mel(scale)
    for i in range(settings["num_layers"]):
        layer = LSTM(settings["hidden_dim"], return_sequences=i < settings["num_layers"] - 1)
        x = Dropout(settings["dropout"])(layer(x, mask=valid[..., 0] > 0))
    return keras.Model(inputs, Dense(num_classes, name="logits")(x), name="log_mel_lstm")


def beat_cnn(input_dim: int, num_classes: int, settings: dict, scale: float = 1.0) -> keras.Model:
    """Returns a convolutional network on a heart beat that is told the times between beats.

    Args:
        input_dim: int. Leads. Rows have two features more, which are the same at every sample:
            seconds since the beat before, and their share of the mean, both over `scale`.
        num_classes: int. Number of logits.
        settings: dict of `num_layers`, `hidden_dim`, `dropout` and, if any, `intervals`: whether
            rows have these two features. `True` without it.
        scale: float. Factor on the inputs. Defaults to `1.0`.

    Returns:
        A `keras.Model`, not compiled, of a dict of `inputs` and `padding_mask`.

    Example:
        ```python
        settings = {"num_layers": 4, "hidden_dim": 32, "dropout": 0.1}
        model = keras_ssm.training.beat_cnn(2, 4, settings)
        ```
    """
    intervals = settings.get("intervals", True)
    inputs, x, valid = _inputs(scale, input_dim + 2 * intervals)
    times, x = x[:, 0, input_dim:], x[..., :input_dim]
    for i in range(settings["num_layers"]):
        x, valid = _layer(x * valid, valid, settings, width=7, stride=1 if i == 0 else 2)
    x = GlobalAveragePooling1D()(x, mask=valid[..., 0] > 0)
    if intervals:
        x = ops.concatenate([x, BatchNormalization()(times)], axis=-1)
    x = Dropout(settings["dropout"])(Dense(settings["hidden_dim"], activation="relu")(x))
    return keras.Model(inputs, Dense(num_classes, name="logits")(x), name="beat_cnn")


def causal_cnn(input_dim: int, num_classes: int, settings: dict, scale: float = 1.0) -> keras.Model:
    """Returns a convolutional network that gives logits at every step and sees what was before.

    A step reads `encoder_width` samples, `encoder_stride` of them new. Each layer doubles the
    distance that it sees back, by dilation.

    Args:
        input_dim: int. Features of a sample.
        num_classes: int. Number of logits.
        settings: dict of `num_layers`, `hidden_dim`, `dropout`, `encoder_width` and
            `encoder_stride`.
        scale: float. Factor on the inputs. Defaults to `1.0`.

    Returns:
        A `keras.Model`, not compiled, of a dict of `inputs` and `padding_mask`, of which the mask
        pads on the right; its outputs are `(batch, length // encoder_stride, num_classes)`.

    Example:
        ```python
        sizes = {"num_layers": 4, "hidden_dim": 32, "encoder_width": 8, "encoder_stride": 4}
        model = keras_ssm.training.causal_cnn(2, 4, {**sizes, "dropout": 0.1})
        ```

    Reference:
        [An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence
        Modeling](https://arxiv.org/abs/1803.01271), section 3.
    """
    inputs, x, _ = _inputs(scale, input_dim)
    width, stride = settings["encoder_width"], settings["encoder_stride"]
    x = ops.pad(x, [[0, 0], [width - stride, 0], [0, 0]])
    x = Conv1D(settings["hidden_dim"], width, strides=stride)(x)
    for i in range(settings["num_layers"]):
        layer = Conv1D(settings["hidden_dim"], 5, padding="causal", dilation_rate=2**i)
        y = ops.relu(layer(keras.layers.LayerNormalization()(x)))
        x = x + Dropout(settings["dropout"])(y)
    x = keras.layers.LayerNormalization()(x)
    return keras.Model(inputs, Dense(num_classes, name="logits")(x), name="causal_cnn")


def _inputs(scale, features=1):
    inputs = masked_inputs(features)
    valid = ops.expand_dims(ops.cast(inputs["padding_mask"], "float32"), -1)
    return inputs, keras.layers.Rescaling(scale)(inputs["inputs"]) * valid, valid


def _log_mel(scale):
    inputs, x, valid = _inputs(scale)
    x = ops.pad(x, [[0, 0], [0, FRAME - 1], [0, 0]])  # a short row has a frame as well
    return inputs, BatchNormalization()(LogMel()(x)), valid[:, ::HOP]


def _layer(x, valid, settings, width, stride=1):
    x = Conv1D(settings["hidden_dim"], width, strides=stride, padding="same")(x)
    valid = valid[:, ::stride]
    x = BatchNormalization()(x, mask=valid[..., 0] > 0)
    return Dropout(settings["dropout"])(ops.relu(x)), valid


def _classifier(inputs, x, valid, num_classes, name):
    x = GlobalAveragePooling1D()(x, mask=valid[..., 0] > 0)
    return keras.Model(inputs, Dense(num_classes, name="logits")(x), name=name)
