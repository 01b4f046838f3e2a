"""Single steps of a stream, compiled the way `docs/streaming.md` shows, beside LSTM cells."""

import os
import shutil

import keras
import numpy as np

from keras_ssm.benchmark.candidates import make
from keras_ssm.benchmark.run import GRIDS
from keras_ssm.benchmark.timing import alternate
from keras_ssm.ops import backend

BACKEND = keras.config.backend()
CALLS, LOOP = 50, 1000  # steps of one measurement: called one by one, and in a compiled loop


def rows(names, seconds, features=128, state=64, layers=6):
    """Yields a dict for each layer: seconds of a step of a stack of batch 1, and of LSTM cells.

    Both stacks are compiled in the same form and run in turn; `ratio` is ours over theirs. The
    form `"step"` is a call for each sample; `"loop"`, on JAX and TensorFlow, a compiled loop.

    Args:
        names: list of str. Layers of the family.
        seconds: float. Time for each function.
        features: int. Width.
        state: int. Size of the state.
        layers: int. Height of the stack.
    """
    for name in names:
        runners = streams(name, features, state, layers)
        lstm_runners = streams("LSTM", features, state, layers)
        for form, (function, steps, compilation) in runners.items():
            times = alternate([function, lstm_runners[form][0]], seconds)
            step, lstm_step = (time / steps for time in times)
            yield {
                "layer": name,
                "form": form,
                "compiled": compilation,
                "features": features,
                "state": state,
                "layers": layers,
                "step": step,
                "lstm": lstm_step,
                "ratio": step / lstm_step,
            }


def single_step(name, features, state, seconds, length=None):
    """Seconds of one step of one layer, of batch 1; `None` for attention and images.

    It is compiled, except on PyTorch, whose compiler takes half a minute for each.
    """
    if name == "MultiHeadAttention" or name in GRIDS:
        return None
    forms = ["step" if backend.uses_xla() else "eager"]
    ((function, steps, _),) = streams(name, features, state, 1, forms, length).values()
    return alternate([function], seconds)[0] / steps


def streams(name, features, state, layers, forms=("step", "loop"), length=None):
    """Functions that run a stack of layers over samples.

    Args:
        name: str. A layer of the family, or `"LSTM"` or `"GRU"`.
        features: int.
        state: int.
        layers: int.
        forms: list of str. Of `"step"`, `"loop"` and, on PyTorch, `"eager"`.
        length: int or `None`. Of the kernel, where a layer holds it.

    Returns:
        Dict of the forms there are on this backend: `(function, steps, how it is compiled)`.
    """
    make_stack = _cells if name in ("LSTM", "GRU") else _systems
    maker = {"jax": _jax, "tensorflow": _tensorflow, "torch": _torch}[BACKEND]
    x = np.random.default_rng(0).standard_normal((LOOP, 1, features)).astype("float32")
    return maker(make_stack, (name, features, state, layers, length), x, forms)


def _systems(name, features, state, layers, length):
    """`step(x, states, systems)` of a stack, its states and its systems."""
    stack = [make(name, features, state, length=length) for _ in range(layers)]
    for layer in stack:
        layer.build((None, None, features))

    def step(x, states, systems):
        following = []
        for layer, before, system in zip(stack, states, systems, strict=True):
            x, after = layer.step(x, before, system)
            following.append(after)
        return x, following

    states = [layer.get_initial_state(1) for layer in stack]
    return step, states, [layer.discretize() for layer in stack]


def _cells(name, features, state, layers, length):
    """The same of LSTM or GRU cells, whose systems are their weights."""
    stack = [getattr(keras.layers, f"{name}Cell")(features) for _ in range(layers)]
    for cell in stack:
        cell.build((None, features))

    def step(x, states, weights):
        following = []
        for cell, before, values in zip(stack, states, weights, strict=True):
            # `call`, as our layers' `step`: without the work of a Keras call for each sample.
            if backend.is_stateless():
                mapping = list(zip(cell.trainable_variables, values, strict=True))
                with keras.StatelessScope(state_mapping=mapping):
                    x, after = cell.call(x, before)
            else:
                x, after = cell.call(x, before)
            following.append(list(after))
        return x, following

    states = [list(cell.get_initial_state(1)) for cell in stack]
    return step, states, [[v.value for v in cell.trainable_variables] for cell in stack]


def _jax(make_stack, arguments, x, forms):
    import jax

    step, initial, systems = make_stack(*arguments)
    samples = jax.numpy.asarray(x)
    called = jax.jit(step, donate_argnums=1)
    # A call donates its buffers: each zero state needs buffers of its own.
    last_state = [jax.tree.map(jax.numpy.array, initial)]

    def one_by_one():
        sample = samples[0]
        for _ in range(CALLS):
            y, last_state[0] = called(sample, last_state[0], systems)
            y.block_until_ready()

    @jax.jit
    def loop(samples, states, systems):
        def one(states, sample):
            y, states = step(sample, states, systems)
            return states, y

        return jax.lax.scan(one, states, samples)

    runners = {
        "step": (one_by_one, CALLS, "jax.jit"),
        "loop": (lambda: jax.block_until_ready(loop(samples, initial, systems)), LOOP, "lax.scan"),
    }
    return {form: runners[form] for form in forms}


def _tensorflow(make_stack, arguments, x, forms):
    import tensorflow as tf

    step, initial, systems = make_stack(*arguments)
    samples, last_state = tf.constant(x), [initial]

    # Captured, like the variables of the cells: as arguments they would cost more than the step.
    @tf.function(jit_compile=True, autograph=False)
    def called(sample, states):
        return step(sample, states, systems)

    def one_by_one():
        sample = samples[0]
        for _ in range(CALLS):
            y, last_state[0] = called(sample, last_state[0])
        return y.numpy()

    @tf.function(jit_compile=True, autograph=False)
    def loop(samples, states):
        outputs = tf.TensorArray(tf.float32, size=LOOP, element_shape=samples.shape[1:])

        def one(t, states, outputs):
            y, states = step(samples[t], states, systems)
            return t + 1, states, outputs.write(t, y)

        _, states, outputs = tf.while_loop(
            lambda t, *_: t < LOOP, one, (0, states, outputs), maximum_iterations=LOOP
        )
        return outputs.stack(), states

    runners = {
        "step": (one_by_one, CALLS, "tf.function, XLA"),
        "loop": (lambda: loop(samples, initial)[0].numpy(), LOOP, "tf.while_loop, XLA"),
    }
    return {form: runners[form] for form in forms}


def _torch(make_stack, arguments, x, forms):
    import torch

    device = keras.ops.zeros(()).device
    sample = torch.from_numpy(x[0]).to(device)
    with torch.inference_mode():
        step, initial, systems = make_stack(*arguments)
    has_compiler = shutil.which(os.environ.get("CXX", "g++")) is not None
    compiles = "step" in forms and (device.type != "cpu" or has_compiler)
    called = step
    if compiles:
        torch.compiler.reset()  # else the shapes of the former stack would turn dynamic
        called = torch.compile(step, fullgraph=True, dynamic=False)
    last_state = [initial]

    @torch.inference_mode()
    def one_by_one():
        for _ in range(CALLS):
            y, last_state[0] = called(sample, last_state[0], systems)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return y

    return {forms[0]: (one_by_one, CALLS, "torch.compile" if compiles else "eager")}
