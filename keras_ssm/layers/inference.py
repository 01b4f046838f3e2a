"""Calls of inner layers: by Keras on sequences, and without its overhead in a single step."""

import keras

from keras_ssm.layers.exact_layers import EXACT


def applied(training):
    """Returns the function that calls a layer on a sequence in this phase of training."""
    if training is None:
        return lambda layer, x: layer(x)
    return lambda layer, x: layer(x, training=training)


def infer(layer, x):
    """Applies a layer at inference, to a tensor that the layer around it has checked.

    A call of Keras looks for masks, losses, casts and the phase of training first. That takes
    several times as long as a step. The call is left to Keras where one of these matters.
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    plain = (
        layer.built
        and layer.compute_dtype in EXACT
        and (dtype == layer.compute_dtype or "int" in dtype)
        and layer.quantization_mode is None
        and not isinstance(x, keras.KerasTensor)
        and keras.distribution.distribution() is None
    )
    return layer.call(x) if plain else layer(x, training=False)
