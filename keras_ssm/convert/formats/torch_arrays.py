"""Weights of ours as tensors of PyTorch."""

import numpy as np
from keras import ops


def array(x):
    """A weight as a float32 array."""
    return np.asarray(ops.convert_to_numpy(x)).astype("float32")


def stacked(real, imag):
    """Two weights as an array with real and imaginary part on its last axis."""
    return np.stack([array(real), array(imag)], axis=-1)


def put_dense(tensors, name, layer):
    """Adds the tensors of a linear layer to a dict."""
    tensors[f"{name}.weight"] = np.ascontiguousarray(array(layer.kernel).T)
    tensors[f"{name}.bias"] = array(layer.bias)


def put_norm(tensors, stem, norm):
    """Adds the tensors of a layer norm to a dict."""
    tensors[f"{stem}weight"], tensors[f"{stem}bias"] = array(norm.gamma), array(norm.beta)
