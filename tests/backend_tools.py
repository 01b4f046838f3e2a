"""Values and gradients of a function of a layer's weights, on whichever backend runs."""

import importlib

import keras
import numpy as np

from keras_ssm.ops.backend import device_name

BACKEND = keras.config.backend()
ON_GPU = device_name() != "cpu"
# Errors of the GPU kernels of diagonal banks, whose products hold numbers as two of bfloat16.
BY_KERNELS = 2e-5
BACKEND_MODULE = importlib.import_module(f"keras_ssm.ops.backend.{BACKEND}")


def to_numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def relative_error(value, reference):
    """Largest error over the largest reference entry."""
    value, reference = to_numpy(value), to_numpy(reference)
    assert value.shape == reference.shape, (value.shape, reference.shape)
    error, largest = float(np.abs(value - reference).max()), float(np.abs(reference).max())
    return error / max(largest, 1e-300)  # as Python floats: float32 would round the second to zero


def compiled(function):
    """The function under the backend's compiler; eager on PyTorch, which has none by default."""
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    return function


def with_cheap_loops(function):
    """The function compiled on JAX; on TensorFlow op by op, since tracing takes far longer."""
    return function if BACKEND == "tensorflow" else compiled(function)


def gradients(function, layer, *inputs, compile=False):
    """Gradients of a scalar function.

    Args:
        function: maps the tensors `inputs` to a scalar, or to a tuple of it and an output,
            through `layer`.
        layer: `keras.Layer` whose trainable weights count.
        *inputs: NumPy arrays.
        compile: bool or `"loops"`. Whether to compile; `"loops"` where loops gain by it: on JAX.

    Returns:
        Tuple of the value (or the output, where there is one), a dict of weight gradients by
        name (the path, if names are not unique), and a list of input gradients.
    """
    variables = layer.trainable_variables
    names = [v.path.split("/", 1)[-1] for v in variables]
    names = names if len(set(names)) == len(names) else [v.path for v in variables]
    tensors = [keras.ops.convert_to_tensor(x) for x in inputs]

    def both(*tensors):
        found = function(*tensors)
        return found if isinstance(found, tuple) else (found, found)

    by_backend = {"jax": _jax_gradients, "tensorflow": _tf_gradients, "torch": _torch_gradients}
    value, d_weights, d_inputs = by_backend[BACKEND](both, variables, tensors, compile)
    weights = {n: to_numpy(g) for n, g in zip(names, d_weights, strict=True) if g is not None}
    return to_numpy(value), weights, [to_numpy(g) for g in d_inputs]


def _jax_gradients(function, variables, tensors, compile):
    import jax

    def loss(values, tensors):
        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return function(*tensors)

    both = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    both = jax.jit(both) if compile else both
    (_, value), (d_weights, d_inputs) = both([v.value for v in variables], tensors)
    return value, d_weights, d_inputs


def _tf_gradients(function, variables, tensors, compile):
    import tensorflow as tf

    def both(tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            loss, value = function(*tensors)
        values = [v.value for v in variables]
        return value, tape.gradient(loss, [values, tensors], unconnected_gradients="zero")

    both = tf.function(both, jit_compile=True) if compile is True else both
    value, (d_weights, d_inputs) = both(tensors)
    return value, d_weights, d_inputs


def _torch_gradients(function, variables, tensors, compile):
    import torch

    tensors = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in tensors]
    loss, value = function(*tensors)
    values = [v.value for v in variables]
    found = torch.autograd.grad(loss, [*values, *tensors], allow_unused=True)
    return value.detach(), found[: len(values)], [g for g in found[len(values) :] if g is not None]
