"""Copies of models with low-rank updates, which a file of Keras would merge into the weights."""

import keras

from keras_ssm.models.adapters import adapted_layers


def copy_of(model):
    """What `copy.deepcopy` and `pickle` keep of a model that has low-rank updates.

    Returns:
        Tuple of a function and its arguments, as `__reduce__` returns it, or `None` for a model
        without low-rank updates.
    """
    if not adapted_layers(model):
        return None
    description = keras.saving.serialize_keras_object(model)
    settings = description.pop("compile_config", None)
    settings = settings if model.compiled else None
    preprocessor = getattr(model, "preprocessor", None)
    if isinstance(preprocessor, keras.Layer):
        # The preprocessor itself: its configuration does not hold the files of its tokenizer.
        description["config"]["preprocessor"] = preprocessor
    optimizer = model.optimizer.variables if model.compiled else []
    values = [[keras.ops.convert_to_numpy(v) for v in vs] for vs in (model.variables, optimizer)]
    return _rebuilt, (description, _adaptation(model), _trains(model), settings, *values)


def adapted_like(clone, model):
    """Gives a clone of a model the low-rank updates of the model, with fresh weights."""
    if adapted_layers(model) and not adapted_layers(clone):
        clone.enable_lora(*_adaptation(model))
        _let_train(clone, _trains(model))
    return clone


def _adaptation(model):
    adapted = adapted_layers(model)
    return int(adapted[0].lora_rank), sorted({layer.name for layer in adapted})


def _trains(model):
    """Which layers and weights train, in their order."""
    layers = [layer.trainable for layer in model._flatten_layers()]
    return layers, [weight.trainable for weight in model.weights]


def _let_train(model, trains):
    layers, weights = trains
    for layer, value in zip(model._flatten_layers(), layers, strict=True):  # outer ones first
        if layer.trainable != value:
            layer.trainable = value
    for weight, value in zip(model.weights, weights, strict=True):
        weight.trainable = value


def _rebuilt(description, adaptation, trains, settings, values, optimizer):
    model = keras.saving.deserialize_keras_object(description, safe_mode=False)
    model.enable_lora(*adaptation)
    _let_train(model, trains)
    for variable, value in zip(model.variables, values, strict=True):
        variable.assign(value)
    if settings is not None:
        model.compile_from_config(settings)
        for variable, value in zip(model.optimizer.variables, optimizer, strict=True):
            variable.assign(value)
    return model
