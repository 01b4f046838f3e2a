"""Mixers by the names under which recipes have them, and how their models are optimized."""

import functools
import inspect

import keras

from keras_ssm import layers
from keras_ssm.checks import check_choice
from keras_ssm.layers import SequenceMixer

MIXERS = {
    "s4": layers.S4,
    "s4d": layers.S4D,
    "s4ptd": layers.S4PTD,
    "dss": layers.DSS,
    # The mixer of gated state spaces; the blocks around it are a matter of the backbone.
    "gss": functools.partial(layers.DSS, variant="exp-re-im", init="log_normal", fixed_dt=1.0),
    "s5": layers.S5,
    "s5ptd": layers.S5PTD,
    "lru": layers.LRU,
    "spacetime": layers.SpaceTime,
    "h3": layers.H3,
    "sgconv": layers.SGConv,
    "longconv": layers.LongConv,
    "hyena": layers.Hyena,
    "s4nd": layers.S4ND,
    "mamba": layers.Mamba,
    "mamba2": layers.Mamba2,
    "deltanet": layers.DeltaNet,
}

# The six systems, for recipes that take them all, each with settings of its own. The softmax of
# DSS spans the whole input and cannot stream, so DSS takes the variant "exp".
S4_FAMILY = {
    "s4d": {},
    "s4": {},
    "s4ptd": {},
    "s5": {},
    "s5ptd": {},
    "dss": {"variant": "exp"},
}


def make_mixer(system: str, **arguments) -> SequenceMixer:
    """Returns the mixer of a system.

    Args:
        system: str. One of `MIXERS`.
        **arguments: those of the constructor: `state_dim`, `seed`, `bidirectional`, ...

    Raises:
        ValueError: for an unknown system, an argument that its mixer has not, or one that it
            needs and that is missing, such as the `max_length` of `"sgconv"`.

    Example:
        ```python
        mixer = keras_ssm.training.make_mixer("s5ptd", state_dim=32, seed=0)
        ```
    """
    check_choice("system", system, tuple(MIXERS))
    mixer = MIXERS[system]
    parameters, kind = inspect.signature(mixer).parameters, getattr(mixer, "func", mixer).__name__
    for name, value in arguments.items():
        if name not in parameters:
            raise ValueError(f"`{kind}` has no `{name}`. Received: {name}={value}")
    for name, parameter in parameters.items():
        named = parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        if named and parameter.default is parameter.empty and name not in arguments:
            raise ValueError(f"`{kind}` needs `{name}`. Received: {sorted(arguments)}")
    return mixer(**arguments)


def cosine(peak: float, steps: int, warmup: float = 0.05) -> keras.optimizers.schedules.CosineDecay:
    """Returns a learning rate that rises to its peak and falls to zero with a cosine.

    Args:
        peak: float. Highest rate.
        steps: int. Steps of the whole training.
        warmup: float. Share of them in which the rate rises. Defaults to `0.05`.

    Example:
        ```python
        optimizer = keras_ssm.optimizers.ssm_optimizer(keras_ssm.training.cosine(1e-2, 1000))
        ```
    """
    rising = max(1, round(warmup * steps))
    return keras.optimizers.schedules.CosineDecay(
        peak / rising, max(1, steps - rising), warmup_target=peak, warmup_steps=rising
    )
