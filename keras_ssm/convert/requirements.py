def require(**conditions):
    """Raises a `ValueError` unless a model has what an official class has.

    Args:
        **conditions: tuples `(received, allowed)` by the name of an argument, `allowed` a tuple.
    """
    for name, (received, allowed) in conditions.items():
        if received not in allowed:
            expected = " or ".join(map(repr, allowed))
            raise ValueError(
                f"The official classes need {name}={expected}. Received: {name}={received!r}"
            )
