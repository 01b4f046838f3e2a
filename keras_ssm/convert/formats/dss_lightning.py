"""Lightning checkpoints of ag1988/dss, and their bare state dicts."""

from keras_ssm.convert.formats.s4_kernel import check_supported
from keras_ssm.convert.formats.s4_lightning import (
    LAYER,
    layer_hyper_parameters,
    sequence_model,
    torch_lightning,
)
from keras_ssm.convert.mapping import WeightMap, complex_parts, same
from keras_ssm.convert.settings import UNSET
from keras_ssm.layers import DSS

# Largest real part of an eigenvalue under "clip", the only one that our layer has.
LARGEST_REAL_PART = 1e-4


def recognises(tensors):
    """Whether the tensors are named as in this format."""
    return torch_lightning(tensors) and f"{LAYER.format(0)}kernel.W" in tensors


def read(tensors, settings):
    """Returns the `ModelSpec` of a checkpoint.

    Args:
        tensors: `Tensors`.
        settings: `Settings`.
    """
    hyper = layer_hyper_parameters(settings)
    check_supported(hyper)
    mixer = _mixer(tensors, settings, hyper)

    def weight_maps(stem, target):
        return _weight_maps(tensors, stem, target)

    spec = sequence_model(tensors, settings, hyper, mixer, weight_maps)
    spec.backbone["mask_inputs"] = settings.published("mask_inputs", False)
    if mixer.variant == "softmax":
        spec.remarks.append(
            "The kernel is normalised over the length of the input: pad as in training."
        )
    return spec


def _mixer(tensors, settings, hyper):
    kernel = f"{LAYER.format(0)}kernel."
    published = "exp-re-im" if f"{kernel}Lambda_log_im" in tensors else "exp"
    if f"{kernel}Lambda" in tensors:
        published = "softmax"
    variant = settings.choose("variant", published, hyper.get("version", UNSET))
    if variant.startswith("exp") != (f"{kernel}Lambda" not in tensors):
        raise ValueError(
            f"`variant` must fit the eigenvalues of the checkpoint, such as {published!r}. "
            f"Received: variant={variant!r}"
        )
    limit = hyper.get("max_real_Lambda", LARGEST_REAL_PART)
    if variant.startswith("clip") and limit != LARGEST_REAL_PART:
        raise ValueError(
            f"`max_real_Lambda` of a clipped layer must be {LARGEST_REAL_PART}. "
            f"Received: max_real_Lambda={limit}"
        )
    W, D = tensors.shape(f"{kernel}W"), tensors.shape(f"{LAYER.format(0)}D")
    log_dt = tensors.shape(f"{kernel}log_dt")
    arguments = {
        "state_dim": settings.derive("state_dim", W[2]),
        "channels": settings.derive("channels", D[0]),
        "bidirectional": settings.derive("bidirectional", W[0] == 2 * D[0]),
        "sep_dt_re_im": settings.derive("sep_dt_re_im", log_dt[1:] == (2,)),
        "variant": variant,
        "max_kernel_length": settings.choose(
            "max_kernel_length", None, hyper.get("max_kernel_length", UNSET)
        ),
    }
    return DSS(**settings.arguments(DSS, arguments))


def _weight_maps(tensors, stem, target):
    kernel = f"{stem}kernel."
    yield WeightMap(f"{target}.D", (f"{stem}D",), same)
    yield WeightMap(f"{target}.log_dt", (f"{kernel}log_dt",), lambda x: x.reshape(len(x), -1))
    if f"{kernel}Lambda" in tensors:
        yield from complex_parts(f"{target}.A", (f"{kernel}Lambda",), same, "")
    else:
        yield WeightMap(f"{target}.log_A_real", (f"{kernel}Lambda_log_neg_re",), same)
        imag = tensors.first(f"{kernel}Lambda_log_im", f"{kernel}Lambda_im")
        weight = "log_A_imag" if imag.endswith("_log_im") else "A_imag"
        yield WeightMap(f"{target}.{weight}", (imag,), same)
    yield from complex_parts(f"{target}.C", (f"{kernel}W",), same, "")
