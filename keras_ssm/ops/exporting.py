"""What a graph may hold that other programs read."""

import contextlib
import contextvars

# `None` outside an export; else the longest sequence, and whether the graph may hold loops.
_EXPORT = contextvars.ContextVar("export", default=None)

DEFAULT_LONGEST = 2**16


@contextlib.contextmanager
def exporting(longest=DEFAULT_LONGEST, loops=True):
    """Within it a graph is made for another program.

    Args:
        longest: int. Steps that a graph without loops covers where its length is not known.
        loops: bool. Whether it may hold loops, lists, Fourier transforms and programs of XLA.
    """
    before = _EXPORT.set((longest, loops))
    try:
        yield
    finally:
        _EXPORT.reset(before)


def is_exporting():
    """Whether a graph is made for another program."""
    return _EXPORT.get() is not None


def loops_allowed():
    """Whether a graph may hold loops, lists, Fourier transforms and programs of XLA."""
    return not is_exporting() or _EXPORT.get()[1]


def longest():
    """Steps that a graph without loops covers where its length is not known."""
    return _EXPORT.get()[0] if is_exporting() else DEFAULT_LONGEST


def known(size):
    """A size of a shape if it is a number, else `None`.

    Unknown sizes are `None` on TensorFlow, symbols on JAX, and on PyTorch while a graph is made.
    """
    return size if isinstance(size, int) else None
