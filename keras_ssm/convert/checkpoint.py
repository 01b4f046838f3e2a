"""Models from published checkpoints."""

from collections.abc import Collection
from pathlib import Path

import keras
import numpy as np

from keras_ssm import presets
from keras_ssm.checks import check_choice
from keras_ssm.convert import published_model
from keras_ssm.convert.containers.checkpoint_file import read_checkpoint_file, read_configuration
from keras_ssm.convert.formats import (
    dss_lightning,
    h3_lightning,
    h3_lm,
    longconv_example,
    longconv_lightning,
    lru_flax,
    s4_example,
    s4_lightning,
    s4nd_lightning,
    s5_flax,
    sgconv_lightning,
)
from keras_ssm.convert.mapping import is_named
from keras_ssm.convert.published_model import find_weight, read_published
from keras_ssm.convert.report import Report
from keras_ssm.convert.settings import Settings
from keras_ssm.convert.tensors import Tensors
from keras_ssm.convert.wrapped_names import unwrap
from keras_ssm.models import SSMBackbone, SSMCausalLM
from keras_ssm.types import PathLike

FORMATS = {
    "s4-example": s4_example,
    "longconv-example": longconv_example,
    "longconv-lightning": longconv_lightning,
    "sgconv-lightning": sgconv_lightning,
    "h3-lightning": h3_lightning,  # before S4, whose kernel it holds
    "h3-lm": h3_lm,
    "s4nd-lightning": s4nd_lightning,
    "s4-lightning": s4_lightning,
    "dss-lightning": dss_lightning,
    "s5-flax": s5_flax,
    "lru-flax": lru_flax,
    **published_model.FORMATS,
}


def load_checkpoint(
    path: PathLike,
    format: str = "auto",
    config: dict | PathLike | None = None,
    ignore: Collection[str] = (),
    **overrides: object,
) -> keras.Model:
    """Loads a published checkpoint as a task model that computes the same numbers.

    Nothing in the file is run: pickles are read by an unpickler that knows no classes, and
    neither PyTorch nor flax is needed. Wrappers in front of the names of tensors do not matter.

    Args:
        path: str or `Path`. A checkpoint of state-spaces/s4 (`example.py`, Lightning, bare state
            dict), ag1988/dss, HazyResearch/safari (H3, long convolutions),
            ctlllll/SGConv, lindermanlab/S5 or NicolasZucchet/minimal-LRU (flax msgpack, npz), or
            safetensors with the names of one of them. A `NAME.json` beside it is read as its
            configuration. Or a language model of HazyResearch/H3, or the directory of a Mamba
            model (of transformers, of state-spaces/mamba, or Codestral's) or of HyenaDNA.
        format: str. `"s4-example"`, `"s4-lightning"`, `"s4nd-lightning"`, `"dss-lightning"`,
            `"s5-flax"`, `"lru-flax"`, `"longconv-example"`, `"longconv-lightning"`,
            `"sgconv-lightning"`, `"h3-lightning"`, `"h3-lm"`, `"mamba-hf"`, `"mamba-original"`,
            `"mamba-codestral"`, `"hyena-hf"`, `"hyena-original"`, or `"auto"`: by the names of the
            tensors, or the configuration in a directory. Defaults to `"auto"`.
        config: dict, str or `Path`, or `None`. The configuration of the training run by its
            official names, or a JSON or YAML file of it, over what the checkpoint says; or
            arguments of our classes, as in `overrides`.
        ignore: str or sequence of str. Names, or patterns such as `"ema.*"`, of tensors that are
            left aside (with the wrappers in front of them or without), and of weights that keep
            their initial values.
        **overrides: Arguments of our classes, such as `prenorm=True` or `pooling="last"`, that
            the file cannot say, or says otherwise; and `real_transform`, `imag_transform` of S4.

    Returns:
        `SSMClassifier`, `SSMPairClassifier` for models of retrieval, `SSMImageClassifier` for
        S4ND, or `SSMCausalLM` for a language model.

    Raises:
        ValueError: for a damaged, unsafe or unknown file, tensors that are missing, left over
            or of other shapes, several models in one file, an option of the official code that
            has no counterpart here, an unknown or contradicted override, or no `prenorm` (of S5
            and LRU also no `encoder`, of long convolutions no `squash`) where neither the file nor
            a configuration says it.
        ImportError: if a library that the file needs is not installed.

    Example:
        ```python
        arrays = {"encoder.weight": np.zeros((8, 1)), "encoder.bias": np.zeros(8)}
        arrays |= {"decoder.weight": np.zeros((3, 8)), "decoder.bias": np.zeros(3)}
        layer = {"D": (8,), "kernel.C": (8, 4, 2), "kernel.log_dt": (8,)}
        layer |= {"kernel.log_A_real": (8, 4), "kernel.A_imag": (8, 4)}
        layer |= {"output_linear.0.weight": (16, 8, 1), "output_linear.0.bias": (16,)}
        arrays |= {f"s4_layers.0.{name}": np.zeros(shape) for name, shape in layer.items()}
        arrays |= {"norms.0.weight": np.ones(8), "norms.0.bias": np.zeros(8)}
        np.savez("small.npz", **arrays)
        small = keras_ssm.convert.load_checkpoint("small.npz", prenorm=False)  # SSMClassifier
        ```

    Reference:
        [S4](https://github.com/state-spaces/s4), [DSS](https://github.com/ag1988/dss),
        [S5](https://github.com/lindermanlab/S5),
        [LRU](https://github.com/NicolasZucchet/minimal-LRU).
    """
    return read_model(path, format, config, ignore, overrides)[0]


def read_model(path, format="auto", config=None, ignore=(), overrides=None):
    """Returns `(model, report)`; see `load_checkpoint`."""
    if isinstance(config, (str, Path)):
        config = read_configuration(config)
    path = presets.directory_of(Path(path).expanduser())
    if path.is_dir():
        return _read_directory(path, format, config, ignore, overrides)
    file = read_checkpoint_file(path)
    return build_model(file, str(path), format, config, ignore, overrides)


def _read_directory(path, format, config, ignore, overrides):
    check_choice("format", format, ["auto", *FORMATS])
    format_found = presets.published_format(path)
    if format_found is None or format not in ("auto", format_found):
        raise ValueError(
            f"'{path}' must be a file, or a directory of a published model with its "
            f"configuration. Received: format={format!r}, a directory of "
            f"{'no known format' if format_found is None else format_found}"
        )
    ignore = [ignore] if isinstance(ignore, str) else list(ignore)
    return read_published(path, format_found, config=config, ignore=ignore, overrides=overrides)


def build_model(file, source="tensors", format="auto", config=None, ignore=(), overrides=None):
    """Returns `(model, report)` for what a file holds.

    Args:
        file: `CheckpointFile`.
        source: str. What messages call it.
        format, config, ignore: as in `load_checkpoint`.
        overrides: dict or `None`. As in `load_checkpoint`.
    """
    check_choice("format", format, ["auto", *FORMATS])
    ignore = [ignore] if isinstance(ignore, str) else list(ignore)
    try:
        return _build(file, source, format, config, ignore, overrides or {})
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if "Received: " in str(error):
            raise
        # Tensors and settings can be wrong in many ways.
        raise ValueError(
            f"Tensors and settings of '{source}' must be of the shapes and kinds that its format "
            f"has. Received: {type(error).__name__}: {error}"
        ) from error


def _build(file, source, format, config, ignore, overrides):
    short_names = unwrap([name for name in file.tensors if not is_named(name, ignore)])
    tensors = Tensors(
        {b: file.tensors[n] for n, b in short_names.items() if not is_named(b, ignore)}
    )
    ignored = {name for name in file.tensors if short_names.get(name) not in tensors}
    if format == "auto":
        format = _recognised(tensors, source)
    elif not FORMATS[format].recognises(tensors):
        raise ValueError(
            f"'{source}' must hold the tensors of format {format!r}. "
            f"Received: {', '.join(list(tensors.arrays)[:6])}, ..."
        )
    settings = Settings(overrides, file.hyper_parameters, config)
    spec = FORMATS[format].read(tensors, settings)
    backbone = SSMBackbone(spec.mixer, **settings.arguments(SSMBackbone, spec.backbone))
    arguments = settings.arguments(spec.task, spec.task_arguments)
    preprocessor = _preprocessor(spec.task, settings, backbone)
    settings.check_all_used(type(spec.mixer), SSMBackbone, spec.task)
    model = spec.task(backbone, preprocessor=preprocessor, **arguments)
    missing = [a for a in spec.weight_maps if _may_be_missing(a, tensors, ignore)]
    weights = [_assign(model, tensors, a) for a in spec.weight_maps if a not in missing]
    _check_complete(model, spec.weight_maps, tensors, ignore)
    dropped = {**tensors.dropped, **dict.fromkeys(sorted(ignored), "ignored, as asked")}
    dropped |= {a.target: "keeps its initial value, as asked" for a in missing}
    report = Report(
        source,
        format,
        file.container,
        settings.rows,
        weights,
        dropped,
        file.others,
        spec.remarks,
    )
    return model, report


def _may_be_missing(weight_map, tensors, ignore):
    """Whether a weight lacks its tensor, and one of the two is named as to be ignored."""
    lacking = [name for name in weight_map.sources if name not in tensors]
    return any(is_named(name, ignore) for name in (*lacking, weight_map.target) if lacking)


def _recognised(tensors, source):
    for name, module in FORMATS.items():
        if module.recognises(tensors):
            return name
    raise ValueError(
        f"'{source}' must hold the tensors of one of the formats {', '.join(FORMATS)}. "
        f"Received: {', '.join(sorted(tensors.arrays)[:8])}, ..."
    )


def _preprocessor(task, settings, backbone):
    if issubclass(task, SSMCausalLM):  # a file of tensors holds no tokenizer
        return None
    cls = task.preprocessor_cls
    if task.reads_images:
        return cls(axes=backbone.axes, scale=settings.published("scale", None))
    arguments = {"tokens": backbone.vocabulary_size is not None}
    if not arguments["tokens"]:
        arguments["scale"] = settings.published("scale", 1.0)
    return cls(**settings.arguments(cls, arguments))


def _assign(model, tensors, weight_map):
    """Gives a weight its value; returns its row of the report."""
    arrays = [tensors[name] for name in weight_map.sources]
    doubles = [a if a.dtype.kind == "c" else a.astype("float64") for a in arrays]
    value = np.asarray(weight_map.function(*doubles))
    variable = find_weight(model, weight_map.target)
    shapes = [a.shape for a in arrays]
    if value.shape != tuple(variable.shape):
        raise ValueError(
            f"Tensor '{', '.join(weight_map.sources)}' must give {weight_map.target} the shape "
            f"{tuple(variable.shape)}. Received: shape {value.shape}, from {shapes}"
        )
    if not np.isfinite(value).all():
        raise ValueError(
            f"Tensor '{', '.join(weight_map.sources)}' must be finite. "
            f"Received: {int((~np.isfinite(value)).sum())} entries that are not"
        )
    variable.assign(value.astype(variable.dtype))
    return weight_map.sources, shapes, weight_map.target, value.shape, weight_map.note


def _check_complete(model, weight_maps, tensors, ignore):
    """Raises a `ValueError` for tensors that nothing used and weights that nothing gave."""
    unused = tensors.unused()
    if unused:
        raise ValueError(
            "Every tensor must be used or ignored by name. "
            f"Received: {len(unused)} left over: {', '.join(unused[:12])}"
        )
    assigned = {id(find_weight(model, weight_map.target)) for weight_map in weight_maps}
    others = [weight for weight in model.weights if id(weight) not in assigned]
    # Neither is trained.
    missing = [
        weight.path
        for weight in others
        if weight.name not in ("step_scale", "seed_generator_state")
    ]
    missing = [path for path in missing if not is_named(path, ignore)]
    if missing:
        raise ValueError(
            "Every weight of the model must come from the checkpoint or be ignored by name. "
            f"Received: nothing for {', '.join(missing[:12])}"
        )
