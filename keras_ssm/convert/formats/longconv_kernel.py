"""Tensors of one long convolution of HazyResearch/safari: the layer, and the standalone one."""

import numpy as np

from keras_ssm.convert.mapping import WeightMap, same
from keras_ssm.convert.settings import UNSET
from keras_ssm.layers import LongConv

INITS = {"random": "random", "double_exp": "double_exp"}

# Options of the official layer that change its arithmetic and have no counterpart here.
WITHOUT_COUNTERPART = {
    "smooth_freq": (False, None),
    "weight_norm": (False, None),
    "block_fft_conv": (False, None),
}

SHORT_INPUTS = (
    "The published layer wraps the end of its kernel around inputs of fewer than {length} steps, "
    "which then see later samples. Here such inputs meet the beginning of the kernel, and outputs "
    "differ."
)


def check_supported(hyper, without_counterpart):
    """Raises a `ValueError` for an option of the official layer that ours has not."""
    for name, allowed in without_counterpart.items():
        value = hyper.get(name)
        if name in hyper and value not in allowed:
            raise ValueError(
                f"A checkpoint trained with the option `{name}` of the official layer cannot be "
                f"converted. Received: {name}={value!r}"
            )


def find_squash(settings, file):
    """The threshold, which decides the numbers and is never assumed."""
    squash = settings.choose("squash", UNSET, file)
    if squash is UNSET:
        raise ValueError(
            "`squash` cannot be seen in the tensors, and with another value the model computes "
            "other numbers: give the `lam` or `kernel_lam` of the training run, such as "
            "squash=0.003. Received: no squash"
        )
    return squash


def mixer(tensors, stem, settings, hyper):
    """The mixer of the layers, unbuilt.

    Args:
        tensors: `Tensors`.
        stem: str. Prefix of the first layer.
        settings: `Settings`.
        hyper: dict. Hyper-parameters of the layer, official names.
    """
    check_supported(hyper, WITHOUT_COUNTERPART)
    planes, _, length = tensors.shape(f"{stem}kernel.kernel")
    channels = tensors.shape(f"{stem}D")[0]
    window = hyper.get("ma_window_len", 7) if hyper.get("use_ma_smoothing") else None
    init = INITS.get(hyper.get("weight_init"), "random")  # of initial values, which are replaced
    arguments = {
        "max_length": settings.derive("max_length", length),
        "channels": settings.derive("channels", channels),
        "bidirectional": settings.derive("bidirectional", planes == 2 * channels),
        "squash": find_squash(settings, hyper.get("lam", UNSET)),
        "smoothing": settings.choose("smoothing", None, window if hyper else UNSET),
        "kernel_dropout": settings.choose(
            "kernel_dropout", 0.0, hyper.get("kernel_dropout", UNSET)
        ),
        "init": settings.published("init", init),
    }
    return LongConv(**settings.arguments(LongConv, arguments))


def weight_maps(stem, target):
    """The weight maps of one layer."""
    yield WeightMap(f"{target}.D", (f"{stem}D",), same)
    yield WeightMap(f"{target}.entries", (f"{stem}kernel.kernel",), same)


def two_sided(kernel):
    """A standalone kernel of 2 L entries, of which those after L are negative lags, as ours."""
    length = kernel.shape[-1] // 2
    later = np.flip(kernel[..., length + 1 :], axis=-1)  # from lag -1 on
    later = np.concatenate([later, np.zeros_like(later[..., :1])], axis=-1)
    return np.concatenate([kernel[..., :length], later], axis=0)


def one_circle(kernel):
    """Undoes `two_sided`."""
    past, later = np.split(kernel, 2, axis=0)
    later = np.flip(later[..., :-1], axis=-1)
    return np.concatenate([past, np.zeros_like(past[..., :1]), later], axis=-1)
