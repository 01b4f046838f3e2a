"""Models over layers that hold their kernel, as checkpoints of safari and of SGConv."""

import numpy as np

from keras_ssm.convert.formats import longconv_example, s4_export, s4_lightning
from keras_ssm.convert.formats.longconv_kernel import one_circle
from keras_ssm.convert.formats.torch_arrays import array, put_dense, put_norm
from keras_ssm.convert.formats.torch_model import ACTIVATIONS
from keras_ssm.convert.mapping import check_supported
from keras_ssm.layers import S4ND, LongConv, SGConv
from keras_ssm.models import SSMClassifier, SSMImageClassifier

MIXERS = {"longconv-example": LongConv, "longconv-lightning": LongConv, "sgconv-lightning": SGConv}
MIXERS |= {"s4nd-lightning": S4ND}


def export(model, to):
    """Returns what a file holds, and remarks.

    Args:
        model: `SSMClassifier` over LongConv or SGConv, or `SSMImageClassifier` over S4ND.
        to: str. `"longconv-example"`, `"longconv-lightning"`, `"sgconv-lightning"` or
            `"s4nd-lightning"`.

    Returns:
        Tuple `(tensors, configuration, remarks)`: arrays by official names, the arguments of
        the official classes, and what a person should know.

    Raises:
        ValueError: for a model that the official classes do not cover.
    """
    backbone, mixer = model.backbone, model.backbone.blocks[0].mixer
    task = SSMImageClassifier if to == "s4nd-lightning" else SSMClassifier
    if not isinstance(mixer, MIXERS[to]) or not isinstance(model, task):
        raise ValueError(
            f"A model for {to!r} must be an {task.__name__} with a mixer {MIXERS[to].__name__}. "
            f"Received: a {type(model).__name__} with a mixer {type(mixer).__name__}"
        )
    example = to == "longconv-example"
    check_supported(
        norm=(backbone.norm, ("layer",)),
        norm_epsilon=(backbone.norm_epsilon, (1e-5,)),
        final_norm=(backbone.final_norm, (None if example or not backbone.prenorm else "layer",)),
        vocabulary_size=(backbone.vocabulary_size, (None,)),
        encoder=(backbone.encoder, ("auto", "linear")),
        pooling=(model.pooling, ("mean",)),
        bottleneck=(backbone.bottleneck, (None,)),
        intermediate_dim=(backbone.intermediate_dim, (None,)),
        gate=(backbone.gate, ("glu", "full_glu") if example else ("glu", "full_glu", "linear")),
        activation=(backbone.activation, ("gelu",) if example else tuple(ACTIVATIONS.values())),
    )
    if example:
        check_supported(
            bidirectional=(mixer.bidirectional, (True,)), smoothing=(mixer.smoothing, (None,))
        )
    tensors, remarks = {}, []
    layer, norm, head = _names(example)
    put_dense(tensors, "encoder", backbone.encoder_layer)
    for i, block in enumerate(backbone.blocks):
        stem = layer.format(i)
        tensors |= {stem + k: v for k, v in _layer(block.mixer, example).items()}
        last = "output_linear" if block.gate == "linear" else "output_linear.0"
        put_dense(tensors, stem + last, block.output_dense)
        put_norm(tensors, norm.format(i), block.norm)
    if backbone.final_norm is not None:
        put_norm(tensors, s4_lightning.LAST_NORM, backbone.last_norm)
    put_dense(tensors, head, model.head)
    configuration = _configuration(backbone, mixer, example)
    scale = getattr(model.preprocessor, "scale", 1.0)
    if scale not in (None, 1.0):
        remarks.append(f"The model multiplies its inputs by {scale}; the file cannot say so.")
        configuration["scale"] = scale
    return tensors, configuration, remarks


def _names(example):
    if example:
        return longconv_example.LAYER, longconv_example.NORM, "decoder"
    return s4_lightning.LAYER, s4_lightning.NORM, "decoder.output_transform"


def _layer(mixer, example):
    """Tensors of one layer."""
    if isinstance(mixer, S4ND):
        return s4_export.axes(mixer)
    tensors = {"D": array(mixer.D)}
    if isinstance(mixer, LongConv):
        entries = array(mixer.entries)
        return tensors | (
            {"kernel": one_circle(entries)} if example else {"kernel.kernel": entries}
        )
    tensors |= {f"kernel_list.{i}": piece for i, piece in enumerate(array(mixer.pieces))}
    if mixer.learnable_decay:
        tensors |= {"decay": array(mixer.decay), "multiplier": np.array(1.0, "float32")}
    else:
        decay = np.linspace(mixer.decay_min, mixer.decay_max, mixer.features)
        tensors["multiplier"] = decay.astype("float32").reshape(1, -1, 1)
    tensors["kernel_norm"] = array(mixer.kernel_norm)[..., None]
    return tensors | {"kernel_norm_initialized": np.array(True)}


def _configuration(backbone, mixer, example):
    if example:
        return {
            "prenorm": backbone.prenorm,
            "dropout": backbone.dropout,
            "kernel_lam": mixer.squash,
            "kernel_dropout": mixer.kernel_dropout,
        }
    activation = next(k for k, v in ACTIVATIONS.items() if v == backbone.activation)
    layer = {
        "channels": mixer.channels,
        "bidirectional": mixer.bidirectional,
        "activation": activation,
        "postact": None if backbone.gate == "linear" else "glu",
    }
    if isinstance(mixer, S4ND):
        one = mixer.axis_layers[0]
        layer |= {"dim": mixer.axes, "trank": mixer.rank, "linear": False, **s4_export.kernel(one)}
    else:
        layer["l_max"] = mixer.max_length
    if isinstance(mixer, LongConv):
        layer |= {"lam": mixer.squash, "kernel_dropout": mixer.kernel_dropout}
        layer |= {"weight_init": mixer.init, "use_ma_smoothing": mixer.smoothing is not None}
        layer |= {"ma_window_len": mixer.smoothing} if mixer.smoothing is not None else {}
    elif isinstance(mixer, SGConv):
        words = "sum" if mixer.composition == "sum" else "cat", "randn"
        words += ("nearest",) if mixer.interpolation == "nearest" else ()
        words += ("learnable",) if mixer.learnable_decay else ()
        layer |= {"kernel_dim": mixer.kernel_dim, "mode": "_".join(words)}
        layer |= {"n_scales": mixer.scales, "init_scale": mixer.missing_scales}
        layer |= {"decay_min": mixer.decay_min, "decay_max": mixer.decay_max}
    return {
        "model": {
            "prenorm": backbone.prenorm,
            "dropout": backbone.dropout,
            "tie_dropout": backbone.tie_dropout,
            "layer": layer,
        },
        "decoder": {"mode": "pool"},
        "mask_inputs": backbone.mask_inputs,
    }
