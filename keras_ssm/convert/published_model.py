"""Published language models as models of this package, whatever the format of their directory."""

import contextlib
import inspect
import warnings
from pathlib import Path
from types import SimpleNamespace

from keras_ssm import presets
from keras_ssm.convert.assigning import assign_stored, hold_the_same
from keras_ssm.convert.containers.weight_files import open_weights
from keras_ssm.convert.formats import (
    hyena_hf,
    hyena_original,
    hyena_weights,
    mamba_codestral,
    mamba_hf,
    mamba_original,
    mamba_weights,
)
from keras_ssm.convert.formats.published_fields import MIXERS
from keras_ssm.convert.formats.published_weights import HEAD
from keras_ssm.convert.mapping import is_named
from keras_ssm.convert.published_tokenizer import preprocessor_of, special_token_ids
from keras_ssm.convert.report import Report
from keras_ssm.layers.initial_values import weights_from_file
from keras_ssm.models import SSMBackbone, SSMCausalLM
from keras_ssm.models.saving import published_formats

FORMATS = {
    presets.HF: mamba_hf,
    presets.ORIGINAL: mamba_original,
    presets.CODESTRAL: mamba_codestral,
    presets.HYENA_HF: hyena_hf,
    presets.HYENA_ORIGINAL: hyena_original,
}

# The names of the tensors, by the kind of mixer.
NAMES = {"mamba": mamba_weights, "mamba2": mamba_weights, "hyena": hyena_weights}

# Formats of transformers, whose configuration may say the ids of special tokens.
WITH_SPECIAL_IDS = (presets.HF, presets.HYENA_HF)

# Arguments of training, speed and precision: any value goes with the published weights.
FREE = (
    *("name", "trainable", "dtype", "seed", "chunk_size", "residual_dtype", "mask_inputs"),
    *("dropout", "tie_dropout", "encoder_dropout", "norm_momentum", "input_dim"),
    *("train_positions", "method"),
    *("dt_min", "dt_max", "dt_floor", "A_range", "residual_layers"),
)

# Missing tensors after which the list of them ends.
MANY = 100

# Blocks of every format.
BLOCKS = {"encoder": "embedding", "activation": None, "gate": None, "prenorm": True}


def read_published(
    directory, format, cls=SSMCausalLM, load_weights=True, config=None, ignore=(), overrides=None
):
    """Builds a model from a directory of published weights.

    Args:
        directory: `Path`. Its files were verified, as far as anything vouches for them.
        format: str. One of `FORMATS`.
        cls: class of the model: `SSMBackbone`, a task, or a base class of `SSMCausalLM`, which
            means `SSMCausalLM`.
        load_weights: bool. Whether the weights are read.
        config: dict or `None`. Fields over those of the configuration.
        ignore: list of str. Names or patterns of tensors that are left aside, and of weights that
            keep their initial values.
        overrides: dict or `None`. Arguments of the mixer, `SSMBackbone` or the class.

    Returns:
        Tuple `(model, Report)`.

    Raises:
        ValueError: for a configuration or files that are no such model, before one is built.
    """
    cls = SSMCausalLM if issubclass(SSMCausalLM, cls) else cls
    module, directory = FORMATS[format], Path(directory)
    path = directory / module.CONFIG
    document = {**presets.read_json(path), **(config or {})}
    spec = module.read_config(document, f"`{path}`")
    plan = _Plan(spec, cls, overrides or {}, fixed=load_weights)
    if issubclass(cls, SSMCausalLM) and "preprocessor" not in plan.task:
        characters = spec.kind == "hyena" and spec.backbone["vocabulary_size"]
        plan.task["preprocessor"] = preprocessor_of(directory, characters)
    if issubclass(cls, SSMCausalLM) and format in WITH_SPECIAL_IDS:
        special = special_token_ids(document, plan.spec.backbone["vocabulary_size"])
        plan.task.setdefault("special_token_ids", special)
    report = {"container": "configuration", "weights": [], "dropped": {}, "others": []}
    if not load_weights:
        model = plan.build()
        return model, Report(
            str(directory), format, settings=plan.rows, remarks=plan.spec.remarks, **report
        )
    tensors, report["container"], report["others"] = open_weights(directory, format)
    ignored = {name for name in tensors if is_named(name, ignore)}
    kept = {name: tensor for name, tensor in tensors.items() if name not in ignored}
    matched = _Matched(plan.spec, kept, ignore, directory)
    model = plan.build(from_file=not matched.keeps_initial_values)
    report["weights"] = list(matched.assign(model))
    report["dropped"] = {**matched.dropped, **dict.fromkeys(sorted(ignored), "ignored, as asked")}
    return model, Report(
        str(directory), format, settings=plan.rows, remarks=plan.spec.remarks, **report
    )


def load_published(cls, preset, load_weights=True, **overrides):
    """Loads a model of `from_preset`.

    Args:
        cls: class whose `from_preset` was called.
        preset: `presets.FoundPreset` with a `format`.
        load_weights: bool.
        **overrides: Arguments of the caller.
    """
    directory, format = preset.directory, preset.format
    model, _ = read_published(directory, format, cls, load_weights, overrides=overrides)
    return model


published_formats.register(load_published)


class _Plan:
    """What a model will be built of: the published settings, and those of the caller."""

    def __init__(self, spec, cls, overrides, fixed):
        self.cls, self.spec = cls, spec
        self.backbone_cls = cls if issubclass(cls, SSMBackbone) else cls.backbone_cls
        names = {
            "mixer": set(_defaults(MIXERS[spec.kind])),
            "backbone": set(_defaults(self.backbone_cls)),
            "task": set() if cls is self.backbone_cls else set(_defaults(cls)),
        }
        names["backbone"] -= names["task"]
        unknown = sorted(set(overrides) - set().union(*names.values()))
        if unknown:
            raise ValueError(
                f"Arguments must be those of {MIXERS[spec.kind].__name__}, "
                f"{self.backbone_cls.__name__} or {cls.__name__}. Received: {', '.join(unknown)}"
            )
        # Blocks and mixers have some names in common, which then mean those of the blocks.
        names["mixer"] -= names["backbone"] | names["task"]
        published = {**_defaults(MIXERS[spec.kind]), **spec.mixer, **self._backbone()}
        published["tie_embeddings"] = spec.tie_embeddings
        self.rows = dict(spec.rows)
        for name, value in overrides.items():
            if fixed and name in published and name not in FREE:
                _check_is_published(name, value, published[name])
            self.rows[name] = value, "given", False
        overrides_of = {k: {n: overrides[n] for n in overrides if n in names[k]} for k in names}
        self.task = overrides_of["task"]
        self.spec = spec._replace(
            mixer={**spec.mixer, **overrides_of["mixer"]},
            backbone={**spec.backbone, **overrides_of["backbone"]},
            tie_embeddings=self.task.get("tie_embeddings", spec.tie_embeddings),
        )

    def _backbone(self):
        """Arguments of the backbone."""
        return {**BLOCKS, "final_norm": self.spec.backbone["norm"], **self.spec.backbone}

    def build(self, from_file=False):
        """The model with initial weights; `from_file` if all of a language model are assigned."""
        without = weights_from_file if from_file else contextlib.nullcontext
        with without():
            backbone = self.backbone_cls(self.spec.make_mixer(), **self._backbone())
        if self.cls is self.backbone_cls:
            return backbone
        task = dict(self.task)
        if issubclass(self.cls, SSMCausalLM):
            task["tie_embeddings"] = self.spec.tie_embeddings
        elif self.cls.head_size not in task:
            raise ValueError(
                "A published language model has no head of another task: pass "
                f"`{self.cls.head_size}`, or load an `SSMCausalLM`. "
                f"Received: arguments {sorted(task)}"
            )
        elif "preprocessor" not in task:
            warnings.warn(
                f"`{self.cls.__name__}` turns texts into bytes, not into the tokens that this "
                "model was trained on: pass token ids, or a `preprocessor` of the right tokenizer.",
                stacklevel=2,
            )
        with without() if self.cls is SSMCausalLM else contextlib.nullcontext():
            return self.cls(backbone, **task)


class _Matched:
    """The tensors of a published model and the weights that they are for; checked, unread."""

    def __init__(self, spec, tensors, ignore, directory):
        self.tensors, self.directory, self.dropped = tensors, directory, {}
        self.family = NAMES[spec.kind]
        self.names = self.family.standard_names(tensors)
        self.weights, self.keeps_initial_values = [], False
        missing = []
        for weight in self.family.weights_of(spec):
            if weight.name in self.names:
                self.weights.append(weight)
            elif is_named(weight.name, ignore) or is_named(weight.target, ignore):
                self.dropped[weight.target] = "keeps its initial value, as asked"
                self.keeps_initial_values = True
            elif weight.derived:
                self.dropped[weight.target] = "not in the file: computed anew"
                self.keeps_initial_values = True
            else:
                missing.append(weight.name)
            if len(missing) == MANY:  # the number of layers may be huge
                break
        if missing:
            raise ValueError(
                f"The files of '{directory}' must hold every tensor of the model that its "
                f"configuration describes. Received: {len(missing)}"
                f"{' or more' * (len(missing) == MANY)} missing: "
                f"{', '.join(missing[:8])}"
            )
        if spec.tie_embeddings:
            self._check_tied()
        used = {weight.name for weight in self.weights} | ({HEAD} if spec.tie_embeddings else set())
        used |= self._beside()
        left = sorted(name for standard, name in self.names.items() if standard not in used)
        if left:
            raise ValueError(
                f"The files of '{directory}' must hold no tensor beside those of the model that "
                f"its configuration describes. Received: {len(left)} left over: "
                f"{', '.join(left[:8])}"
            )
        for weight in self.weights:
            self._check_shape(weight)

    def _check_tied(self):
        """A head of its own beside a configuration that ties it must be the table."""
        if HEAD not in self.names:
            return
        table = self.names.get(self.family.TABLE)
        head = self.names[HEAD]
        if table is None or not hold_the_same(self.tensors[head], self.tensors[table]):
            raise ValueError(
                f"The configuration of '{self.directory}' says that the head is the embeddings; "
                f"both tensors must then hold the same. Received: another '{head}' than '{table}'"
            )
        self.dropped[head] = "the embeddings once more"

    def _beside(self):
        """Standard names of tensors that no weight needs, which then hold what others hold."""
        extra = self.family.beside(self.names)
        for standard, twin in extra.items():
            name = self.names[standard]
            if twin is None:
                self.dropped[name] = "no part of the model"
                continue
            if not hold_the_same(self.tensors[name], self.tensors[self.names[twin]]):
                raise ValueError(
                    f"Tensors '{name}' and '{self.names[twin]}' of '{self.directory}' are one "
                    "parameter of the published model and must hold the same. Received: other "
                    "numbers"
                )
            self.dropped[name] = f"the same as {self.names[twin]}"
        return set(extra)

    def _check_shape(self, weight):
        name = self.names[weight.name]
        if self.tensors[name].shape != tuple(weight.shape):
            raise ValueError(
                f"Tensor '{name}' of '{self.directory}' must have the shape {weight.shape}, by its "
                f"configuration. Received: shape {self.tensors[name].shape}"
            )

    def assign(self, model):
        """Gives the weights their numbers; yields the rows of the report."""
        parts = model
        if isinstance(model, SSMBackbone):
            parts = SimpleNamespace(backbone=model)
        for weight in self.weights:
            name = self.names[weight.name]
            if weight.target.startswith("head.") and not isinstance(model, SSMCausalLM):
                self.dropped[name] = "the head of a language model"
                continue
            variable = find_weight(parts, weight.target)
            assign_stored(variable, self.tensors[name], weight.arranged, name)
            note = "transposed" if weight.arranged in ("transposed", "conv") else ""
            yield (name,), [weight.shape], weight.target, tuple(variable.shape), note


def find_weight(model, target):
    """Returns the weight at the end of a path of attributes, such as `"backbone.blocks.0.norm"`."""
    part = model
    for name in target.split("."):
        part = part[int(name)] if name.isdigit() else getattr(part, name)
    return part


def _defaults(cls):
    """Dict of the arguments of a class to their defaults, without the parts it is made of."""
    parts = ("self", "mixer", "backbone", "args", "kwargs")
    parameters = inspect.signature(cls.__init__).parameters
    return {name: p.default for name, p in parameters.items() if name not in parts}


def _check_is_published(name, value, published):
    same = tuple(value) == tuple(published) if _are_pairs(value, published) else value == published
    if not same and not (name == "encoder" and value == "auto"):
        raise ValueError(
            f"`{name}` of these weights is {published!r}: with another value the model would "
            "compute something else, or not fit them. `load_weights=False` makes such a model. "
            f"Received: {name}={value!r}"
        )


def _are_pairs(*values):
    return all(isinstance(value, (list, tuple)) for value in values)
