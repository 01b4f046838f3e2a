"""Programs of XLA on TensorFlow, also inside a graph that is none."""

import contextvars
import functools

import tensorflow as tf

# Whether a program of XLA is being traced: it has operations that a plain graph lacks.
IN_XLA = contextvars.ContextVar("in_xla", default=False)

# Steps from which XLA compiles scans: less memory, and no copies between.
SHORTEST_COMPILED = 1024


def compiled(function, steps):
    """A function of a long sequence compiled by XLA, also inside a graph that is not.

    No gradient flows through it: a tape that saw its loops would ask for what XLA does not keep.
    """
    if steps < SHORTEST_COMPILED:
        return function
    run = by_xla(function)
    return lambda *tensors: run(*unwatched(tensors))


@functools.lru_cache
def by_xla(function):
    """The function compiled by XLA; while it is traced, `IN_XLA` says so."""

    def traced(*tensors):
        before = IN_XLA.set(True)
        try:
            return function(*tensors)
        finally:
            IN_XLA.reset(before)

    return tf.function(traced, jit_compile=True, autograph=False)


def recomputed(forward, backward, portable):
    """A function of tensors whose gradient computes anew what it needs.

    A program for each direction: nobody sees that one computes what the other has computed.
    """

    def function(*tensors):
        @tf.custom_gradient
        def watched(*sources):
            arguments = packed(tensors, unwatched(sources))
            outputs, kept = by_xla(forward)(*arguments)

            def slopes(*upstream):
                return _slopes(backward, portable, arguments, sources, kept, upstream)

            return outputs, slopes

        return watched(*present(tensors))

    return function


def _slopes(backward, portable, arguments, sources, kept, upstream):
    """The gradient of each source by XLA, whose own gradient is that of the portable form."""

    @tf.custom_gradient
    def found(*tensors):
        tensors = unwatched(tensors)
        given, cotangents = tensors[: len(sources)], tensors[len(sources) :]
        single = cotangents[0] if len(cotangents) == 1 else cotangents
        slopes = by_xla(backward)(packed(arguments, given), kept, single)
        slopes = [slope for slope, x in zip(slopes, arguments, strict=True) if _moves(x)]

        def steepness(*weights):
            watched = [x for x in (*sources, *upstream) if _moves(x)]
            with tf.GradientTape() as outer:
                outer.watch(watched)
                with tf.GradientTape() as inner:
                    inner.watch(sources)
                    outputs = portable(*packed(arguments, sources))
                moving = [x for x in sources if _moves(x)]
                again = inner.gradient(outputs, moving, list(upstream))
            steepest = iter(outer.gradient(again, watched, weights))
            return [next(steepest) if _moves(x) else None for x in (*sources, *upstream)]

        return slopes, steepness

    slopes = iter(found(*sources, *upstream))
    return [next(slopes) if _moves(x) else None for x in sources]


def _moves(x):
    """Whether a tensor has a gradient."""
    return x is not None and x.dtype.is_floating


def unwatched(nest):
    """The same tensors, out of sight of a tape."""
    return packed(nest, map(tf.stop_gradient, present(nest)))


def present(nest):
    """The tensors of a nest, without `None`s."""
    return [x for x in tf.nest.flatten(nest) if x is not None]


def packed(nest, tensors):
    """A nest with other tensors, in the order of `present`."""
    tensors = iter(tensors)
    return tf.nest.map_structure(lambda x: None if x is None else next(tensors), nest)
