"""Recipes: how the presets are trained and scored, each in a module of its name."""

import importlib

from keras_ssm.checks import check_choice
from keras_ssm.recipes.recipe import Recipe

NAMES = ("tinyshakespeare",)


def get(name: str) -> Recipe:
    """Returns the recipe of that name.

    Args:
        name: str. Of `NAMES`.

    Returns:
        `Recipe`.

    Raises:
        ValueError: if there is none of that name.

    Example:
        ```python
        recipe = keras_ssm.recipes.get("tinyshakespeare")
        print(recipe.systems)
        ```
    """
    check_choice("recipe", name, NAMES)
    return importlib.import_module(f"keras_ssm.recipes.{name}").RECIPE
