"""The best weights are kept, and training ends where it stays behind."""

import csv

import keras
import numpy as np
import pytest

from keras_ssm.training import train
from keras_ssm.training.best_weights import BestWeights
from tests.training.toy import Toy

pytestmark = [pytest.mark.once("torch"), pytest.mark.usefixtures("undrawn")]


class Scripted(Toy):
    """Scores of the validation part that are written down, and the weights that had them."""

    rising = ("quality",)
    settings = {**Toy.settings, "epochs": 6, "select": "quality", "patience": 2}
    values = (0.5, 0.9, 0.7, 0.8, 1.0, 1.0)

    def __init__(self):
        self.seen = []

    def score(self, model, part, settings):
        if len(self.seen) < len(self.values):
            self.seen.append([keras.ops.convert_to_numpy(w).copy() for w in model.weights])
        self.last = [keras.ops.convert_to_numpy(w).copy() for w in model.weights]
        return {"quality": self.values[len(self.seen) - 1]}


def epochs(directory):
    with open(directory / "log.csv", newline="") as file:
        return [float(row["val_quality"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("settings", "best", "ran"),
    [({}, 1, 4), ({"patience": 0}, 4, 6), ({"patience": 3}, 4, 6)],
    ids=["stops", "never stops", "waits"],
)
def test_the_best_weights_are_those_of_the_result(tmp_path, data, settings, best, ran):
    recipe = Scripted()
    results = train(recipe, "plain", data, tmp_path / "run", overrides=settings)
    assert epochs(tmp_path / "run") == list(Scripted.values[:ran])
    assert results["steps"] == ran * 2
    for found, expected in zip(recipe.last, recipe.seen[best], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_run_that_had_stopped_does_not_go_on(tmp_path, data, monkeypatch):
    def killed(self, logs=None):
        raise KeyboardInterrupt

    recipe = Scripted()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(BestWeights, "on_train_end", killed)
        train(recipe, "plain", data, tmp_path / "run")
    assert train(recipe, "plain", data, tmp_path / "run")["steps"] == 8
    assert epochs(tmp_path / "run") == list(Scripted.values[:4])
    for found, expected in zip(recipe.last, recipe.seen[1], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_less_is_better_unless_the_recipe_says_otherwise(tmp_path, data):
    class Falling(Scripted):
        rising = ()

    recipe = Falling()
    train(recipe, "plain", data, tmp_path / "run")
    for found, expected in zip(recipe.last, recipe.seen[0], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_what_cannot_be_selected_is_refused(tmp_path, data):
    class Whole(Scripted):
        def read(self, directory):
            return super().read(directory)._replace(validation=None)

    class Averaged(Scripted):
        def make_model(self, system, seed, settings):
            model = super().make_model(system, seed, settings)
            model.compile(keras.optimizers.Adam(use_ema=True))
            return model

    for recipe, settings, message in (
        (Scripted(), {"select": "width"}, "select.*width"),
        (Scripted(), {"select": "last"}, "`patience` counts"),
        (Whole(), {}, "goes with a validation part"),
        (Averaged(), {}, "use_ema"),
    ):
        with pytest.raises(ValueError, match=message):
            train(recipe, "plain", data, tmp_path / message[:5], overrides=settings)
