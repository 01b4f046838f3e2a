"""A recipe of classifiers of short waves, for tests of presets that come of runs."""

import numpy as np

from keras_ssm.training import ClassificationRecipe, Part, Splits


class Waves(ClassificationRecipe):
    """Which of two frequencies a noisy wave has."""

    name = "waves"
    classes = ("slow", "fast")
    systems = {"s4d": {}, "lstm": {"state_dim": None, "ssm_learning_rate": None}}
    baselines = ("lstm",)
    settings = {
        **{"epochs": 1, "batch_size": 8, "num_layers": 1, "hidden_dim": 4, "state_dim": 4},
        **{"dropout": 0.0, "learning_rate": 1e-2, "ssm_learning_rate": 1e-3, "weight_decay": 0.0},
        **{"bidirectional": False, "lengths": 1, "select": "last"},
    }

    def read(self, directory):
        return Splits(self.waves(0), self.waves(1), self.waves(2))

    def waves(self, seed):
        rng = np.random.default_rng(seed)
        y = rng.integers(2, size=8)
        x = [np.sin(np.arange(rng.integers(8, 12)) * (0.5 + label)) for label in y]
        return Part([row + rng.normal(0, 0.1, row.shape) for row in x], y)

    def facts(self, system, settings):
        return {"data": {"name": "waves"}, "licences": {"data": "by hand, CC BY-SA 4.0"}}
