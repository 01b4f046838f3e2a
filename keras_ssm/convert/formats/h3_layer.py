"""Tensors of one layer of HazyResearch/H3 and HazyResearch/safari, read and written."""

import numpy as np

from keras_ssm.convert.formats.longconv_kernel import check_supported
from keras_ssm.convert.formats.torch_arrays import array, put_dense, stacked
from keras_ssm.convert.mapping import WeightMap, complex_parts, dense
from keras_ssm.convert.settings import UNSET
from keras_ssm.layers import H3

SHIFT, DIAGONAL = "ssm_k_kernel.kernel.", "kernel.kernel."

PROJECTIONS = {
    "q_dense": "q_proj",
    "k_dense": "k_proj",
    "v_dense": "v_proj",
    "output_dense": "output_linear",
}

# Options of the official layer that change its arithmetic and have no counterpart here.
WITHOUT_COUNTERPART = {"deterministic": (False, None), "mode": ("diag", None)}

HEADS_APART = (
    "With heads of several features the published code has two orders of the outputs: its CUDA "
    "kernel puts those of a head side by side, its PyTorch code those of all heads' first features "
    "first. Here they are as in the PyTorch code: a model trained by the CUDA kernel needs the "
    "rows of `output_dense` in the other order."
)


def is_h3(tensors, stem):
    """Whether the tensors at `stem` are those of the layer."""
    return f"{stem}{SHIFT}C" in tensors and f"{stem}{DIAGONAL}C" in tensors


def mixer(tensors, stem, settings, hyper):
    """The mixer of the layers, unbuilt.

    Args:
        tensors: `Tensors`.
        stem: str. Prefix of the first layer.
        settings: `Settings`.
        hyper: dict. Hyper-parameters of the layer, official names.
    """
    check_supported(hyper, WITHOUT_COUNTERPART)
    features, taps = tensors.shape(f"{stem}{SHIFT}B")
    heads = tensors.shape(f"{stem}D")[0]
    modes = tensors.shape(f"{stem}{DIAGONAL}A_imag")[1]
    arguments = {
        "state_dim": settings.derive("state_dim", 2 * modes),
        "head_dim": settings.derive("head_dim", features // heads),
        "shift_dim": settings.derive("shift_dim", taps),
        "discretization": settings.choose("discretization", "bilinear", hyper.get("disc", UNSET)),
        # Every initial value is replaced: the simplest will do.
        "init": settings.published("init", "lin"),
    }
    return H3(**settings.arguments(H3, arguments))


def weight_maps(tensors, stem, target):
    """The weight maps of one layer.

    Args:
        tensors: `Tensors`.
        stem: str. Prefix of the layer.
        target: str. Path of the mixer from the task model.
    """
    for ours, theirs in PROJECTIONS.items():
        yield from dense(f"{target}.{ours}", f"{stem}{theirs}", tensors)
    yield WeightMap(f"{target}.shift_B", (f"{stem}{SHIFT}B",), lambda x: x)
    yield WeightMap(f"{target}.shift_C", (f"{stem}{SHIFT}C",), lambda x: x[0])
    yield WeightMap(f"{target}.shift_D", (f"{stem}ssm_k_D",), lambda x: x)
    heads = tensors.shape(f"{stem}D")[0]
    diagonal = f"{target}.diagonal"

    def of_heads(x):
        return np.tile(x, (heads // len(x), *[1] * (x.ndim - 1)))

    copies = tensors.shape(f"{stem}{DIAGONAL}A_imag")[0]
    note = "" if copies == heads else f"one for each head, of {copies}"
    yield WeightMap(f"{diagonal}.log_dt", (f"{stem}{DIAGONAL}log_dt",), lambda x: x[:, None])
    names = {"log_A_real": "inv_A_real", "A_imag": "A_imag"}
    for ours, theirs in names.items():
        yield WeightMap(f"{diagonal}.{ours}", (f"{stem}{DIAGONAL}{theirs}",), of_heads, note)
    yield from complex_parts(f"{diagonal}.B", (f"{stem}{DIAGONAL}B",), of_heads, note)
    yield from complex_parts(f"{diagonal}.C", (f"{stem}{DIAGONAL}C",), lambda x: x, "")
    yield WeightMap(f"{diagonal}.D", (f"{stem}D",), lambda x: x[None])


def layer_tensors(layer):
    """A layer of ours as tensors of the published one, by their names."""
    tensors, diagonal = {}, layer.diagonal
    for ours, theirs in PROJECTIONS.items():
        put_dense(tensors, theirs, getattr(layer, ours))
    return tensors | {
        "ssm_k_D": array(layer.shift_D),
        f"{SHIFT}B": array(layer.shift_B),
        f"{SHIFT}C": array(layer.shift_C)[None],
        "D": array(diagonal.D)[0],
        f"{DIAGONAL}log_dt": array(diagonal.log_dt)[:, 0],
        f"{DIAGONAL}inv_A_real": array(diagonal.log_A_real),
        f"{DIAGONAL}A_imag": array(diagonal.A_imag),
        f"{DIAGONAL}B": stacked(diagonal.B_real, diagonal.B_imag),
        f"{DIAGONAL}C": stacked(diagonal.C_real, diagonal.C_imag),
    }
