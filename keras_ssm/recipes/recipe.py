"""The parts of a recipe, under the names by which recipes import them."""

from keras_ssm.training import (
    ClassificationRecipe,
    EpochData,
    FollowEpochs,
    Part,
    Recipe,
    ShuffledRows,
    Splits,
)

__all__ = [
    "ClassificationRecipe",
    "EpochData",
    "FollowEpochs",
    "Part",
    "Recipe",
    "ShuffledRows",
    "Splits",
]
