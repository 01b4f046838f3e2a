import abc
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_ssm.checks import check_choice
from keras_ssm.training.epoch_data import EpochData, FollowEpochs
from keras_ssm.training.rows import Part
from keras_ssm.types import PathLike


class Splits(NamedTuple):
    """The parts of a data set.

    Fields:
        train: what the model learns from.
        validation: what settings are chosen by; `None` where all of it is learned from.
        test: what is read once, for the score.
    """

    train: object
    validation: object
    test: object


class Recipe(abc.ABC):
    """How a preset is trained and scored: its data, models, settings and scores.

    A recipe is a module `keras_ssm.recipes.<name>` with an instance `RECIPE`. Its `settings` have
    `epochs`, and where it wants them:

    - `select`: the metric of `score` whose best value on the validation part decides which epoch's
      weights are kept, or `"last"`. The validation part is then scored after every epoch.
    - `patience`: after so many epochs without a better value training ends; `0` for never.

    Attributes:
        name: str. Name of the recipe, that of its module.
        systems: dict from the name of a system, or of a baseline, to the settings in which it
            differs from `settings`; `None` for what it does not have.
        baselines: tuple of str. Those of `systems` of which no preset is made.
        settings: dict. What `NAME=VALUE` overrides, with its defaults.
        needs_data: bool. Whether it reads a folder of data. Defaults to `True`.
        rising: tuple of str. Metrics of which more is better. Defaults to `("accuracy",)`.
        picture_shape: height and width, where a row is an image, to draw it. Defaults to `None`.
        picture_colors: str. Its colour map. Defaults to `"gray_r"`: large numbers are ink.
    """

    name: str
    systems: dict[str, dict]
    baselines: tuple[str, ...] = ()
    settings: dict[str, object]
    needs_data: bool = True
    rising: tuple[str, ...] = ("accuracy",)
    picture_shape: tuple[int, int] | None = None
    picture_colors: str = "gray_r"

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

    def preset_name(self, system: str, settings: dict) -> str:
        """Returns the name of the preset, or baseline, of a system trained with these settings.

        It begins with the system. Settings that make another task of it are told by the rest.
        """
        return f"{system}_{self.name}"

    @abc.abstractmethod
    def read(self, directory: Path | None) -> Splits:
        """Reads the data below the folder of all data, which may be `None` if it needs none."""

    def read_below(self, data: PathLike | None) -> Splits:
        """Reads the data.

        Args:
            data: str, `Path` or `None`. Folder of all data; `None` for a recipe that needs none.

        Raises:
            ValueError: for `None` where a folder is needed, or data that are not there.
        """
        if data is None and self.needs_data:
            raise ValueError(
                f"`data` must be the folder of all data, from which '{self.name}' reads its own. "
                "Received: data=None"
            )
        return self.read(data if data is None else Path(data).expanduser())

    def arrange(self, splits: Splits, settings: dict) -> Splits:
        """Returns the parts as the settings of a run want them."""
        return splits

    def limited(self, splits: Splits, limit: int, settings: dict) -> Splits:
        """Returns small parts, for a smoke run: `limit` rows of each for every row of a batch."""
        rows = limit * settings.get("batch_size", 1)
        return Splits(*(part.spread(rows) if isinstance(part, Part) else part for part in splits))

    @abc.abstractmethod
    def make_model(self, system: str, seed: int, settings: dict) -> keras.Model:
        """Returns the compiled model."""

    def training_data(self, splits: Splits, seed: int, settings: dict) -> EpochData:
        """Returns the batches of training."""
        raise NotImplementedError

    def fit(
        self,
        model: keras.Model,
        splits: Splits,
        seed: int,
        settings: dict,
        callbacks: list[keras.callbacks.Callback],
        limit: int | None = None,
    ) -> None:
        """Trains the model.

        A recipe whose model trains by a `fit` of its own hands `callbacks` to it. A run is resumed
        exactly if the seed and the number of the epoch decide the batches.

        Args:
            model: what `make_model` returned.
            splits: `Splits`.
            seed: int. Seed of the run.
            settings: dict.
            callbacks: list of callbacks: backup, learning curve, progress and others.
            limit: int or `None`. Batches an epoch at most.
        """
        data = self.training_data(splits, seed, settings)
        if limit is not None:
            data.batches = min(data.batches, limit)
        self.prepare(model, settings, steps=settings["epochs"] * data.batches)
        model.fit(
            data,
            epochs=settings["epochs"],
            verbose=0,
            shuffle=False,  # the seed and the epoch decide the order
            callbacks=[FollowEpochs(data), *callbacks],
        )

    def prepare(self, model: keras.Model, settings: dict, steps: int) -> None:
        """Compiles the model where that needs the number of steps of the whole training."""
        return None

    @abc.abstractmethod
    def score(self, model: keras.Model, part: object, settings: dict) -> dict[str, float]:
        """Scores a model on the validation or the test part: names with their units, and values."""

    def count(self, metric: str, part: object) -> int | None:
        """Number of examples of which a metric is the share; `None` for other metrics."""
        return None

    def step_samples(self, part: object, settings: dict) -> list[tuple[np.ndarray, np.ndarray]]:
        """Stretches of a part for pictures of a model that answers at each step.

        Returns:
            List of tuples: a sequence, and the class of each of its steps.
        """
        return []

    @abc.abstractmethod
    def facts(self, system: str, settings: dict) -> dict:
        """What `preset.json` and the card say beside the scores; see `keras_ssm.hub.card`."""
