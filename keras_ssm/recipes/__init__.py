"""Recipes: how the presets are trained and scored, each in a module of its name."""

import ast
import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from keras_ssm.checks import check_choice

if TYPE_CHECKING:  # the command lists them without a backend
    from keras_ssm.training import Recipe

NAMES = tuple(
    sorted({module.name for module in pkgutil.iter_modules(__path__)} - {"recipe", "run"})
)


def get(name: str) -> "Recipe":
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


def summaries() -> dict[str, str]:
    """Returns the name of each recipe and what it says of itself, in one line."""
    lines = {}
    for name in NAMES:
        text = (Path(__path__[0]) / f"{name}.py").read_text(encoding="utf-8")
        lines[name] = ast.get_docstring(ast.parse(text)).splitlines()[0]
    return lines
