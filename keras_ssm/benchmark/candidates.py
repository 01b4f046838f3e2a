"""The layers to be measured: the family, each by every evaluation, and those of Keras."""

import math

import keras
import numpy as np

from keras_ssm import layers
from keras_ssm.benchmark.run import BLOCKS, GRIDS, KERNELS
from keras_ssm.benchmark.stepping import BACKEND, layer_function, passes
from keras_ssm.benchmark.yardsticks import published
from keras_ssm.training import make_mixer

# The largest intermediate results that are tried, in bytes.
LARGEST_ATTENTION = 2**30
LARGEST_PUBLISHED = 2**32

# Longer sequences are not read sample by sample: a pass would take minutes.
LONGEST_RECURRENT = 1024

# The gradient of Keras' LSTM and GRU takes time by the square of the length on two backends.
LONGEST_CELLS = {"torch": 4096, "tensorflow": 16384}


class CausalAttention(keras.layers.Layer):
    """Four heads of causal self-attention, with the signature of the other layers."""

    def __init__(self, features):
        super().__init__()
        self.attention = keras.layers.MultiHeadAttention(4, features // 4)

    def build(self, input_shape):
        self.attention.build(input_shape, input_shape)

    def call(self, x):
        return self.attention(x, x, use_causal_mask=True)


def make(name, features, state, method="auto", length=None):
    """An unbuilt layer of as many outputs as inputs, for a `length` where it holds its kernel."""
    if name in BLOCKS:
        return layers.SSMBlock(
            make_mixer("gss", state_dim=state, method=method, seed=0),
            gate="wide",
            gate_expand=4,
            bottleneck=features // 4,
            bottleneck_norm=True,
            prenorm=True,
        )
    if name == "MultiHeadAttention":
        return CausalAttention(features)
    if name in ("LSTM", "GRU"):
        return getattr(keras.layers, name)(features, return_sequences=True)
    options = {"variant": "exp"} if name == "DSS" else {}
    if name in KERNELS:
        options["max_length"] = length
    else:
        options["state_dim"] = state
    if name == "Hyena":
        options["train_positions"] = True  # as in the published layer
    if name == "SGConv":
        options["kernel_dim"] = min(64, length)
    return getattr(layers, name)(method=method, seed=0, **options)


def candidates(name, shape, methods):
    """The layers of a name at a shape, each with its passes.

    Args:
        name: str. Of `run.SYSTEMS`, `KERNELS`, `GATED`, `BLOCKS`, `GRIDS` or `OTHERS`.
        shape: tuple `(batch, length, features, state)`.
        methods: list of str. Evaluations; `"auto"` is whatever it picks.

    Returns:
        List of tuples `(layer, method, passes)`, empty where nothing fits; the method is `None`
        for layers outside the family, and `"auto"` of a grid, which has no other name for it.
    """
    batch, length, features, state = shape
    if name == "MultiHeadAttention" and batch * 4 * length**2 * 4 > LARGEST_ATTENTION:
        return []
    if name in ("LSTM", "GRU") and length > LONGEST_CELLS.get(BACKEND, length):
        return []
    x, upstream = samples(shape, name)
    timed = []
    for method in evaluations(name, shape, methods):
        layer = make(name, features, state, method or "auto", length)
        layer.build(x.shape if name == "MultiHeadAttention" else (*[None] * (x.ndim - 1), features))
        timed.append((layer, method, passes(*layer_function(layer), x, upstream)))
    return timed


def mixer_class(name):
    """The layer of a name, or that in a block of the name; `None` outside the family."""
    return layers.DSS if name in BLOCKS else getattr(layers, name, None)


def evaluations(name, shape, methods):
    """The methods, each once, that a layer is measured with at a shape."""
    if mixer_class(name) is None:
        return [None]
    picked = picked_method(name, shape)
    named = dict.fromkeys(picked if method == "auto" else method for method in methods)
    named = [method for method in named if method in mixer_class(name).methods]
    if name in GRIDS:  # read both ways
        return [method for method in named if method != "recurrent"]
    return [m for m in named if m != "recurrent" or shape[1] <= LONGEST_RECURRENT]


def picked_method(name, shape):
    """What a layer with `method="auto"` evaluates a shape by; `None` outside the family.

    A grid keeps `"auto"`: its short axes meet matrices, which no method names.
    """
    if mixer_class(name) is None:
        return None
    if name in GRIDS:
        return "auto"
    layer = make(name, *shape[2:], length=shape[1])
    return (layer.mixer if name in BLOCKS else layer).chosen_method(shape[1])


def published_passes(name, layer, shape):
    """The passes of the published formulation with a layer's weights; `None` if too large."""
    batch, length, features, state = shape
    modes = state if name in ("DSS", "GSS", "LRU") else state // 2
    # Complex numbers that are kept for the gradient: Cauchy matrices, Vandermonde, or states.
    sizes = {"S4": 12 * features * modes * length // 2, "S5": 8 * batch * length * modes}
    sizes["LRU"] = sizes["S5"]
    sizes["GSS"] = 3 * (features // 4) * modes * length
    sizes["SpaceTime"] = features * state * length  # real columns, twice
    sizes |= dict.fromkeys(KERNELS, 6 * batch * features * length)  # spectra
    sizes |= dict.fromkeys(GRIDS, 12 * batch * features * length)
    numbers = sizes.get(name.replace("PTD", ""), 3 * features * modes * length)
    if 8 * numbers > LARGEST_PUBLISHED:
        return None
    function, features_last = published(name)
    x, upstream = samples(shape, name)
    if not features_last:
        x, upstream = (np.ascontiguousarray(np.moveaxis(a, -1, 1)) for a in (x, upstream))
    return passes(function, weights_of(layer), x, upstream)


def weights_of(layer):
    """The weights of a layer as a yardstick takes them, by their paths in it."""
    return {
        v.path.split("/", 1)[-1]: keras.ops.convert_to_numpy(v) for v in layer.trainable_variables
    }


def samples(shape, name=None):
    """An input and a cotangent, `(batch, length, features)`; of images two sides for a length."""
    batch, length, features = shape[:3]
    sizes = (length,)
    if name in GRIDS:
        sizes = (math.isqrt(length), length // math.isqrt(length))
    shape = (2, batch, *sizes, features)
    return np.random.default_rng(0).standard_normal(shape).astype("float32")
