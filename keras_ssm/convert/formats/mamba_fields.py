"""What the configurations of published Mamba models have beside those of others."""

import math

from keras_ssm.convert.formats.published_fields import PublishedSpec, count


class MambaSpec(PublishedSpec):
    """A published Mamba or Mamba-2, before it is built."""

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


def rank(value):
    """a positive integer or 'auto'"""
    return value == "auto" or count(value)


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
