"""A preset of one task, loaded as another: with a new head if one is asked for, never silently."""

import numpy as np
import pytest

from keras_ssm.layers import S4D
from keras_ssm.models import (
    SSMBackbone,
    SSMCausalLM,
    SSMClassifier,
    SSMForecaster,
    SSMPairClassifier,
    SSMRegressor,
)

pytestmark = pytest.mark.once("torch")

ASKS = {
    SSMClassifier: {"num_classes": 3},
    SSMPairClassifier: {"num_classes": 3},
    SSMRegressor: {"num_outputs": 2},
    SSMForecaster: {"horizon": 5},
}
READS = {
    "floats": {"input_dim": 1},
    "tokens": {"vocabulary_size": 256},
}
TASKS = {
    "floats": [SSMClassifier, SSMPairClassifier, SSMRegressor, SSMForecaster],
    "tokens": [SSMClassifier, SSMPairClassifier, SSMRegressor, SSMCausalLM],
}


@pytest.fixture(scope="module")
def presets(tmp_path_factory):
    """A preset of each task, by what it reads."""
    saved = {}
    for reads, sizes in READS.items():
        for task in TASKS[reads]:
            backbone = SSMBackbone(S4D(4, seed=0), 1, 4, **sizes)
            path = tmp_path_factory.mktemp(f"{reads}_{task.__name__}")
            task(backbone, **ASKS.get(task, {})).save_to_preset(path)
            saved[reads, task] = path
    return saved


PAIRS = [(r, a, b) for r, tasks in TASKS.items() for a in tasks for b in tasks if a is not b]


@pytest.mark.parametrize(("reads", "task", "saved"), PAIRS)
def test_a_new_head_is_made_where_it_is_asked_for_alone(presets, reads, task, saved):
    path = presets[reads, saved]
    asked = ASKS.get(task)
    with pytest.raises(ValueError, match=r"Received: a preset of a \w+, with no arg") as error:
        task.from_preset(path)
    if asked is None:
        assert f"holds a {saved.__name__}" in str(error.value)
        model = task(SSMBackbone.from_preset(path))
    else:
        assert f"pass `{next(iter(asked))}`" in str(error.value)
        model = task.from_preset(path, **asked)
    found = model.backbone.get_weights()
    for ours, theirs in zip(found, SSMBackbone.from_preset(path).get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_forecaster_with_another_horizon_is_to_be_fitted_anew(tmp_path):
    x = np.sin(np.arange(60) / 3)
    model = SSMForecaster(SSMBackbone(S4D(4, seed=0), 1, 4, input_dim=1), lookback=4, horizon=3)
    model.fit(x, validation=12, epochs=0, verbose=0)
    model.save_to_preset(tmp_path)
    assert SSMForecaster.from_preset(tmp_path).predict(x).shape == (3,)
    same = SSMForecaster.from_preset(tmp_path, horizon=3, lookback=4, name="same")
    np.testing.assert_array_equal(same.predict(x), model.predict(x))
    other = SSMForecaster.from_preset(tmp_path, horizon=6)
    with pytest.raises(ValueError, match=r"must be trained first.*Received"):
        other.predict(x)
    assert other.fit(x, validation=12, epochs=0, verbose=0) and other.predict(x).shape == (6,)
    with pytest.raises(ValueError, match=r"must be trained first.*Received"):  # a head of its own
        SSMForecaster.from_preset(tmp_path, horizon=3, quantiles=(0.1, 0.5, 0.9)).predict(x)


def test_a_backbone_alone_holds_a_language_model(tmp_path):
    model = SSMCausalLM(SSMBackbone(S4D(4, seed=0), 1, 4, vocabulary_size=256))
    model.backbone.save_to_preset(tmp_path)
    tokens = np.array([[1, 2, 3]])
    logits = SSMCausalLM.from_preset(tmp_path).predict(tokens, verbose=0)
    np.testing.assert_allclose(logits, model.predict(tokens, verbose=0), rtol=1e-6)
