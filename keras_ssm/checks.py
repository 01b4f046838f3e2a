"""Checks of arguments whose wrong values would pass without a word."""

import math
import numbers

import numpy as np


def check_flags(**values):
    """Raises a `ValueError` for the first argument that is neither `True` nor `False`."""
    for name, value in values.items():
        if not isinstance(value, (bool, np.bool_)):
            raise ValueError(f"`{name}` must be True or False. Received: {name}={value!r}")


def check_number(name, value, low=-math.inf, high=math.inf):
    """Raises a `ValueError` unless a value is a finite number from `low` to `high`."""
    real = isinstance(value, (numbers.Real, np.floating, np.integer))
    flag = isinstance(value, (bool, np.bool_))
    if not real or flag or not math.isfinite(value) or not low <= value <= high:
        ends = [f"at least {low:g}"] * (low > -math.inf) + [f"at most {high:g}"] * (high < math.inf)
        conditions = " and ".join(["finite", *ends])
        raise ValueError(f"`{name}` must be a number, {conditions}. Received: {name}={value!r}")


def compatible(received, expected):
    """Whether two shapes can be the same, where `None` is any size."""
    return len(received) == len(expected) and all(
        None in (n, m) or n == m for n, m in zip(received, expected, strict=True)
    )


def check_positive(**values):
    """Returns positive integers as those of Python, which Keras' layers ask for.

    Raises a `ValueError` for the first argument that is none.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")
    return [int(value) for value in values.values()]


def check_at_least(low, or_none=False, **values):
    """Raises a `ValueError` for the first argument that is no integer of at least `low`."""
    for name, value in values.items():
        if or_none and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
            raise ValueError(
                f"`{name}` must be an integer of at least {low}{', or None' * or_none}. "
                f"Received: {name}={value!r}"
            )


def check_choice(name, value, choices):
    """Raises a `ValueError` unless the value is one of the choices."""
    if value not in tuple(choices):
        listed = ", ".join(map(str, choices))
        raise ValueError(f"`{name}` must be one of {listed}. Received: {name}={value!r}")
