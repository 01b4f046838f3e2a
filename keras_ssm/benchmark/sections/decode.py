"""Tokens that a language model of batch 1 writes a second, beside a transformer with a cache."""

import time

import keras
import numpy as np
from keras import ops

from keras_ssm import layers, models
from keras_ssm.benchmark.timing import alternate
from keras_ssm.ops import backend

BACKEND = keras.config.backend()

# Blocks, width, vocabulary: Mamba-130m, a transformer of as many weights, and a model small enough
# to read 100,000 tokens.
PUBLISHED = (24, 768, 50280)
TRANSFORMER = (12, 768, 50280)
SMALL = (2, 64, 256)
CACHE = 4096
CONTEXTS = (100, 100_000)
PIECE = 5000  # tokens that are read at once
CALLS = 5  # tokens in one measurement


def rows(
    seconds,
    context=None,
    published=PUBLISHED,
    transformer=TRANSFORMER,
    small=SMALL,
    cache=CACHE,
    contexts=CONTEXTS,
):
    """Yields a dict for each model: seconds of a token, of random weights and greedy choice.

    The form `"write"` is a model of published size after 100 tokens, in turn with a transformer
    of as many weights whose cache is full. The form `"flat"` is a small model from the state that
    it has after so many random tokens, in turn after few and after many: processor time, which
    other programs do not change, since a ratio of a few percent is asked for.

    Args:
        seconds: float. Time for each function.
        context: int or `None`. The model of published size is `"flat"` too, after so many tokens.
        published, transformer, small: tuples `(blocks, width, vocabulary)`.
        cache: int. Tokens in the cache of the transformer.
        contexts: tuple of ints, the fewest first. Tokens that a model has read.
    """
    counts = (contexts[0],) if context is None else (contexts[0], context)
    writers = _selective(published, *counts)
    written = [("Mamba", published, contexts[0], writers[0])]
    written.append(("transformer", transformer, cache, _attentive(transformer, cache)))
    yield from _rows("write", written, seconds)
    del written
    if context is not None:
        yield from _flat("Mamba", published, counts, writers, seconds)
    del writers
    for name in ("Mamba", "Mamba2"):
        yield from _flat(name, small, contexts, _selective(small, *contexts, name=name), seconds)


def _flat(name, size, contexts, writers, seconds):
    measured = [(name, size, n, writer) for n, writer in zip(contexts, writers, strict=True)]
    return _rows("flat", measured, seconds, time.process_time)


def _rows(form, measured, seconds, clock=time.perf_counter):
    times = alternate([writer for *_, writer in measured], seconds, clock=clock)
    for (name, size, context, _), taken in zip(measured, times, strict=True):
        sizes = dict(zip(("blocks", "width", "vocabulary"), size, strict=True))
        yield {"layer": name, "form": form, "context": context, **sizes, "step": taken / CALLS}


def _selective(size, *contexts, name="Mamba"):
    """Functions that write `CALLS` tokens after so many were read, one for each context."""
    blocks, width, vocabulary = size
    options = {"head_dim": min(64, width)} if name == "Mamba2" else {}
    backbone = models.SSMBackbone(
        getattr(layers, name)(state_dim=16, seed=0, **options),
        num_layers=blocks,
        hidden_dim=width,
        vocabulary_size=vocabulary,
        activation=None,
        gate=None,
        norm="rms",
        prenorm=True,
        final_norm="rms",
    )
    model = models.SSMCausalLM(backbone)
    model.compile(sampler="greedy")
    step, read = _compiled(model, model.step), model.make_generate_function().read
    token, states = ops.zeros((1,), "int32"), model.get_initial_state(1)
    rng, writers, count = np.random.default_rng(0), [], 0
    for context in contexts:
        width = min(PIECE, context - count)  # the last piece is padded: each width is compiled
        while count < context:
            piece = rng.integers(vocabulary, size=(1, width), dtype="int32")
            states = read(states, piece, np.arange(count, count + width)[None] < context)
            count = min(count + width, context)
        writers.append(_writer(step, token, states))
    return writers


def _writer(step, token, states):
    """A function that writes on from a given state, and from the same state in the next call."""

    def write():
        after, states_after = token, states
        for _ in range(CALLS):
            after, states_after = step(after, states_after)
        return ops.convert_to_numpy(after)  # waits for the result

    return write


def _attentive(size, length):
    """The same of a decoder of `keras_hub` at the end of a cache of so many tokens."""
    from keras_hub.layers import TransformerDecoder

    blocks, width, vocabulary = size
    heads = max(1, width // 64)
    embedding = keras.layers.Embedding(vocabulary, width)
    embedding.build((None, 1))
    stack = [TransformerDecoder(4 * width, heads, normalize_first=True) for _ in range(blocks)]
    for layer in stack:
        layer.build((None, 1, width))
    last = ops.convert_to_tensor(length - 1, "int32")

    def step(token, caches):
        x, following = embedding(token[:, None]), []
        for layer, cache in zip(stack, caches, strict=True):
            x, cache = layer(x, self_attention_cache=cache, self_attention_cache_update_index=last)
            following.append(cache)
        table = ops.convert_to_tensor(embedding.embeddings)
        return ops.matmul(x[:, 0], ops.transpose(table)), following

    owner = keras.Sequential([embedding, *stack])
    shape = (1, 2, length, heads, width // heads)
    caches = [ops.convert_to_tensor(0.1 * np.ones(shape, "float32")) for _ in stack]
    return _writer(_compiled(owner, step), ops.zeros((1,), "int32"), caches)


def _compiled(owner, step):
    """`step` to the likeliest token and the states, compiled on JAX and TensorFlow."""

    def chosen(token, states):
        logits, states = step(token, states)
        return ops.cast(ops.argmax(logits, axis=-1), "int32"), states

    if BACKEND == "jax":
        import jax

        variables = owner.variables

        @jax.jit
        def called(values, token, states):
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return chosen(token, states)

        return lambda token, states: called([v.value for v in variables], token, states)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(chosen, jit_compile=True, autograph=False)

    def without_gradients(token, states):
        with backend.without_gradients():
            return chosen(token, states)

    return without_gradients
