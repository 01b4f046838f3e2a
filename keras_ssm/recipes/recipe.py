import abc
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_ssm.checks import check_choice


class Splits(NamedTuple):
    """The parts of a data set.

    Fields:
        train: what the model learns from.
        validation: what settings are chosen by.
        test: what is read once, for the score.
    """

    train: object
    validation: object
    test: object


class EpochData(keras.utils.PyDataset):
    """Batches that the seed and the number of the epoch decide, and nothing before.

    Training that was interrupted goes on with the batches that it would have seen.

    Args:
        seed: int. Seed of the run.
        batches: int. Batches an epoch.
    """

    def __init__(self, seed: int, batches: int):
        super().__init__()
        self.seed = seed
        self.batches = batches
        self.epoch = 0

    def __len__(self):
        return self.batches

    def __getitem__(self, index):
        return self.batch(np.random.default_rng([self.seed, self.epoch, index]))

    def batch(self, rng: np.random.Generator) -> tuple:
        """Returns `(x, y)`, drawn by `rng` alone."""
        raise NotImplementedError


class FollowEpochs(keras.callbacks.Callback):
    """Tells an `EpochData` which epoch begins.

    Args:
        data: `EpochData`.
    """

    def __init__(self, data: EpochData):
        super().__init__()
        self.data = data

    def on_epoch_begin(self, epoch, logs=None):
        self.data.epoch = epoch


class Recipe(abc.ABC):
    """How a preset is trained and scored: its data, models, settings and scores.

    Attributes:
        name: str. Name of the recipe, and of its data within the folder of all data.
        systems: dict from the name of a system, or of a baseline, to the settings in which it
            differs from `settings`; `None` for what it does not have.
        baselines: tuple of str. Those of `systems` of which no preset is made.
        settings: dict. What `NAME=VALUE` overrides, with its defaults.
    """

    name: str
    systems: dict[str, dict]
    baselines: tuple[str, ...] = ()
    settings: dict[str, object]

    def settings_of(self, system: str, overrides: dict | None = None) -> dict:
        """Returns the settings of one run.

        Args:
            system: str. Of `systems`.
            overrides: dict or `None`. Values in place of the defaults, of the same type.

        Raises:
            ValueError: for a setting that does not exist, or a value of another type.
        """
        check_choice("system", system, tuple(self.systems))
        settings = {**self.settings, **self.systems[system]}
        settings = {name: value for name, value in settings.items() if value is not None}
        for name, value in (overrides or {}).items():
            if name not in settings:
                raise ValueError(
                    f"Settings of '{system}' are {', '.join(settings)}. Received: {name}={value}"
                )
            wanted = type(settings[name])
            if wanted is float and type(value) is int:
                value = float(value)
            if type(value) is not wanted:
                raise ValueError(
                    f"`{name}` must be of type {wanted.__name__}. Received: {name}={value!r}"
                )
            settings[name] = value
        return settings

    @abc.abstractmethod
    def read(self, directory: Path) -> Splits:
        """Reads the data below the folder of all data."""

    @abc.abstractmethod
    def make_model(self, system: str, seed: int, settings: dict) -> keras.Model:
        """Returns the compiled model."""

    @abc.abstractmethod
    def training_data(self, splits: Splits, seed: int, settings: dict) -> EpochData:
        """Returns the batches of training."""

    @abc.abstractmethod
    def score(self, model: keras.Model, part: object, settings: dict) -> dict[str, float]:
        """Scores a model on the validation or the test part: names with their units, and values."""

    @abc.abstractmethod
    def facts(self, system: str, settings: dict) -> dict:
        """What `preset.json` and the card say beside the scores; see `keras_ssm.hub.card`."""
