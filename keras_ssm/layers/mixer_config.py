"""Mixers made anew from their configuration."""

import keras

from keras_ssm.layers.sequence_mixer import SequenceMixer


def layer_config(layer):
    """What `keras.layers.serialize` gives, for a layer that is made anew from it.

    While Keras loads a model, it marks what is serialized twice as one shared object, which the
    third copy would then be. It knows objects by their address, which a later one may have.
    """
    return _unshared(keras.layers.serialize(layer))


def clone_mixer(mixer, dtype=None, seed=None):
    """Returns an unbuilt layer of the same configuration, named after its kind."""
    return mixer_from_config(layer_config(mixer), dtype=dtype, seed=seed)


def mixer_from_config(config, dtype=None, seed=None):
    """Makes an unbuilt mixer from what `keras.layers.serialize` gave.

    A `build_config` would build it on its own, outside the block: its variables would then have
    other paths than those of the block that was saved.
    """
    if isinstance(config, SequenceMixer):
        return config
    config = {key: value for key, value in _unshared(config).items() if key != "build_config"}
    settings = {key: value for key, value in config["config"].items() if key != "name"}
    if dtype is not None:
        settings["dtype"] = keras.dtype_policies.serialize(keras.dtype_policies.get(dtype))
    if seed is not None:
        settings["seed"] = seed
    settings["name"] = config["class_name"].lower()
    return keras.layers.deserialize({**config, "config": settings})


def _unshared(config):
    if isinstance(config, dict):
        return {key: _unshared(part) for key, part in config.items() if key != "shared_object_id"}
    if isinstance(config, (list, tuple)):
        return type(config)(_unshared(part) for part in config)
    return config
