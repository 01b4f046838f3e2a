"""What a sampler must be to choose tokens of a model."""

import math

from keras_hub.samplers import BeamSampler, Sampler, SpeculativeSampler, get

NAMES = "greedy", "random", "top_k", "top_p", "beam", "contrastive"


def sampler_of(sampler):
    """Returns the sampler of a name, a configuration or a sampler; of `None` it is `None`.

    Raises:
        ValueError: for anything else.
    """
    named = isinstance(sampler, dict) or (isinstance(sampler, str) and sampler.islower())
    found = get(sampler) if named else sampler
    if found is None or isinstance(found, Sampler):
        return found
    raise ValueError(
        f"`sampler` must be one of {', '.join(NAMES)}, or a `keras_hub.samplers.Sampler`. "
        f"Received: sampler={sampler!r}"
    )


def check_sampler(sampler, known):
    """Raises a `ValueError` for a sampler that cannot choose among so many tokens."""
    name = type(sampler).__name__
    if isinstance(sampler, SpeculativeSampler):
        raise ValueError(
            "`sampler` must need no second model, and speculative sampling asks one for drafts. "
            f"Received: sampler={name}"
        )
    if isinstance(sampler, BeamSampler) and sampler.return_all_beams:
        raise ValueError(
            "`sampler` must give one text for each prompt. "
            "Received: a BeamSampler with return_all_beams=True"
        )
    temperature = getattr(sampler, "temperature", 1.0)
    if isinstance(temperature, (int, float)) and not 0 < temperature < math.inf:
        raise ValueError(
            "`temperature` of a sampler must be positive: for the most likely token take "
            f"'greedy'. Received: temperature={temperature}"
        )
    for argument in ("k", "num_beams"):
        value = getattr(sampler, argument, None)
        if isinstance(value, int) and not 1 <= value <= known:
            raise ValueError(
                f"`{argument}` of a sampler must be from 1 to the number of tokens, {known}. "
                f"Received: {name} with {argument}={value}"
            )
