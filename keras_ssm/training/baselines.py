"""Classifiers of other kinds, as large as one likes, beside which a recipe puts its own."""

import keras
from keras.layers import (
    LSTM,
    BatchNormalization,
    Bidirectional,
    Conv1D,
    Dense,
    Dropout,
    GlobalAveragePooling1D,
    Rescaling,
)


def lstm(input_dim: int, num_classes: int, settings: dict, scale: float = 1.0) -> keras.Model:
    """Returns an LSTM that reads rows of any length; its last valid state gives the logits.

    Args:
        input_dim: int. Features of a sample.
        num_classes: int. Number of logits.
        settings: dict of `num_layers`, `hidden_dim`, `dropout` and, if any, `bidirectional`.
        scale: float. Factor on the inputs. Defaults to `1.0`.

    Returns:
        A `keras.Model`, not compiled, of a dict of `inputs` and `padding_mask`.

    Example:
        ```python
        settings = {"num_layers": 1, "hidden_dim": 32, "dropout": 0.1}
        model = keras_ssm.training.lstm(12, 9, settings)
        ```
    """
    inputs = masked_inputs(input_dim)
    x, mask = Rescaling(scale)(inputs["inputs"]), inputs["padding_mask"]
    for i in range(settings["num_layers"]):
        layer = LSTM(settings["hidden_dim"], return_sequences=i < settings["num_layers"] - 1)
        layer = Bidirectional(layer) if settings.get("bidirectional") else layer
        x = Dropout(settings["dropout"])(layer(x, mask=mask))
    return keras.Model(inputs, Dense(num_classes, name="logits")(x), name="lstm")


def cnn(input_dim: int, num_classes: int, settings: dict, scale: float = 1.0) -> keras.Model:
    """Returns a convolutional network over time; the mean over the valid steps gives the logits.

    Each layer doubles the distance that it sees, by dilation, so that a row keeps its steps.

    Args:
        input_dim: int. Features of a sample.
        num_classes: int. Number of logits.
        settings: dict of `num_layers`, `hidden_dim`, `dropout` and, if any, `kernel_size`.
        scale: float. Factor on the inputs. Defaults to `1.0`.

    Returns:
        A `keras.Model`, not compiled, of a dict of `inputs` and `padding_mask`.

    Example:
        ```python
        settings = {"num_layers": 3, "hidden_dim": 32, "dropout": 0.1}
        model = keras_ssm.training.cnn(12, 9, settings)
        ```
    """
    inputs = masked_inputs(input_dim)
    x, mask = Rescaling(scale)(inputs["inputs"]), inputs["padding_mask"]
    valid = keras.ops.expand_dims(keras.ops.cast(mask, "float32"), -1)
    for i in range(settings["num_layers"]):
        width = settings.get("kernel_size", 5)
        layer = Conv1D(settings["hidden_dim"], width, padding="same", dilation_rate=2**i)
        x = BatchNormalization()(layer(x * valid), mask=mask)
        x = Dropout(settings["dropout"])(keras.ops.relu(x))
    x = GlobalAveragePooling1D()(x, mask=mask)
    return keras.Model(inputs, Dense(num_classes, name="logits")(x), name="cnn")


def masked_inputs(input_dim):
    """The inputs that a `SequencePreprocessor` makes, as those of a functional model."""
    return {
        "inputs": keras.Input((None, input_dim), name="inputs"),
        "padding_mask": keras.Input((None,), dtype="bool", name="padding_mask"),
    }


BASELINES = {"lstm": lstm, "cnn": cnn}
