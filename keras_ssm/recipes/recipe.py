"""What a recipe is made of, under the names by which recipes import it."""

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
