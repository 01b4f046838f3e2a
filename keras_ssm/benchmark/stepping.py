"""Functions of weights and inputs as compiled forward passes and training steps."""

import keras
import numpy as np

from keras_ssm.ops import backend

BACKEND = keras.config.backend()


def passes(function, weights, x, cotangent):
    """Returns two functions without arguments: a forward pass, and one with all gradients.

    They are compiled the way `keras.Model.fit` compiles on this backend by itself: by XLA on
    JAX, as a graph on TensorFlow (with XLA where there is a GPU), not at all on PyTorch. Both
    wait for their results. The loss is returned as well: a compiler would otherwise drop the
    forward pass of a layer that computes it again for the gradient.

    Args:
        function: maps a nest of weights and an input to an output.
        weights: nest of arrays, or a `keras.Layer` that `function` calls; it is then handed
            the layer's own weights.
        x: array. The input.
        cotangent: array of the output's shape; the loss is its product with the output, summed.
    """
    maker = {"jax": _jax, "tensorflow": _tensorflow, "torch": _torch}[BACKEND]
    return maker(function, weights, x, cotangent)


def layer_function(layer):
    """A built layer as `function(weights, x)` with the list of its trainable weights."""
    variables = layer.trainable_variables

    def function(values, x):
        if not backend.is_stateless():
            return layer(x)
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return layer(x)

    return function, [v.value for v in variables]


def _jax(function, weights, x, cotangent):
    import jax
    import jax.numpy as jnp

    weights, x, cotangent = jax.tree.map(jnp.asarray, (weights, x, cotangent))
    forward = jax.jit(function)

    def loss(weights, x, cotangent):
        return jnp.sum(function(weights, x) * cotangent)

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))

    def waiting(program, *arguments):
        function = lambda: jax.block_until_ready(program(*arguments))
        function.compiled = lambda: program.lower(*arguments).compile()
        return function

    return waiting(forward, weights, x), waiting(step, weights, x, cotangent)


def _tensorflow(function, weights, x, cotangent):
    import tensorflow as tf

    xla = bool(tf.config.list_physical_devices("GPU"))
    weights = tf.nest.map_structure(
        lambda v: v if isinstance(v, tf.Variable) else tf.Variable(v), weights
    )
    x, cotangent = tf.constant(x), tf.constant(cotangent)
    forward = tf.function(lambda x: function(weights, x), jit_compile=xla)

    @tf.function(jit_compile=xla)
    def step(x, cotangent):
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = function(weights, x)
            # A gradient of a real loss is not there before the output: this one would be, and be
            # carried through the last product, whose result then lies idle in memory.
            with tf.control_dependencies([output]):
                upstream = tf.identity(cotangent)
            loss = tf.reduce_sum(output * upstream)
        return loss, tape.gradient(loss, [weights, x])

    return lambda: _finish(forward(x)), lambda: _finish(step(x, cotangent))


def _finish(values):
    import tensorflow as tf

    return tf.nest.map_structure(lambda v: v.numpy() if v.shape.rank == 0 else v, values)


def _torch(function, weights, x, cotangent):
    import torch

    device = keras.ops.zeros(()).device

    def leaf(value):
        if isinstance(value, torch.Tensor):
            return value
        return torch.from_numpy(np.asarray(value)).to(device).requires_grad_()

    weights = keras.tree.map_structure(leaf, weights)
    x, cotangent = leaf(x), torch.from_numpy(cotangent).to(device)
    leaves = [*keras.tree.flatten(weights), x]

    def forward():
        with torch.no_grad():
            y = function(weights, x)
        return _wait(y)

    def step():
        loss = torch.sum(function(weights, x) * cotangent)
        return _wait((loss, torch.autograd.grad(loss, leaves, allow_unused=True)))

    return forward, step


def _wait(values):
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return values
