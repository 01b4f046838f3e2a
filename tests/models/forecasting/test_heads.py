"""The heads of forecasters come back from their configurations."""

import pytest

from keras_ssm.layers import SpaceTime
from keras_ssm.models.forecasting.forecast_head import ForecastHead
from keras_ssm.models.forecasting.rollout_head import RolloutHead

pytestmark = pytest.mark.once("torch")


def forecast_head(**arguments):
    return ForecastHead(4, outputs=2, **arguments)


def rollout_head(**arguments):
    return RolloutHead(SpaceTime(4, skip=False, closed_loop=True), 4, outputs=2, **arguments)


@pytest.mark.parametrize("make", [forecast_head, rollout_head])
def test_linear_layers_keep_their_policy(make):
    config = make(dense_dtype="mixed_bfloat16").get_config()
    again = type(make()).from_config(config)
    again.build((None, 3, 5))
    assert again.output_dense.dtype_policy.name == "mixed_bfloat16"
    assert again.dtype_policy.name == "float32" and (again.steps, again.outputs) == (4, 2)
    assert again.get_config() == config
    # Without one of their own they have that of the layer.
    other = type(again).from_config({**make().get_config(), "dtype": "float64"})
    other.build((None, 3, 5))
    assert other.output_dense.dtype_policy.name == "float64"
