"""Small models that stream, and a sequence for them."""

import functools

import numpy as np

from keras_ssm.layers import (
    DSS,
    H3,
    LRU,
    S4,
    S4D,
    S4PTD,
    S5,
    S5PTD,
    DeltaNet,
    Hyena,
    LongConv,
    Mamba,
    Mamba2,
    SGConv,
    SpaceTime,
)
from keras_ssm.models import SequencePreprocessor, SSMBackbone, SSMClassifier

LENGTH = 40
X = np.random.default_rng(0).standard_normal((2, LENGTH, 2)).astype("float32")
MIXERS = {
    "s4d": S4D(4, seed=0),
    "s4": S4(4, seed=0),
    "dss": DSS(4, variant="exp", seed=0),
    "dss_fixed": DSS(4, softmax_length=LENGTH, init="randn", seed=0),
    "s5": S5(4, seed=0),
    "s4ptd": S4PTD(4, seed=0),
    "s5ptd": S5PTD(8, blocks=1, seed=0),
    "lru": LRU(4, seed=0),
    "sgconv": SGConv(16, kernel_dim=4, seed=0),
    "longconv": LongConv(16, init="double_exp", seed=0),
    "spacetime": SpaceTime(4, seed=0),
    "mamba": Mamba(2, seed=0),
    "mamba2": Mamba2(2, head_dim=4, seed=0),
    "h3": H3(2, head_dim=2, shift_dim=3, seed=0),
    "hyena": Hyena(64, order=3, filter_width=4, seed=0),
    "delta": DeltaNet(2, head_dim=3, householders=2, gated=True, seed=0),
}


def make_model(mixer="s4d", pooling="mean", scale=0.5, **arguments):
    arguments = {"num_layers": 1, "hidden_dim": 4, "input_dim": 2, **arguments}
    backbone = SSMBackbone(MIXERS[mixer], **arguments)
    preprocessor = SequencePreprocessor(scale=scale, allow_nan=False)
    return SSMClassifier(backbone, 3, preprocessor, pooling=pooling)


@functools.cache
def shared_model():
    """One model for the tests that leave it as it is: its programs are compiled once."""
    return make_model()
