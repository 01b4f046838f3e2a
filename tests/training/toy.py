"""A recipe that trains in no time, for tests of runs."""

import keras
import numpy as np

from keras_ssm.layers import S4D
from keras_ssm.models import SSMBackbone, SSMClassifier
from keras_ssm.training import EpochData, Recipe, Splits


class Signs(EpochData):
    def batch(self, rng):
        x = rng.standard_normal((4, 5, 1)).astype("float32")
        return x, (x[:, -1, 0] > 0).astype("int32")


class Toy(Recipe):
    """Whether the last number is positive."""

    name = "toy"
    settings = {"epochs": 3, "steps": 2, "learning_rate": 1e-2, "hidden_dim": 4}
    systems = {"s4d": {}, "plain": {"hidden_dim": 2}}
    baselines = ("plain",)

    def read(self, directory):
        if not (directory / self.name).is_dir():
            raise ValueError(f"No data. Received: '{directory}'")
        x = np.linspace(-1, 1, 40, dtype="float32").reshape(8, 5, 1)
        part = x, (x[:, -1, 0] > 0).astype("int32")
        return Splits(None, part, part)

    def make_model(self, system, seed, settings):
        keras.utils.set_random_seed(seed)
        if system == "plain":
            model = self.plain(settings["hidden_dim"])
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(keras.optimizers.Adam(settings["learning_rate"]), loss)
            return model
        mixer = S4D(state_dim=4, seed=seed)
        backbone = SSMBackbone(mixer, 1, settings["hidden_dim"], dropout=0.5)
        model = SSMClassifier(backbone, num_classes=2, pooling="last")
        model.compile(optimizer=keras.optimizers.Adam(settings["learning_rate"]))
        return model

    def plain(self, width):
        """A model that takes no time at all, and makes no preset."""
        inputs = keras.Input((5, 1))
        x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(inputs))
        x = keras.layers.Dense(width, "relu", name="hidden")(x)
        return keras.Model(inputs, keras.layers.Dense(2, name="logits")(x))

    def training_data(self, splits, seed, settings):
        return Signs(seed, settings["steps"])

    def score(self, model, part, settings):
        return {"loss": float(model.evaluate(*part, verbose=0, return_dict=True)["loss"])}

    def facts(self, system, settings):
        return {"data": {"name": "signs"}}
