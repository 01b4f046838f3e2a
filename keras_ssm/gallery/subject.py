"""A preset, with the recipe and the test data that describe it."""

import functools
from pathlib import Path

import keras
import numpy as np

from keras_ssm import presets
from keras_ssm.models import SSMClassifier, SSMImageClassifier
from keras_ssm.models.saving.preset_loading import load_model
from keras_ssm.training import Recipe
from keras_ssm.types import PathLike


class Subject:
    """A trained model, the test part of its recipe, and the answers of the model.

    Args:
        preset: str or `Path`. A preset.
        recipe: `Recipe` that made it.
        part: the test part, as the recipe arranged it.
        settings: dict or `None`. Those of the recipe. Defaults to `None`: what the preset names.
    """

    def __init__(
        self, preset: PathLike, recipe: Recipe, part: object, settings: dict | None = None
    ):
        self.directory = Path(presets.resolve(preset))
        self.document = presets.read(self.directory)
        self.recipe = recipe
        self.part = part
        self.settings = self.document["recipe"]["settings"] if settings is None else settings

    @functools.cached_property
    def model(self) -> keras.Model:
        """The model of the preset."""
        return load_model(self.directory)

    @property
    def classifies(self) -> bool:
        """Whether it gives one class to each row of the test part."""
        return self.has_classes and not self.model.has_step_outputs

    @property
    def has_classes(self) -> bool:
        """Whether it is a classifier, of rows or of steps, that a recipe of classifiers made."""
        classifies = isinstance(self.model, (SSMClassifier, SSMImageClassifier))
        return classifies and hasattr(self.recipe, "classes")

    @functools.cached_property
    def logits(self) -> np.ndarray:
        """Its logits on the test part, float64."""
        return self.recipe.logits(self.model, self.part, self.settings)

    @functools.cached_property
    def streams(self) -> bool:
        """Whether it reads a sequence as it comes."""
        try:
            self.model.stream()
        except (ValueError, AttributeError):
            return False
        return True
