"""The recipe of a megabyte of plays, on a few bytes: its models, and their scores."""

import math

import keras
import numpy as np
import pytest

from keras_ssm.models import SSMCausalLM
from keras_ssm.recipes.tinyshakespeare import RECIPE, carried

pytestmark = pytest.mark.once("torch")

SMALL = {"hidden_dim": 16, "window": 8, "steps": 1}


@pytest.mark.parametrize("system", [name for name in RECIPE.systems if name != "ngram"])
def test_scores_are_bits_per_byte(system):
    settings = RECIPE.settings_of(system, SMALL)
    model = RECIPE.make_model(system, 0, settings)
    ids = np.random.default_rng(0).integers(256, size=41).astype("int32")
    scores = RECIPE.score(model, ids, settings)
    for found, rows in (
        (scores["bits per byte in windows"], 5),
        (scores["bits per byte with the state carried"], 1),
        (carried(model, ids, window=8) if system == "lstm" else None, 1),
    ):
        if found is None:
            continue
        logits = model.predict(ids[:-1].reshape(rows, -1), verbose=0)
        costs = -keras.ops.convert_to_numpy(keras.ops.log_softmax(logits))
        nats = np.take_along_axis(costs, ids[1:].reshape(rows, -1, 1), axis=2)
        assert found == pytest.approx(nats.mean() / math.log(2), rel=1e-5)


def test_counts_are_scored_like_what_is_trained():
    settings = RECIPE.settings_of("ngram", {"order": 3, "window": 8})
    model = RECIPE.make_model("ngram", 0, settings)
    text = np.frombuffer(b"to be or not to be, that is the question: " * 2, np.uint8)
    model.fit(text)
    ids = text[:41].astype("int32")
    scores = RECIPE.score(model, ids, settings)
    bits = -np.log2(model.probabilities(ids))
    assert scores["bits per byte with the state carried"] == pytest.approx(bits.mean())
    single = [-np.log2(model.probabilities(ids[i : i + 9])).mean() for i in range(0, 40, 8)]
    assert scores["bits per byte in windows"] == pytest.approx(np.mean(single))
    assert bits.mean() < np.mean(single) < 8.0


def test_a_preset_has_the_scores_of_its_run(tmp_path):
    settings = RECIPE.settings_of("mamba2", SMALL)
    model = RECIPE.make_model("mamba2", 0, settings)
    ids = np.random.default_rng(0).integers(256, size=41).astype("int32")
    model.save_to_preset(tmp_path / "preset")
    reloaded = SSMCausalLM.from_preset(tmp_path / "preset")
    assert RECIPE.score(reloaded, ids, settings) == RECIPE.score(model, ids, settings)
