"""The kinds of pooling: their states, how two states are combined, and how a state is read.

A kind has `keys`, the parts of its state and their shapes and first values; `of_steps`, the states
of single steps `(batch, length, ...)`; `reduce`, those of whole sequences; `combine`, the state of
a sequence and what follows it; and `read`, the pooled value. Covered steps are the first state.
"""

from keras import ops

LOWEST = -1e30  # below every value that matters, and finite: differences of it are no NaN


class Mean:
    """The mean, by a sum whose rounding errors are kept, so that an endless stream goes on."""

    keys = {"total": ("features", 0.0), "rest": ("features", 0.0), "count": (1, 0)}

    def of_steps(self, x, mask):
        total = _valid(x, mask)
        return {"total": total, "rest": ops.zeros_like(total), "count": _count(mask)}

    def reduce(self, steps):
        return {key: ops.sum(part, axis=1) for key, part in steps.items()}

    def combine(self, a, b):
        total = a["total"] + b["total"]
        part = total - a["total"]
        lost = (a["total"] - (total - part)) + (b["total"] - part)
        return {"total": total, "rest": a["rest"] + b["rest"] + lost, "count": _both(a, b)}

    def read(self, state):
        count = ops.cast(ops.maximum(state["count"], 1), state["total"].dtype)
        return (state["total"] + state["rest"]) / count


class Last:
    """The last valid step."""

    keys = {"last": ("features", 0.0), "count": (1, 0)}

    def of_steps(self, x, mask):
        return {"last": _valid(x, mask), "count": _count(mask)}

    def reduce(self, steps):
        mask = steps["count"]
        seen = ops.cumsum(mask, axis=1)
        count = ops.sum(mask, axis=1, keepdims=True)
        last = ops.where((mask > 0) & (seen == count), steps["last"], 0.0)
        return {"last": ops.sum(last, axis=1), "count": count[:, 0]}

    def combine(self, a, b):
        last = ops.where(b["count"] > 0, b["last"], a["last"])
        return {"last": last, "count": _both(a, b)}

    def read(self, state):
        return state["last"]


class Max:
    """The largest value of each feature."""

    keys = {"max": ("features", LOWEST), "count": (1, 0)}

    def of_steps(self, x, mask):
        return {"max": ops.where(mask, x, LOWEST), "count": _count(mask)}

    def reduce(self, steps):
        return {"max": ops.max(steps["max"], axis=1), "count": ops.sum(steps["count"], axis=1)}

    def combine(self, a, b):
        return {"max": _larger(a["max"], b["max"]), "count": _both(a, b)}

    def read(self, state):
        return ops.where(state["count"] > 0, state["max"], 0.0)


class Attention:
    """The mean by weights e^score, whose largest exponent is taken out."""

    keys = {"total": ("features", 0.0), "weight": (1, 0.0), "max": (1, LOWEST)}

    def __init__(self, score):
        self.score = score

    def of_steps(self, x, mask):
        x = _valid(x, mask)
        weight = ops.cast(mask, x.dtype)
        return {"total": x, "weight": weight, "max": ops.where(mask, self.score(x), LOWEST)}

    def reduce(self, steps):
        largest = ops.max(steps["max"], axis=1, keepdims=True)
        share = steps["weight"] * ops.exp(steps["max"] - largest)
        total = ops.sum(share * steps["total"], axis=1)
        return {"total": total, "weight": ops.sum(share, axis=1), "max": largest[:, 0]}

    def combine(self, a, b):
        largest = _larger(a["max"], b["max"])
        left, right = ops.exp(a["max"] - largest), ops.exp(b["max"] - largest)
        return {
            "total": left * a["total"] + right * b["total"],
            "weight": left * a["weight"] + right * b["weight"],
            "max": largest,
        }

    def read(self, state):
        weight = state["weight"]
        return state["total"] / ops.where(weight > 0, weight, 1.0)


def running(kind, steps, first):
    """The states after each step, by doubling: a step is combined with that 2^k steps before it.

    Args:
        kind: one of the kinds above.
        steps: what its `of_steps` returned, of a known length.
        first: dict. The state before the first step, as `initial` makes it.
    """
    length = next(iter(steps.values())).shape[1]
    distance = 1
    while distance < length:
        earlier = {
            key: ops.pad(
                part[:, : length - distance],
                [(0, 0), (distance, 0), (0, 0)],
                constant_values=kind.keys[key][1],
            )
            for key, part in steps.items()
        }
        steps = kind.combine(earlier, steps)
        distance *= 2
    return kind.combine({key: ops.expand_dims(part, 1) for key, part in first.items()}, steps)


def _valid(x, mask):
    return ops.where(mask, x, ops.zeros_like(x))


def _count(mask):
    return ops.cast(mask, "int32")


def _larger(a, b):
    # Not `ops.maximum`, which drops to float32 on PyTorch. NaN stays NaN.
    return ops.where((a >= b) | (a != a), a, b)


def _both(a, b):
    # An endless stream stays at the largest count.
    left = 2**31 - 1 - b["count"]
    return ops.minimum(a["count"], left) + b["count"]
