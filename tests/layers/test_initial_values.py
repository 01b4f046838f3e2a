"""Initial values that give way to those of a file."""

import keras
import pytest

from keras_ssm.layers.exact_layers import Dense
from keras_ssm.layers.initial_values import weights_from_file

pytestmark = pytest.mark.once("torch")


def test_a_build_that_fails_leaves_the_initializer():
    layer = Dense(3)
    with weights_from_file():
        with pytest.raises(ValueError):
            layer.build((None, None))
        layer.build((None, 2))
    assert isinstance(layer.kernel_initializer, keras.initializers.GlorotUniform)
    assert not keras.ops.convert_to_numpy(layer.kernel).any()
