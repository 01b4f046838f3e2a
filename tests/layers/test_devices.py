"""No tensor lies on the processor for want of a device: on a GPU it would meet others there."""

import numpy as np
import pytest

from keras_ssm import layers
from keras_ssm.models import SSMBackbone, SSMClassifier
from tests.backend_tools import BACKEND

pytestmark = pytest.mark.only("torch")

if BACKEND == "torch":
    import torch
    from torch.overrides import TorchFunctionMode

    MADE_FROM_NOTHING = {
        getattr(torch, name)
        for name in (
            *("arange", "as_tensor", "empty", "eye", "full", "linspace", "ones", "rand", "randn"),
            *("scalar_tensor", "tensor", "zeros"),
        )
    }

    class Places(TorchFunctionMode):
        """Notes the functions that are to make a tensor and are not told where."""

        def __init__(self):
            super().__init__()
            self.unsaid = []

        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function in MADE_FROM_NOTHING and "device" not in (kwargs or {}):
                self.unsaid.append((function.__name__, args))
            return function(*args, **(kwargs or {}))


MIXERS = {
    "S4D": lambda: layers.S4D(8),
    "S4": lambda: layers.S4(8),
    "DSS": lambda: layers.DSS(8),
    "S4PTD": lambda: layers.S4PTD(8),
    "S5": lambda: layers.S5(8),
    "LRU": lambda: layers.LRU(8),
    "Mamba": lambda: layers.Mamba(4),
    "Mamba2": lambda: layers.Mamba2(16, head_dim=4),
    "DeltaNet": lambda: layers.DeltaNet(2, head_dim=4),
    "H3": lambda: layers.H3(8),
    "Hyena": lambda: layers.Hyena(5),
    "LongConv": lambda: layers.LongConv(24),
    "SGConv": lambda: layers.SGConv(24, kernel_dim=8),
    "SpaceTime": lambda: layers.SpaceTime(8),
}
NORMS = ("layer", "rms", "batch", "scalar")
CASES = [(name, "layer") for name in MIXERS] + [("S4D", norm) for norm in NORMS[1:]]


@pytest.mark.parametrize(("mixer", "norm"), CASES)
def test_every_new_tensor_is_told_where_it_lies(mixer, norm):
    """In a training pass and without gradients, with and without a mask."""
    backbone = SSMBackbone(MIXERS[mixer](), num_layers=1, hidden_dim=8, norm=norm, dropout=0.1)
    model = SSMClassifier(backbone, 2)
    x = np.random.default_rng(0).standard_normal((2, 24, 1)).astype("float32")
    mask = np.arange(24) < [[24], [9]]
    inputs = [{"inputs": x}, {"inputs": x, "padding_mask": mask}]
    with Places() as places:
        for one in inputs:
            model(one, training=True).sum().backward()
            with torch.no_grad():
                model(one)
    assert not places.unsaid
