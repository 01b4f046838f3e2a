"""Keras layers of the state-space family."""

from keras_ssm.layers.conv_encoder import ConvEncoder
from keras_ssm.layers.delta_net import DeltaNet
from keras_ssm.layers.differencing import Differencing
from keras_ssm.layers.discrete_system import DiscreteSystem
from keras_ssm.layers.dss import DSS
from keras_ssm.layers.h3 import H3
from keras_ssm.layers.hyena import Hyena
from keras_ssm.layers.kernel_layer import KernelLayer
from keras_ssm.layers.long_conv import LongConv
from keras_ssm.layers.lru import LRU
from keras_ssm.layers.mamba import Mamba
from keras_ssm.layers.mamba2 import Mamba2
from keras_ssm.layers.mimo_layer import MIMOLayer
from keras_ssm.layers.random_gain import RandomGain
from keras_ssm.layers.random_noise import RandomNoise
from keras_ssm.layers.random_shift import RandomShift
from keras_ssm.layers.random_time_mask import RandomTimeMask
from keras_ssm.layers.running_normalization import RunningNormalization
from keras_ssm.layers.s4 import S4
from keras_ssm.layers.s4_ptd import S4PTD
from keras_ssm.layers.s4d import S4D
from keras_ssm.layers.s4nd import S4ND
from keras_ssm.layers.s5 import S5
from keras_ssm.layers.s5_ptd import S5PTD
from keras_ssm.layers.scalar_normalization import ScalarNormalization
from keras_ssm.layers.sequence_mixer import SequenceMixer
from keras_ssm.layers.sequence_pooling import SequencePooling
from keras_ssm.layers.sg_conv import SGConv
from keras_ssm.layers.siso_layer import SISOLayer
from keras_ssm.layers.space_time import SpaceTime
from keras_ssm.layers.ssm_block import SSMBlock
from keras_ssm.layers.ssm_layer import SSMLayer
from keras_ssm.layers.token_dense import TokenDense

__all__ = [
    "DSS",
    "H3",
    "LRU",
    "S4",
    "S4D",
    "S4ND",
    "S4PTD",
    "S5",
    "S5PTD",
    "ConvEncoder",
    "DeltaNet",
    "Differencing",
    "DiscreteSystem",
    "Hyena",
    "KernelLayer",
    "LongConv",
    "MIMOLayer",
    "Mamba",
    "Mamba2",
    "RandomGain",
    "RandomNoise",
    "RandomShift",
    "RandomTimeMask",
    "RunningNormalization",
    "SGConv",
    "SISOLayer",
    "SSMBlock",
    "SSMLayer",
    "ScalarNormalization",
    "SequenceMixer",
    "SequencePooling",
    "SpaceTime",
    "TokenDense",
]
