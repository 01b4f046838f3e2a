import inspect

from keras_ssm.layers import DSS, H3, LRU, S4, S4D, S4ND, S5, LongConv, SGConv
from keras_ssm.models import (
    SequencePreprocessor,
    SSMBackbone,
    SSMCausalLM,
    SSMClassifier,
    SSMPairClassifier,
)

UNSET = object()

CLASSES = (DSS, H3, LRU, S4, S4D, S4ND, S5, LongConv, SGConv)
CLASSES += (SSMBackbone, SSMClassifier, SSMPairClassifier, SSMCausalLM, SequencePreprocessor)


def _argument_names(*classes):
    names = {name for cls in classes for name in inspect.signature(cls.__init__).parameters}
    return names - {"self", "kwargs", "mixer", "backbone", "preprocessor"}


NAMES = _argument_names(*CLASSES) | {"real_transform", "imag_transform"}


class Settings:
    """What the tensors of a checkpoint do not say, and where each value came from.

    Args:
        given: dict. Values that a person gave, by the constructor names of our classes.
        hyper_parameters: dict. The configuration of the training run in the file, official
            names.
        config: dict or `None`. What a person gave of it, which goes over that in the file.
            Constructor names count as `given`, unless it is that of a whole run (`model: ...`).

    Attributes:
        rows: dict of name to `(value, origin, in_file)`; the origin is `"given"`, `"config"`,
            `"file"`, `"default"`, `"tensors"` or `"format"`, and `in_file` says whether the file
            said it.
    """

    def __init__(self, given, hyper_parameters, config=None):
        config = config or {}
        whole_run = isinstance(config.get("model"), dict)
        named = {} if whole_run else {k: v for k, v in config.items() if k in NAMES}
        self.given = {**named, **given}
        self.hyper_parameters = {**hyper_parameters, **config}
        self._origin, self._in_file = "config" if config else "file", bool(hyper_parameters)
        self.rows = {}

    def hyper(self, *path, default=UNSET):
        """A hyper-parameter by its path, with references to others (`${a.b}`) resolved."""
        value = self.hyper_parameters
        for key in path:
            if not isinstance(value, dict) or key not in value:
                return default
            value = value[key]
        if isinstance(value, str) and "${" in value:
            inner = value.removeprefix("${").removesuffix("}")
            plain = value == f"${{{inner}}}" and inner.replace(".", "").replace("_", "").isalnum()
            if not plain or inner.split(".") == list(path):
                return default
            return self.hyper(*inner.split("."), default=default)
        return value

    def choose(self, name, default, file=UNSET):
        """The value of a name: as given, else what the file says, else the default.

        Args:
            name: str. The constructor name.
            default: the published default.
            file: what the hyper-parameters say, or `UNSET`.
        """
        in_file = file is not UNSET and self._in_file
        if name in self.given:
            value, origin = self.given[name], "given"
        elif file is not UNSET:
            value, origin = file, self._origin
        else:
            value, origin = default, "default"
        self.rows[name] = value, origin, in_file
        return value

    def ask(self, name, file=UNSET, choices=(True, False)):
        """The value of a name that decides the numbers: given, or in the file, never assumed.

        Args:
            name: str. The constructor name.
            file: what the hyper-parameters say, or `UNSET`.
            choices: tuple. The values that there are.
        """
        value = self.choose(name, UNSET, file)
        if type(value) in map(type, choices) and value in choices:
            return value
        listed = " or ".join(f"{name}={choice!r}" for choice in choices)
        received = f"no {name}" if value is UNSET else f"{name}={value!r}"
        raise ValueError(
            f"`{name}` cannot be seen in the tensors, and with another value the model computes "
            f"other numbers: give {listed} (on the command line --set {name}=...), or the "
            f"configuration of the training run. Received: {received}"
        )

    def published(self, name, value):
        """The value that every model of this format has, unless another is given or written."""
        file = self.hyper(name)
        if name in self.given or file is not UNSET:
            return self.choose(name, value, file)
        self.rows[name] = value, "format", True
        return value

    def derive(self, name, value):
        """Records a value that the tensors fix; raises a `ValueError` if another was given."""
        if name in self.given and self.given[name] != value:
            raise ValueError(
                f"`{name}` must be {value!r}, as the tensors of the checkpoint have it. "
                f"Received: {name}={self.given[name]!r}"
            )
        self.rows[name] = value, "tensors", True
        return value

    def arguments(self, cls, fixed):
        """The arguments of a class: `fixed`, and what else was given for it.

        Args:
            cls: class of ours.
            fixed: dict of the arguments that the checkpoint fixes.
        """
        names = _argument_names(cls) - set(fixed)
        extra = {name: self.given[name] for name in self.given if name in names}
        extra = {name: value for name, value in extra.items() if name not in self.rows}
        for name, value in extra.items():
            self.rows[name] = value, "given", False
        return {**fixed, **extra}

    def check_all_used(self, *classes):
        """Raises a `ValueError` for a given name that nothing takes."""
        unknown = sorted(set(self.given) - set(self.rows))
        if unknown:
            names = sorted(_argument_names(*classes) | set(self.rows))
            raise ValueError(
                f"Settings must be arguments of {', '.join(name.__name__ for name in classes)}, "
                f"or of this format: {', '.join(names)}. Received: {', '.join(unknown)}"
            )
