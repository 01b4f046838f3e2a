"""Functions of weights for inference, compiled by JAX."""

import operator

import jax

from keras_ssm.keras_internals import value_of


def program(function, variables, xla, eager):
    """A function for inference, into which the values of the variables go as arguments."""
    function = function if eager else jax.jit(function)
    return lambda *arguments: function([v.value for v in variables], *arguments)


def step_program(function, prepare, variables, sources, eager):
    """One whose state is donated; new weights are new arrays."""
    step = function if eager else jax.jit(function, donate_argnums=3)
    last_weights = [([], None)]

    def run(x, state):
        values, prepared = last_weights[0]
        now = [*map(value_of, variables)]
        if len(values) != len(now) or not all(map(operator.is_, values, now)):
            prepared = prepare()
            last_weights[0] = now, prepared
        return step(now, prepared, x, state)

    return run


def were_given_away(variables):
    """Whether `fit` runs, which donates the weights to its first step."""
    return any(value_of(v).is_deleted() for v in variables)
