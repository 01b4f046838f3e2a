"""What the checkpoints of PyTorch share: encoders, norms, projections and heads."""

from keras_ssm.convert.mapping import WeightMap, dense, same
from keras_ssm.convert.settings import UNSET
from keras_ssm.models import SSMClassifier, SSMPairClassifier

# Names of activations in the official code, by ours.
ACTIVATIONS = {
    "gelu": "gelu",
    "relu": "relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "silu": "silu",
    "swish": "silu",
    "elu": "elu",
    "id": None,
    "identity": None,
    "linear": None,
}


def translate(table, name, value):
    """An official value as ours, or a `ValueError` that names it."""
    if value is UNSET:
        return UNSET
    if value not in table:
        raise ValueError(
            f"`{name}` of the checkpoint must be one of {', '.join(map(str, table))}. "
            f"Received: {name}={value!r}"
        )
    return table[value]


def activation(settings, hyper):
    """The activation of the blocks."""
    file = translate(ACTIVATIONS, "activation", hyper.get("activation", UNSET))
    return settings.choose("activation", "gelu", file)


def find_gate(tensors, settings, stem, features, hyper):
    """The gate of the blocks, by the shape of their output projection."""
    name = tensors.first(f"{stem}output_linear.0.weight", f"{stem}output_linear.weight")
    if name is None:
        return settings.derive("gate", None)
    gate = "glu" if tensors.shape(name)[0] == 2 * features else "linear"
    act = hyper.get("final_act") or hyper.get("postact") or "id"
    if gate == "linear" and act not in ("id", "identity", "linear"):
        raise ValueError(
            "An output projection must be followed by a GLU or by nothing. "
            f"Received: final_act={act!r}"
        )
    return settings.derive("gate", gate)


def projection(tensors, stem, target):
    """Weight maps of the output projection of a block."""
    for key in (f"{stem}output_linear.0", f"{stem}output_linear"):
        if f"{key}.weight" in tensors:
            yield from dense(target, key, tensors)
            return


def find_norm(tensors, stem):
    """The kind of norm whose tensors stand at `stem`, or `None`."""
    if f"{stem}m" in tensors:
        return "scalar"
    if f"{stem}running_mean" in tensors:
        return "batch"
    return "layer" if f"{stem}weight" in tensors else None


def norm(tensors, stem, target):
    """Weight maps of a norm."""
    kind = find_norm(tensors, stem)
    names = {"gamma": "s", "beta": "m"} if kind == "scalar" else {"gamma": "weight", "beta": "bias"}
    if kind == "batch":
        names |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
        tensors.drop(f"{stem}num_batches_tracked", "a count of training steps")
    for keras_name, file_name in names.items():
        yield WeightMap(f"{target}.{keras_name}", (f"{stem}{file_name}",), same)


def find_encoder(tensors, settings, stem, features):
    """The arguments of `SSMBackbone` that describe the encoder at `stem`."""
    shape = tensors[f"{stem}weight"].shape
    if f"{stem}bias" in tensors:
        return {
            "encoder": settings.derive("encoder", "linear"),
            "input_dim": settings.derive("input_dim", shape[1]),
        }
    if shape[1] != features:
        raise ValueError(
            f"The encoder must be an embedding or a linear layer with a bias. "
            f"Received: '{stem}weight' of shape {shape}"
        )
    return {
        "encoder": settings.derive("encoder", "embedding"),
        "vocabulary_size": settings.derive("vocabulary_size", shape[0]),
    }


def encoder(tensors, stem):
    """Weight maps of the encoder."""
    if f"{stem}bias" in tensors:
        yield from dense("backbone.encoder_layer", stem[:-1], tensors)
    else:
        yield WeightMap("backbone.encoder_layer.embeddings", (f"{stem}weight",), same)


def find_head(tensors, settings, classifier, pair, pooling):
    """The task class, its arguments and the weight maps of its head.

    Args:
        tensors: `Tensors`.
        settings: `Settings`.
        classifier: str. Name of the linear layer of a classifier.
        pair: str. Name of the layers of a pair classifier, without their numbers.
        pooling: what the file says, or `UNSET`.
    """
    arguments = {"pooling": settings.choose("pooling", "mean", pooling)}
    if f"{pair}.0.weight" in tensors:
        units = tensors.shape(f"{pair}.0.weight")[0]
        classes = tensors.shape(f"{pair}.2.weight")[0]
        arguments["head_dim"] = settings.derive("head_dim", units)
        arguments["head_activation"] = settings.choose("head_activation", "gelu")
        weight_maps = [
            *dense("pair_dense", f"{pair}.0", tensors),
            *dense("head", f"{pair}.2", tensors),
        ]
        task = SSMPairClassifier
    else:
        classes = len(tensors[f"{classifier}.weight"])
        weight_maps, task = list(dense("head", classifier, tensors)), SSMClassifier
    arguments["num_classes"] = settings.derive("num_classes", classes)
    return task, arguments, weight_maps
