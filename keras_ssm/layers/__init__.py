"""Keras layers of the state-space family."""

from keras_ssm.layers.s4d import S4D
from keras_ssm.layers.sequence_pooling import SequencePooling
from keras_ssm.layers.ssm_block import SSMBlock
from keras_ssm.layers.ssm_layer import DiscreteSystem, SSMLayer

__all__ = ["S4D", "DiscreteSystem", "SSMBlock", "SSMLayer", "SequencePooling"]
