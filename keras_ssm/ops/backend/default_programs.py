"""Programs for inference, as `default.py` has the rest: what each function means."""


def program(function, variables, xla, eager):
    """A function of tensors for inference, compiled where the backend does so.

    Args:
        function: takes the values of `variables` where `is_stateless`, `None` elsewhere, then
            trees of tensors. It returns such trees.
        variables: list of `keras.Variable`s. What the function reads by itself elsewhere.
        xla: bool. Whether XLA may compile it, where there is a choice.
        eager: bool. Whether nothing is compiled.

    Returns:
        Function of the trees of tensors, or of NumPy arrays.
    """
    raise NotImplementedError


def traced(function):
    """The same function of trees of tensors, for many calls, without the Python between operations.

    It reads weights by itself, and shapes differ by the batch of its first argument alone. Where
    a program is compiled as a whole, nothing is left to do.
    """
    return function


def step_program(function, prepare, variables, sources, eager):
    """A function that advances a state, for endless calls, compiled where the backend does so.

    What can be computed beforehand, such as discrete systems, it keeps, and computes again when
    the weights behind it have changed, whoever changed them. The state that goes in is given
    away: on some backends what comes out takes its place.

    Args:
        function: maps the values of `variables` where `is_stateless`, `None` elsewhere, what
            `prepare` returned, a tensor `x` and a tree of tensors, the state, to a tuple of a
            tensor and the next state.
        prepare: function without arguments. Returns a tree of tensors.
        variables: list of `keras.Variable`s. What the function reads by itself elsewhere.
        sources: list of `keras.Variable`s. Those that `prepare` reads.
        eager: bool. Whether nothing is compiled.

    Returns:
        Function of `x`, a tensor or an array of NumPy, and the state.
    """
    raise NotImplementedError


def were_given_away(variables):
    """Whether a trainer that runs has given the buffers of these variables away."""
    return False
