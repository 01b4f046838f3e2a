"""Low-rank updates in files: separate in files of Keras, merged in presets."""

import contextlib
import contextvars
import functools

import keras

# Ends of the paths of updates, of dense layers and of embeddings.
LOW_RANK = ("lora_kernel_a", "lora_kernel_b", "lora_embeddings_a", "lora_embeddings_b")
_APART = contextvars.ContextVar("apart", default=False)
_MERGED = contextvars.ContextVar("merged", default=False)


def apart():
    """Within it layers write their updates beside their weights, for a model that has both."""
    return _within(_APART)


def merged():
    """Within it configurations say nothing of updates, for a model that trains as a whole."""
    return _within(_MERGED)


def is_merged():
    """Whether configurations say nothing of updates now."""
    return _MERGED.get()


@contextlib.contextmanager
def _within(flag):
    token = flag.set(True)
    try:
        yield
    finally:
        flag.reset(token)


def adapted_layers(model):
    """The layers of a model that have low-rank updates."""
    return [layer for layer in model._flatten_layers() if getattr(layer, "lora_enabled", False)]


def lora_config(backbone):
    """The entry of a backbone's configuration that tells its updates, and what trains with them."""
    adapted = adapted_layers(backbone)
    if not adapted or is_merged():
        return {}
    training = what_trains(backbone) if backbone.trainable else backbone.trained_before
    names = sorted({layer.name for layer in adapted})
    rank = int(adapted[0].lora_rank)
    return {"lora": {"rank": rank, "target_layer_names": names, "training": training}}


def adapt(backbone, lora):
    """Gives a backbone the updates that `lora_config` told, with fresh weights."""
    trainable = backbone.trainable
    backbone.enable_lora(lora["rank"], lora["target_layer_names"])
    let_train(backbone, lora["training"])
    backbone.trainable = trainable


def what_trains(model):
    """The paths of the layers and weights of a model that train."""
    return {
        "layers": [layer.path for layer in model._flatten_layers() if layer.trainable],
        "weights": [weight.path for weight in model.weights if weight.trainable],
    }


def let_train(backbone, training):
    """Lets the layers and weights of these paths train, and no others."""
    layers, weights = set(training["layers"]), set(training["weights"])
    for layer in backbone._flatten_layers():  # outer ones first
        trains = layer.path in layers
        if layer is not backbone and layer.trainable != trains:
            layer.trainable = trains
    for weight in backbone.weights:
        weight.trainable = weight.path in weights


def keep_apart(layer):
    """Teaches a layer with updates to write and read them apart from its weights."""
    # Past the tracking of Keras: these are attributes of this layer only.
    vars(layer)["save_own_variables"] = functools.partial(_save, layer)
    vars(layer)["load_own_variables"] = functools.partial(_load, layer)


def factors(layer):
    """The two factors of the updates of a layer, by name."""
    candidates = ("lora_kernel_a", "lora_kernel_b"), ("lora_embeddings_a", "lora_embeddings_b")
    names = next(names for names in candidates if hasattr(layer, names[0]))
    return {name: getattr(layer, name) for name in names}


def _save(layer, store):
    save = type(layer).save_own_variables
    if not _APART.get():
        save(layer, store)
        return
    layer.lora_enabled = False  # or the updates would be merged
    try:
        save(layer, store)
    finally:
        layer.lora_enabled = True
    for name, weight in factors(layer).items():
        store[name] = weight


def _load(layer, store):
    factors_of_layer = factors(layer)
    names = list(store.keys())
    others = {name: store[name] for name in names if name not in factors_of_layer}
    values = {name: store[name] for name in names if name in factors_of_layer}
    type(layer).load_own_variables(layer, others)
    # Merged updates: Keras sets both factors to zero, and then neither would ever train.
    if not values:
        name, first = next(iter(factors_of_layer.items()))
        values = {name: keras.initializers.get("he_uniform")(first.shape, first.dtype)}
    for name, value in values.items():
        factors_of_layer[name].assign(value)
