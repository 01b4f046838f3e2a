"""Models as checkpoints of `example.py` of state-spaces/s4, with minimal S4D or with S4Block."""

import numpy as np

from keras_ssm.convert.formats.s4_example import LAYER, NORM
from keras_ssm.convert.formats.torch_arrays import array, put_dense, stacked
from keras_ssm.convert.formats.torch_model import ACTIVATIONS
from keras_ssm.convert.mapping import check_supported
from keras_ssm.layers import S4, S4D
from keras_ssm.models import SSMClassifier


def export(model, to):
    """Returns what a file of `example.py` holds, and remarks.

    Args:
        model: `SSMClassifier` over S4D or S4.
        to: str. `"s4-example"` (minimal `S4D`) or `"s4-block"` (`S4Block`).

    Returns:
        Tuple `(tensors, configuration, remarks)`: arrays by official names, the arguments of
        the official classes, and what a person should know.

    Raises:
        ValueError: for a model that the official classes do not cover.
    """
    mixer = _check_model(model, to)
    backbone, minimal = model.backbone, to == "s4-example"
    configuration = {
        "prenorm": backbone.prenorm,
        "dropout": backbone.dropout,
        "layer": "S4D" if minimal else "S4Block",
        "layer_args": {"d_state": mixer.state_dim} if minimal else _block_arguments(model),
    }
    tensors = {}
    put_dense(tensors, "encoder", backbone.encoder_layer)
    for i, block in enumerate(backbone.blocks):
        stem = LAYER.format(i)
        layer = _minimal(block.mixer) if minimal else _s4_block(block.mixer)
        tensors |= {stem + name: value for name, value in layer.items()}
        name = "output_linear" if block.gate == "linear" else "output_linear.0"
        put_dense(tensors, stem + name, block.output_dense)
        if minimal:  # a convolution of width 1
            tensors[f"{stem}{name}.weight"] = tensors[f"{stem}{name}.weight"][..., None]
        tensors[f"{NORM.format(i)}weight"] = array(block.norm.gamma)
        tensors[f"{NORM.format(i)}bias"] = array(block.norm.beta)
    put_dense(tensors, "decoder", model.head)
    remarks = []
    scale = getattr(model.preprocessor, "scale", 1.0)
    if scale != 1.0:
        remarks.append(f"The model multiplies its inputs by {scale}; the file cannot say so.")
        configuration["scale"] = scale
    return tensors, configuration, remarks


def _check_model(model, to):
    if not isinstance(model, SSMClassifier):
        raise ValueError(
            f"The model of `example.py` is a classifier. Received: {type(model).__name__}"
        )
    backbone = model.backbone
    mixer = backbone.blocks[0].mixer
    check_supported(
        vocabulary_size=(backbone.vocabulary_size, (None,)),
        encoder=(backbone.encoder, ("auto", "linear")),
        norm=(backbone.norm, ("layer",)),
        norm_epsilon=(backbone.norm_epsilon, (1e-5,)),
        final_norm=(backbone.final_norm, (None,)),
        pooling=(model.pooling, ("mean",)),
        bottleneck=(backbone.bottleneck, (None,)),
        intermediate_dim=(backbone.intermediate_dim, (None,)),
    )
    if not isinstance(mixer, S4D) or (to == "s4-example" and isinstance(mixer, S4)):
        expected = "S4D (or S4PTD)" if to == "s4-example" else "S4D, S4PTD or S4"
        raise ValueError(
            f"A model for {to!r} must have a mixer {expected}. "
            f"Received: mixer {type(mixer).__name__}"
        )
    if to == "s4-example":
        check_supported(
            gate=(backbone.gate, ("glu",)),
            activation=(backbone.activation, ("gelu",)),
            discretization=(mixer.discretization, ("zoh",)),
            bidirectional=(mixer.bidirectional, (False,)),
            channels=(mixer.channels, (1,)),
            dt_tie=(mixer.dt_tie, (True,)),
            bandlimit=(mixer.bandlimit, (None,)),
            max_kernel_length=(mixer.max_kernel_length, (None,)),
        )
    else:
        check_supported(
            gate=(backbone.gate, ("glu", "full_glu", "linear")),
            activation=(backbone.activation, tuple(ACTIVATIONS.values())),
            max_kernel_length=(mixer.max_kernel_length, (None,)),
        )
    return mixer


def _block_arguments(model):
    """Arguments of the official `S4Block` that its tensors do not say."""
    backbone, mixer = model.backbone, model.backbone.blocks[0].mixer
    activation = next(k for k, v in ACTIVATIONS.items() if v == backbone.activation)
    return kernel(mixer) | {
        "channels": mixer.channels,
        "bidirectional": mixer.bidirectional,
        "activation": activation,
        "final_act": "id" if backbone.gate == "linear" else "glu",
    }


def kernel(mixer):
    """Arguments of the official kernel that its tensors do not say."""
    arguments = {
        "d_state": mixer.state_dim,
        "mode": "dplr" if isinstance(mixer, S4) else "diag",
        "n_ssm": int(mixer.B_real.shape[0]),
        "dt_transform": mixer.dt_transform,
        "dt_tie": mixer.dt_tie,
        "disc": mixer.discretization,
    }
    if isinstance(mixer, S4):
        return arguments | {"rank": mixer.rank}
    return arguments | {"bandlimit": mixer.bandlimit}


def _minimal(mixer):
    """Tensors of minimal S4D, whose B is within C and whose systems are one a feature."""
    dt, A, B, C = (_arrays(part) for part in mixer.continuous_system())
    B, C = B[0] + 1j * B[1], C[0] + 1j * C[1]
    as_is = mixer.dt_transform == "exp" and float(array(mixer.step_scale)) == 1.0
    log_dt = mixer.log_dt if as_is else np.log(dt)
    log_A = array(mixer.log_A_real)
    log_A = np.tile(log_A, (mixer.features // len(log_A), 1))
    return {
        "D": array(mixer.D)[0],
        "kernel.C": stacked((B * C[0]).real, (B * C[0]).imag),
        "kernel.log_dt": array(log_dt)[:, 0],
        "kernel.log_A_real": log_A,
        "kernel.A_imag": A[1],
    }


def _s4_block(mixer):
    """Tensors of S4Block; C is plain, and `l_kernel` says so."""
    return {"layer.D": array(mixer.D), **_kernel_tensors(mixer, "layer.kernel.")}


def axes(mixer):
    """Tensors of S4ND.

    Raises:
        ValueError: for axes of other or of unlike systems, which the official class has not.
    """
    layers = mixer.axis_layers
    kinds = {tuple(sorted((k, str(v)) for k, v in _alike(layer).items())) for layer in layers}
    whole = all(getattr(layer, "max_kernel_length", None) is None for layer in layers)
    if len(kinds) > 1 or not all(isinstance(layer, S4D) for layer in layers) or not whole:
        raise ValueError(
            "Axes of the official S4ND are S4D or S4 of the same options, with whole kernels. "
            f"Received: {[type(layer).__name__ for layer in layers]}"
        )
    tensors = {"D": array(mixer.D)}
    for i, layer in enumerate(layers):
        tensors |= _kernel_tensors(layer, f"kernel.{i}.")
    return tensors


def _alike(layer):
    """What all axes of the official class share."""
    options = kernel(layer) if isinstance(layer, S4D) else {"kind": type(layer)}
    return {**options, "bidirectional": layer.bidirectional}


def _kernel_tensors(mixer, prefix):
    """Tensors of a kernel; C is plain, and `l_kernel` says so."""
    tensors = {
        "inv_dt": _step(mixer),
        "C": stacked(mixer.C_real, mixer.C_imag),
        "B": stacked(mixer.B_real, mixer.B_imag)[None],
        "A_real": array(mixer.log_A_real),
        "A_imag": -array(mixer.A_imag),
    }
    if isinstance(mixer, S4):
        tensors["P"] = stacked(mixer.P_real, mixer.P_imag)
        tensors["l_kernel"] = np.array(0, "int64")
    return {prefix + name: value for name, value in tensors.items()}


def _step(mixer):
    """The step as it is stored, with the `step_scale`, which the files do not have, within it."""
    exp = mixer.dt_transform == "exp"
    stored = array(mixer.log_dt if exp else mixer.inv_dt)
    scale = float(array(mixer.step_scale))
    if scale == 1.0:
        return stored
    if getattr(mixer, "bandlimit", None) is not None:
        raise ValueError(
            "A band limit stays that of the samples a model was trained on, and the files of "
            "state-spaces/s4 have no `step_scale` beside it: set it to 1. "
            f"Received: step_scale={scale}, bandlimit={mixer.bandlimit}"
        )
    if exp:
        return stored + np.float32(np.log(scale))
    step = scale * np.logaddexp(0.0, stored.astype("float64"))
    return (step + np.log(-np.expm1(-step))).astype("float32")  # softplus undone


def _arrays(part):
    return tuple(map(array, part)) if isinstance(part, tuple) else array(part)
