"""One-dimensional layers along the axes of a picture: how `S4ND` makes and applies them."""

import inspect

import keras
import numpy as np
from keras import ops

from keras_ssm.layers.featurewise_layer import FeaturewiseLayer
from keras_ssm.layers.kernel_layer import KernelLayer
from keras_ssm.layers.mixer_config import clone_mixer, layer_config
from keras_ssm.layers.siso_layer import SISOLayer
from keras_ssm.layers.ssm_layer import SSMLayer
from keras_ssm.ops import backend
from keras_ssm.ops.chunked import chunked
from keras_ssm.ops.exporting import known
from keras_ssm.ops.fourier import fft_conv
from keras_ssm.ops.grid import axis_matrices, grid_conv
from keras_ssm.ops.window import direct_conv

# A product of kernels vanishes beside the skip if each is as small as a sequence has it.
STEPS = {"dt_min": 0.1, "dt_max": 1.0}

# Up to this size a matrix of the whole axis takes less work than chunks with a state of 64.
LONGEST_MATRIX = 256


def axis_layers(mixers, kernels, directions, settings, seed, dtype):
    """Returns the layers of the axes, named `axis_0`, `axis_1`, ..., without a skip of their own.

    Args:
        mixers: list of `SSMLayer`s, one for each axis. They stay as they are.
        kernels: int. Kernels of a feature in each direction.
        directions: tuple of bool, one for each axis. Whether it is read both ways.
        settings: dict of `dt_min`, `dt_max` and `bandlimit`, of which `None` is the mixer's own.
        seed: int or `None`. The layers have seeds of their own, drawn from it.
        dtype: dtype policy.

    Raises:
        ValueError: for mixers of another kind, or settings and kernels that they have not.
    """
    for mixer in mixers:
        _check_mixer(mixer, kernels)
    for name, value in settings.items():
        if value is not None and not any(name in mixer.get_config() for mixer in mixers):
            kinds = sorted({type(mixer).__name__ for mixer in mixers})
            raise ValueError(f"`{name}` is no argument of {kinds}. Received: {name}={value}")
    layers = []
    for i, (mixer, both_ways) in enumerate(zip(mixers, directions, strict=True)):
        config = layer_config(clone_mixer(mixer, dtype=dtype))
        own = config["config"]
        own |= {"name": f"axis_{i}", "bidirectional": both_ways, "seed": _derived(seed, i)}
        own |= {"channels": kernels} if isinstance(mixer, FeaturewiseLayer) else {}
        own |= _settings(mixer, own, settings)
        layer = keras.layers.deserialize(config)
        layer.skips = False
        layers.append(layer)
    return layers


def along_axis(x, axis, function, mask=None):
    """Applies a function of sequences along one axis, with the other axes in the batch.

    Args:
        x: tensor `(batch, *sizes, features)`.
        axis: int. The axis of x, from 1 on.
        function: takes `(rows, length, features)` and a mask `(rows, length)` or `None`, and
            returns a tuple of `(rows, length, ...)` and something else.
        mask: boolean tensor `(batch, *sizes)` or `None`.

    Returns:
        Tuple of a tensor `(batch, *sizes, ...)` and that else.
    """
    last = len(x.shape) - 1
    order = [*(i for i in range(last) if i != axis), axis, last]
    moved = axis != last - 1
    x = ops.transpose(x, order) if moved else x
    lead = sizes(x)[:-2]
    flat = ops.reshape(x, (-1, *sizes(x)[-2:]))
    if mask is not None:
        mask = ops.transpose(mask, order[:-1]) if moved else mask
        mask = ops.reshape(mask, (-1, sizes(mask)[-1]))
    y, other = function(flat, mask)
    y = ops.reshape(y, (*lead, *sizes(y)[1:]))
    return ops.transpose(y, np.argsort(order).tolist()) if moved else y, other


def sizes(x):
    """The shape of a tensor, with numbers wherever they are known."""
    return tuple(
        n if known(n) is not None else m for n, m in zip(x.shape, ops.shape(x), strict=True)
    )


def by_matrices(layers, x):
    """What layers make of x along all axes, by one matmul an axis, for each of their kernels.

    It serves short axes: a matrix of an axis then takes less work than chunks and their states.

    Args:
        layers: list of layers, one for each axis.
        x: tensor `(batch, *sizes, features)`.

    Returns:
        List of tensors of the shape of x; `None` for long axes or such of unknown size, layers
        without a kernel for each feature, and those that are to be evaluated in another way.
    """
    short = all(known(n) is not None and n <= LONGEST_MATRIX for n in x.shape[1:-1])
    if not short or any(
        layer.method != "auto" or not isinstance(layer, FeaturewiseLayer) for layer in layers
    ):
        return None
    matrices = []
    for layer, n in zip(layers, x.shape[1:-1], strict=True):
        K, most = layer.full_kernel(n), getattr(layer, "max_kernel_length", None)
        if most is not None and most < n:
            K = backend.pad(K[..., :most], [(0, 0), (0, 0), (0, n - most)])
        matrices.append(axis_matrices(K, layer.bidirectional))
    return grid_conv(x, matrices)


def evaluate_apart(layer, x, kernels):
    """What a layer makes of features of which each of its kernels has its own.

    Args:
        layer: `FeaturewiseLayer` of `channels=kernels`.
        x: tensor `(batch, length, kernels * features)`.
        kernels: int.

    Returns:
        Tensor of the shape of x.
    """
    length, method = known(x.shape[1]), layer.chosen_method(x.shape[1])
    steps = ops.shape(x)[1] if length is None else length
    if isinstance(layer, SISOLayer) and method in ("chunked", "recurrent"):
        bank = layer.bank(steps)
        if getattr(bank, "normal", True):
            options = {"bidirectional": layer.bidirectional, "chunk_size": layer.chunk_size}
            return chunked(x, bank.channels_apart(kernels), **options)[0]
    if isinstance(layer, KernelLayer):
        K = layer.whole_kernel()
        K = K if length is None else K[..., :length]
    else:
        most = layer.max_kernel_length
        shorter = min if isinstance(steps, int) else ops.minimum
        K = layer.full_kernel(steps if most is None else shorter(steps, most))
    K = ops.reshape(K, (-1, kernels * layer.features, sizes(K)[-1]))
    convolve = direct_conv if method == "direct" else fft_conv
    return convolve(x, K, layer.bidirectional)


def _check_mixer(mixer, kernels):
    if not isinstance(mixer, SSMLayer) or mixer.input_rank != 3 or mixer.built:
        raise ValueError(
            "`mixer` must be an unbuilt time-invariant layer of sequences, such as "
            f"`S4D(state_dim=64)`, or a list of one for each axis. Received: mixer={mixer}"
        )
    if "bidirectional" not in mixer.get_config():
        raise ValueError(
            "`mixer` must be a layer that can read both ways and have several channels, such as "
            f"`S4D`. Received: a mixer {type(mixer).__name__}, which cannot"
        )
    if mixer.channels != 1:
        raise ValueError(
            "`channels` is an argument of `S4ND`, and its mixers have one. "
            f"Received: a mixer with channels={mixer.channels}"
        )
    if kernels > 1 and not isinstance(mixer, FeaturewiseLayer):
        raise ValueError(
            "`rank` and `channels` above 1 need mixers with a kernel for each feature, such as "
            f"`S4D`. Received: a mixer {type(mixer).__name__}"
        )


def _settings(mixer, config, settings):
    """The settings of an axis, as far as its layer has them."""
    parameters = inspect.signature(type(mixer).__init__).parameters
    usual = all(name in config and config[name] == parameters[name].default for name in STEPS)
    steps = dict(STEPS) if usual else {}
    settings = {name: value for name, value in settings.items() if value is not None}
    return {**steps, **{name: value for name, value in settings.items() if name in config}}


def _derived(seed, i):
    """A seed for axis i."""
    return None if seed is None else int(np.random.SeedSequence([seed, i]).generate_state(1)[0])
