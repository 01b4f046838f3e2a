"""Calls of the trainer in many threads: one at a time where they would spoil each other."""

import contextlib
import threading
import weakref

from keras_ssm.ops import backend

_guard = threading.Lock()
_turns = weakref.WeakKeyDictionary()


class _Turns:
    def __init__(self):
        self.lock = threading.RLock()
        self.running = 0


@contextlib.contextmanager
def turn(model):
    """The turn of a call of the trainer.

    On JAX the trainer gives the buffers of the weights away and takes others back, so calls for
    one model, or for models with one backbone, wait for each other. Elsewhere they run together.

    Args:
        model: a backbone or a task model.

    Yields:
        callable. Returns whether no other call runs.
    """
    with _guard:
        turns = _turns.setdefault(getattr(model, "backbone", model), _Turns())
    one_at_a_time = turns.lock if backend.is_stateless() else contextlib.nullcontext()
    with one_at_a_time:
        with _guard:
            turns.running += 1
        try:
            yield lambda: turns.running == 1
        finally:
            with _guard:
                turns.running -= 1
