"""Configurations of published Mamba models: each field is read, known as harmless, or refused."""

import math
from typing import NamedTuple

from keras_ssm.layers import Mamba, Mamba2

MIXERS = {"mamba": Mamba, "mamba2": Mamba2}

UNSET = object()


class MambaSpec(NamedTuple):
    """A published language model, before it is built.

    Fields:
        kind: str. `"mamba"` or `"mamba2"`.
        mixer: dict. Arguments of `Mamba` or `Mamba2`.
        backbone: dict. Arguments of `SSMBackbone` but for the mixer.
        tie_embeddings: bool.
        embedding: str. Name of the embedding's table in the file, `"embeddings"` or
            `"embedding"`; readers take both.
        rows: dict. Settings for the report; see `Report`.
        remarks: list of str. What a person should know.
    """

    kind: str
    mixer: dict
    backbone: dict
    tie_embeddings: bool
    embedding: str
    rows: dict
    remarks: list

    @property
    def inner_dim(self) -> int:
        """Features between the two projections of a mixer."""
        width, mixer = self.backbone["hidden_dim"], self.mixer
        return mixer.get("inner_dim") or int(mixer["expand"] * width)

    @property
    def dt_rank(self) -> int:
        """Rank of the steps' projection of `Mamba`."""
        rank = self.mixer["dt_rank"]
        return math.ceil(self.backbone["hidden_dim"] / 16) if rank == "auto" else rank

    def make_mixer(self):
        """The layer to stack, unbuilt."""
        return MIXERS[self.kind](**self.mixer)


class Fields:
    """The fields of a configuration, and which of them were read.

    Args:
        config: dict.
        source: str. What messages call it.

    Attributes:
        rows: dict of our names to `(value, origin, in_file)`; see `Report`.
    """

    def __init__(self, config: dict, source: str):
        self.config, self.source, self.rows, self._read = config, source, {}, set()

    def take(self, name, default, check, keras_name=None):
        """The value of a field, or the default of the published class.

        Args:
            name: str. The published name.
            default: what an absent field means, or `UNSET`: it must be there.
            check: callable. Whether a value is one; its docstring says what it must be.
            keras_name: str or `None`. Name of our argument, for the report.
        """
        self._read.add(name)
        value = self.config.get(name, default)
        if value is UNSET or (name in self.config and not check(value)):
            received = f"no {name}" if value is UNSET else f"{name}={value!r}"
            raise ValueError(
                f"`{name}` in {self.source} must be {check.__doc__}. Received: {received}"
            )
        if keras_name is not None:
            # An absent field means the default of the published class.
            self.rows[keras_name] = value, "file" if name in self.config else "default", True
        return value

    def require(self, name, allowed, why):
        """Raises a `ValueError` unless a field is absent or has one of the values."""
        self._read.add(name)
        if name in self.config and self.config[name] not in allowed:
            raise ValueError(
                f"`{name}` in {self.source} has no counterpart here: {why}. "
                f"Received: {name}={self.config[name]!r}"
            )

    def check_all_read(self, harmless):
        """Raises a `ValueError` for fields that are neither read nor known to change no number."""
        unknown = sorted(set(self.config) - self._read - set(harmless))
        if unknown:
            named = ", ".join(f"{name}={str(self.config[name])[:60]!r}" for name in unknown[:8])
            raise ValueError(
                f"Every field of {self.source} must be known, since it might change what the model "
                f"computes. Received: {named}"
            )


def flag(value):
    """true or false"""
    return isinstance(value, bool)


def count(value):
    """a positive integer"""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def number(value):
    """a positive number"""
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return plain and math.isfinite(value) and value > 0


def rank(value):
    """a positive integer or 'auto'"""
    return value == "auto" or count(value)


def names(value):
    """an object"""
    return isinstance(value, dict)


def bounds(value):
    """two numbers, the second of which may be infinite"""
    try:
        low, high = _pair(value)
    except (TypeError, ValueError):
        return False
    return 0 <= low <= high and math.isfinite(low)


def limit(value):
    """Bounds of dt as our layer takes them: `None` if there are none."""
    low, high = _pair(value)
    return None if low == 0 and high == math.inf else (low, high)


def _pair(value):
    """Infinity is written as a bare word, a string or an object, by one version or another."""
    low, high = (n.get("__float__") if isinstance(n, dict) else n for n in value)
    return float(low), float(high)
