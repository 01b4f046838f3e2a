"""The entry of a configuration that names the layers which do not train."""

from keras_ssm.models.saving.adapted_files import adapted_layers, is_merged


def frozen_config(model, besides=()):
    """The entry of a model's configuration that names its frozen layers; empty if there are none.

    A model that is frozen as a whole says so by `trainable`. A backbone with LoRA has an entry of
    its own, and what is saved with merged updates trains as a whole.

    Args:
        model: `keras.Model`.
        besides: layers that another configuration describes.

    Returns:
        Dict, with the paths of the layers as `"frozen"`.
    """
    layers = _with_weights(model, besides)
    if not model.trainable or any(getattr(layer, "lora_enabled", False) for layer in layers):
        return {}
    if is_merged() and adapted_layers(model):
        return {}
    frozen = sorted({layer.path for layer in layers if not layer.trainable})
    return {"frozen": frozen} if frozen else {}


def freeze(model, frozen, besides=()):
    """Freezes the layers of these paths.

    Raises:
        ValueError: if the model has no layer of such a path.
    """
    layers = {}
    for layer in _with_weights(model, besides):
        layers.setdefault(layer.path, []).append(layer)
    unknown = sorted(set(frozen) - set(layers))
    if unknown:
        raise ValueError(
            f"`frozen` of {model.name} must name layers that it has: {sorted(layers)}. "
            f"Received: {unknown}"
        )
    for path in frozen:
        for layer in layers[path]:
            layer.trainable = False


def _with_weights(model, besides):
    left_out = {id(layer) for layer in besides}
    layers = model._flatten_layers(include_self=False)
    return [layer for layer in layers if id(layer) not in left_out and layer.weights]
