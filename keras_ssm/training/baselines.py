"""Classifiers of other kinds, of any size, with which a recipe compares its own."""

import keras
from keras.layers import (
    LSTM,
    BatchNormalization,
    Bidirectional,
    Conv1D,
    Dense,
    Dropout,
    Embedding,
    GlobalAveragePooling1D,
    Rescaling,
)


def lstm(
    input_dim: int,
    num_classes: int,
    settings: dict,
    scale: float = 1.0,
    vocabulary_size: int | None = None,
) -> keras.Model:
    """Returns an LSTM that reads rows of any length; its last valid state gives the logits.

    Args:
        input_dim: int. Features of a sample.
        num_classes: int. Number of logits.
        settings: dict of `num_layers`, `hidden_dim`, `dropout` and, if any, `bidirectional`.
        scale: float. Factor on the inputs. Defaults to `1.0`.
        vocabulary_size: int or `None`. For rows of token ids below it, which are embedded, in
            place of samples. Defaults to `None`.

    Returns:
        A `keras.Model`, not compiled, of a dict of `inputs`, or `token_ids`, and `padding_mask`.

    Example:
        ```python
        settings = {"num_layers": 1, "hidden_dim": 32, "dropout": 0.1}
        model = keras_ssm.training.lstm(12, 9, settings)
        ```
    """
    inputs, x, mask = _read(input_dim, scale, vocabulary_size, settings["hidden_dim"])
    for i in range(settings["num_layers"]):
        layer = LSTM(settings["hidden_dim"], return_sequences=i < settings["num_layers"] - 1)
        layer = Bidirectional(layer) if settings.get("bidirectional") else layer
        x = Dropout(settings["dropout"])(layer(x, mask=mask))
    return keras.Model(inputs, Dense(num_classes, name="logits")(x), name="lstm")


def cnn(
    input_dim: int,
    num_classes: int,
    settings: dict,
    scale: float = 1.0,
    vocabulary_size: int | None = None,
) -> keras.Model:
    """Returns a convolutional network over time; the mean over the valid steps gives the logits.

    Each layer doubles the distance that it sees, by dilation, so that a row keeps its steps.

    Args:
        input_dim: int. Features of a sample.
        num_classes: int. Number of logits.
        settings: dict of `num_layers`, `hidden_dim`, `dropout` and, if any, `kernel_size`.
        scale: float. Factor on the inputs. Defaults to `1.0`.
        vocabulary_size: int or `None`. For rows of token ids below it, which are embedded, in
            place of samples. Defaults to `None`.

    Returns:
        A `keras.Model`, not compiled, of a dict of `inputs`, or `token_ids`, and `padding_mask`.

    Example:
        ```python
        settings = {"num_layers": 3, "hidden_dim": 32, "dropout": 0.1}
        model = keras_ssm.training.cnn(12, 9, settings)
        ```
    """
    inputs, x, mask = _read(input_dim, scale, vocabulary_size, settings["hidden_dim"])
    valid = keras.ops.expand_dims(keras.ops.cast(mask, "float32"), -1)
    for i in range(settings["num_layers"]):
        width = settings.get("kernel_size", 5)
        layer = Conv1D(settings["hidden_dim"], width, padding="same", dilation_rate=2**i)
        x = BatchNormalization()(layer(x * valid), mask=mask)
        x = Dropout(settings["dropout"])(keras.ops.relu(x))
    x = GlobalAveragePooling1D()(x, mask=mask)
    return keras.Model(inputs, Dense(num_classes, name="logits")(x), name="cnn")


def _read(input_dim, scale, vocabulary_size, units):
    """The inputs, the tensor that the first layer reads, and the mask."""
    inputs = masked_inputs(input_dim)
    if vocabulary_size is None:
        return inputs, Rescaling(scale)(inputs["inputs"]), inputs["padding_mask"]
    ids = keras.Input((None,), dtype="int32", name="token_ids")
    inputs = {"token_ids": ids, "padding_mask": inputs["padding_mask"]}
    return inputs, Embedding(vocabulary_size, units)(ids), inputs["padding_mask"]


def masked_inputs(input_dim):
    """The inputs that a `SequencePreprocessor` makes, as those of a functional model."""
    return {
        "inputs": keras.Input((None, input_dim), name="inputs"),
        "padding_mask": keras.Input((None,), dtype="bool", name="padding_mask"),
    }


BASELINES = {"lstm": lstm, "cnn": cnn}
