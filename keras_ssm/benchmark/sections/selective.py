"""Times of `Mamba`, `Mamba2` and `DeltaNet`, in turn with the forms of others."""

import numpy as np

from keras_ssm import layers
from keras_ssm.benchmark.stepping import layer_function, passes
from keras_ssm.benchmark.timing import alternate
from keras_ssm.benchmark.yardsticks.selective import LONGEST_SLOW, forms
from keras_ssm.ops.delta import delta_rule
from keras_ssm.ops.selective_scan import selective_scan
from keras_ssm.ops.ssd import ssd

# (batch, length, inner features, state); of DeltaNet the state has a matrix for each head
SHAPES = ((2, 1024, 256, 16), (2, 4096, 256, 16))
HEAD_DIM = 64
NAMES = ("Mamba", "Mamba2", "DeltaNet")


def rows(seconds, shapes=SHAPES):
    """Yields a dict for each layer and shape, of the layer and of its recurrence in every form.

    `forward` and `training` (forward and all gradients) are medians in seconds. The `form` is
    `"layer"`, with projections and convolution, or `"recurrence"`. The `method` is `"ours"` or one
    of `yardsticks.selective.forms`, with the `ratio` of its training pass to ours. The slow path is
    timed up to `LONGEST_SLOW` steps. Beyond, `training` and `forward` continue a + b times the
    length, squared for the gradient, and `measured_to` says from where.

    Args:
        seconds: float. Time for each function.
        shapes: list of `(batch, length, inner features, state)`.
    """
    for shape in map(tuple, shapes):
        for name in NAMES:
            forms = variants(name, shape)
            pairs = {key: both for key, both in forms.items() if both is not None}
            times = iter(alternate([f for both in pairs.values() for f in both], seconds, 1, 2))
            times = {key: (next(times), next(times)) for key in pairs}
            own_seconds = times["recurrence", "ours"][1]
            for form, method in forms:
                row = {"layer": name, "form": form, "method": method, "shape": list(shape)}
                if (form, method) in times:
                    forward, training = times[form, method]
                else:
                    forward, training = _continued(name, method, shape)
                    row["measured_to"] = LONGEST_SLOW
                row.update(forward=forward, training=training)
                if method != "ours":
                    row["ratio"] = training / own_seconds
                yield row


def variants(name, shape):
    """Passes by form and method, `None` where a form would take minutes.

    Args:
        name: str. Of `NAMES`.
        shape: tuple `(batch, length, inner features, state)`.

    Returns:
        Dict from `(form, method)` to `(forward, training)`, as `stepping.passes` gives them.
    """
    batch, length, inner, state = shape
    size = min(HEAD_DIM, inner)
    settings = {
        "Mamba": {"state_dim": state},
        "Mamba2": {"state_dim": state, "head_dim": size},
        "DeltaNet": {"heads": inner // size, "head_dim": size},
    }
    layer = getattr(layers, name)(seed=0, **settings[name])
    layer.build((None, None, inner // 2))
    x, upstream = np.random.default_rng(0).standard_normal((2, batch, length, inner // 2))
    x, upstream = x.astype("float32"), upstream.astype("float32")
    passes_of_form = {("layer", "ours"): passes(*layer_function(layer), x, upstream)}
    arguments = inputs(name, shape)
    passes_of_form["recurrence", "ours"] = passes(recurrence(name), *arguments)
    for method, function in forms(name).items():
        slow = method == "slow path" and length > LONGEST_SLOW
        if slow and length > 2 * LONGEST_SLOW:
            continue
        passes_of_form["recurrence", method] = None if slow else passes(function, *arguments)
    return passes_of_form


def recurrence(name):
    """Our recurrence as a function `(weights, x)`."""
    if name == "DeltaNet":
        return lambda w, v: delta_rule(w["q"], w["k"], v, w["beta"])[0]
    function = selective_scan if name == "Mamba" else ssd
    return lambda w, x: function(x, w["dt"], w["A"], w["B"], w["C"])[0]


def inputs(name, shape):
    """What selects, x, and a cotangent, as a layer would make them."""
    batch, length, inner, state = shape
    rng = np.random.default_rng(0)
    size = min(HEAD_DIM, inner)
    heads = inner // size
    if name == "DeltaNet":
        q, k, v, upstream = rng.standard_normal((4, batch, length, heads, size)).astype("float32")
        q, k = (z / np.linalg.norm(z, axis=-1, keepdims=True) for z in (q, k))
        beta = rng.uniform(size=(batch, length, 1, heads)).astype("float32")
        return {"q": q, "k": k[:, :, None], "beta": beta}, v[:, :, None], upstream
    wide = (inner,) if name == "Mamba" else (heads, size)
    groups = () if name == "Mamba" else (1,)
    x, upstream = rng.standard_normal((2, batch, length, *wide)).astype("float32")
    B, C = rng.standard_normal((2, batch, length, *groups, state)).astype("float32")
    dt = np.log1p(np.exp(rng.standard_normal((batch, length, wide[0])) - 3)).astype("float32")
    A = -np.tile(np.arange(1.0, state + 1, dtype="float32"), (inner, 1))
    A = A if name == "Mamba" else -rng.uniform(1, 16, wide[0]).astype("float32")
    return {"dt": dt, "A": A, "B": B, "C": C}, x, upstream


def _continued(name, method, shape):
    """The times at a length from those of two shorter ones."""
    batch, length, *rest = shape
    short, long = LONGEST_SLOW // 2, LONGEST_SLOW
    timings = []
    for n in (short, long):
        function = forms(name)[method]
        timings.append(alternate(passes(function, *inputs(name, (batch, n, *rest))), 0.0, 1, 1))
    (forward, training), (forward_2, training_2) = timings
    linear = forward_2 + (forward_2 - forward) / (long - short) * (length - long)
    squared = max(0.0, training_2 - 2 * training) / (2 * short**2)  # a n + b n^2 through both
    slope = training / short - squared * short
    return linear, slope * length + squared * length**2
