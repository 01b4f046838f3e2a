"""Tensors of one layer of fla-org/flash-linear-attention: DeltaNet, gated and DeltaProduct."""

import numpy as np

from keras_ssm.convert.formats.torch_arrays import array
from keras_ssm.layers import DeltaNet

PROJECTIONS = ("g_proj", "q_proj", "k_proj", "v_proj", "b_proj", "a_proj")
CONVOLUTIONS = ("q_conv1d", "k_conv1d", "v_conv1d")
MODEL_TYPES = ("delta_net", "gated_deltanet", "gated_deltaproduct")

# Options of the published layers that change their numbers, with what ours has.
ALLOWED = {
    "qk_norm": ("l2",),
    "qk_activation": ("silu",),
    "use_beta": (True,),
    "use_output_norm": (True,),
    "model_type": MODEL_TYPES,
}

# What a configuration of a model leaves out; the layers alone have another epsilon.
OF_MODELS = {"allow_neg_eigval": False, "norm_eps": 1e-6}
EPSILON = 1e-5
CONV_SIZE = 4


def read_layer(tensors, config, overrides):
    """The layer of these tensors, built, with its weights.

    Args:
        tensors: `Tensors`, by the names within the layer.
        config: dict. Fields of the published configuration, or `{}`.
        overrides: dict. Arguments of `DeltaNet` that go over it.
    """
    _check_config(config)
    arguments = _sizes(tensors, config) | _others(config, overrides)
    for name, value in arguments.items():
        if name in overrides and overrides[name] != value:
            raise ValueError(
                f"`{name}` must be {value!r}, as the tensors have it. "
                f"Received: {name}={overrides[name]!r}"
            )
    layer = DeltaNet(**{**overrides, **arguments})
    layer.build((None, None, tensors.shape("q_proj.weight")[1]))
    for weight, value in _arranged(tensors, layer):
        if tuple(weight.shape) != value.shape or not np.isfinite(value).all():
            raise ValueError(
                f"The tensors of `{weight.name}` must be finite and of the shape "
                f"{tuple(weight.shape)} together. Received: {value.shape}"
            )
        weight.assign(value)
    unused = tensors.unused()
    if unused:
        raise ValueError(f"Every tensor must be one of the layer. Received: {', '.join(unused)}")
    return layer


def write_layer(layer):
    """The tensors of a layer, and its configuration.

    Returns:
        Tuple `(tensors, config)` of dicts.

    Raises:
        ValueError: for a layer whose projections have biases, which the published ones have not.
    """
    if layer.use_bias:
        raise ValueError("The published layer has no such biases. Received: use_bias=True")
    parts = _parts(layer)
    rows = np.split(array(layer.in_proj.kernel).T, np.cumsum(parts)[:-1])
    tensors = {
        f"{name}.weight": rows_of
        for name, rows_of in zip(PROJECTIONS, rows, strict=True)
        if len(rows_of)
    }
    bounds = np.cumsum(parts[1:4])[:-1]
    if layer.conv_width is not None:
        kernels = np.split(array(layer.conv_kernel).T[:, None], bounds)
        tensors |= {f"{name}.weight": k for name, k in zip(CONVOLUTIONS, kernels, strict=True)}
    if layer.conv_bias:
        biases = np.split(array(layer.conv_bias_weight), bounds)
        tensors |= {f"{name}.bias": b for name, b in zip(CONVOLUTIONS, biases, strict=True)}
    if layer.gated:
        tensors |= {"A_log": array(layer.A_log), "dt_bias": array(layer.dt_bias)}
    tensors["o_norm.weight"] = array(layer.norm_scale)
    tensors["o_proj.weight"] = array(layer.out_proj.kernel).T
    return tensors, _config(layer)


def _config(layer):
    """The arguments of the published class that computes the same."""
    common = {
        "hidden_size": layer.features,
        "num_heads": layer.heads,
        "expand_v": layer.expand_v,
        "use_short_conv": layer.conv_width is not None,
        "conv_size": layer.conv_width or CONV_SIZE,
        "conv_bias": layer.conv_bias,
        "allow_neg_eigval": layer.neg_eigenvalues,
        "norm_eps": layer.norm_epsilon,
    }
    keys = layer.heads * layer.head_dim
    if layer.householders == 1 and not layer.gated and keys % layer.features == 0:
        factor = keys // layer.features  # the published sizes are multiples of the width
        sizes = {"expand_k": factor, "expand_v": factor * layer.expand_v}
        return {"model_type": MODEL_TYPES[0], **common, **sizes, "use_gate": layer.output_gate}
    common["head_dim"] = layer.head_dim
    if layer.householders == 1 and layer.gated:
        return {"model_type": MODEL_TYPES[1], **common, "use_gate": layer.output_gate}
    return {
        "model_type": MODEL_TYPES[2],
        **common,
        "use_output_gate": layer.output_gate,
        "use_forget_gate": layer.gated,
        "num_householder": layer.householders,
    }


def _check_config(config):
    for name, allowed in ALLOWED.items():
        if name in config and config[name] not in allowed:
            expected = " or ".join(map(repr, allowed))
            raise ValueError(
                f"A layer with {name}={expected} can be converted. "
                f"Received: {name}={config[name]!r}"
            )
    heads, more = config.get("num_heads"), config.get("num_v_heads")
    if more not in (None, heads):
        raise ValueError(
            "Layers whose heads share keys cannot be converted. "
            f"Received: num_v_heads={more}, num_heads={heads}"
        )


def _sizes(tensors, config):
    """What the shapes of the tensors say."""
    queries, keys = (tensors.shape(f"{name}_proj.weight")[0] for name in "qk")
    householders, heads = keys // queries, tensors.shape("b_proj.weight")[0]
    heads //= max(1, householders)
    value_dim = tensors.shape("o_norm.weight")[0]
    values = tensors.shape("v_proj.weight")[0]
    if not heads or queries % heads or householders * heads * value_dim != values:
        raise ValueError(
            "Queries, keys, values, beta and the norm must have the same heads. Received: "
            + ", ".join(f"{n} {tensors.shape(f'{n}.weight')[0]}" for n in (*PROJECTIONS[1:5],))
            + f", o_norm {value_dim}"
        )
    if config.get("num_heads", heads) != heads:
        raise ValueError(
            f"`num_heads` must be {heads}, as the tensors have it. "
            f"Received: num_heads={config['num_heads']}"
        )
    head_dim = queries // heads
    convolution = tensors.first(f"{CONVOLUTIONS[0]}.weight")
    return {
        "heads": heads,
        "head_dim": head_dim,
        "expand_v": value_dim / head_dim,
        "householders": householders,
        "gated": "a_proj.weight" in tensors,
        "output_gate": "g_proj.weight" in tensors,
        "conv_width": convolution and tensors.shape(convolution)[-1],
        "conv_bias": "q_conv1d.bias" in tensors,
        "use_bias": False,
    }


def _others(config, overrides):
    """What no shape says: given, in the configuration, or asked for."""
    if "model_type" in config:
        config = {**OF_MODELS, **config}
    negative = overrides.get("neg_eigenvalues", config.get("allow_neg_eigval"))
    if negative not in (True, False):
        raise ValueError(
            "`neg_eigenvalues` cannot be seen in the tensors, and with another value the layer "
            "computes other numbers: give neg_eigenvalues=True or False, or the `config`. "
            f"Received: neg_eigenvalues={negative!r}"
        )
    epsilon = overrides.get("norm_epsilon", config.get("norm_eps", EPSILON))
    return {"neg_eigenvalues": negative, "norm_epsilon": epsilon}


def _parts(layer):
    """Rows of each of the `PROJECTIONS`."""
    gate, _, strengths, decays = layer.parts()
    return [gate, *layer.conv_sizes(), strengths, decays]


def _arranged(tensors, layer):
    """Pairs of a weight and its array."""
    present = [name for name, rows in zip(PROJECTIONS, _parts(layer), strict=True) if rows]
    joined = lambda names: np.concatenate([tensors[name] for name in names])
    yield layer.in_proj.kernel, joined(f"{name}.weight" for name in present).T
    if layer.conv_width is not None:
        kernels = joined(f"{name}.weight" for name in CONVOLUTIONS)
        yield layer.conv_kernel, kernels.reshape(len(kernels), -1).T
    if layer.conv_bias:
        yield layer.conv_bias_weight, joined(f"{name}.bias" for name in CONVOLUTIONS)
    if layer.gated:
        yield layer.A_log, tensors["A_log"]
        yield layer.dt_bias, tensors["dt_bias"]
    yield layer.norm_scale, tensors["o_norm.weight"]
    yield layer.out_proj.kernel, tensors["o_proj.weight"].T
