"""Projections that start as PyTorch's linear layers do, as published models have them."""

import keras
from keras import ops

from keras_ssm.initializers.mamba import fan_in_uniform
from keras_ssm.layers.exact_layers import Dense


def fan_in_dense(name, inputs, outputs, use_bias, rng, dtype, scale=1.0):
    """Returns a built `Dense` whose initial values are NumPy's, equal on every backend.

    Args:
        name: str. Name of the layer.
        inputs, outputs: int. Its sizes.
        use_bias: bool.
        rng: `numpy.random.Generator`.
        dtype: dtype policy.
        scale: float. Factor on the initial kernel.
    """
    values = {"kernel": scale * fan_in_uniform((inputs, outputs), inputs, rng)}
    if use_bias:
        values["bias"] = fan_in_uniform((outputs,), inputs, rng)
    dense = Dense(
        outputs,
        use_bias=use_bias,
        dtype=dtype,
        name=name,
        **{f"{key}_initializer": constant(value) for key, value in values.items()},
    )
    dense.build((None, inputs))
    # Else the layer would hold its initial values in memory, twice as large as its weights.
    dense.kernel_initializer = keras.initializers.GlorotUniform()
    dense.bias_initializer = keras.initializers.Zeros()
    if use_bias:
        dense.bias.optimizer_group = "undecayed"
    return dense


def constant(value):
    """An initializer of these values."""

    def initializer(shape, dtype=None):
        exact = "float64" if dtype == "float64" else "float32"
        return ops.cast(ops.convert_to_tensor(value.astype(exact)), dtype)

    return initializer
