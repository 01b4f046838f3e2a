"""Mixers made anew from their configuration."""

import keras

from keras_ssm.layers.sequence_mixer import SequenceMixer


def clone_mixer(mixer, dtype=None, seed=None):
    """Returns an unbuilt layer of the same configuration, named after its kind."""
    return mixer_from_config(keras.layers.serialize(mixer), dtype=dtype, seed=seed)


def mixer_from_config(config, dtype=None, seed=None):
    """Makes an unbuilt mixer from what `keras.layers.serialize` gave.

    A `build_config` would build it on its own, outside the block: its variables would then have
    other paths than those of the block that was saved.
    """
    if isinstance(config, SequenceMixer):
        return config
    config = {key: value for key, value in config.items() if key != "build_config"}
    settings = {key: value for key, value in config["config"].items() if key != "name"}
    if dtype is not None:
        settings["dtype"] = keras.dtype_policies.serialize(keras.dtype_policies.get(dtype))
    if seed is not None:
        settings["seed"] = seed
    settings["name"] = config["class_name"].lower()
    return keras.layers.deserialize({**config, "config": settings})
