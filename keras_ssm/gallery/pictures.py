"""The pictures of a preset: what it does on test samples, where it errs, how it learned."""

from typing import TYPE_CHECKING

from keras_ssm.gallery import classes, events, forecasts, texts
from keras_ssm.gallery.subject import Subject
from keras_ssm.models import SSMCausalLM, SSMForecaster
from keras_ssm.plotting import plot_learning_curves
from keras_ssm.training import Recipe
from keras_ssm.types import PathLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLES, LEARNING = "samples.png", "learning.png"
LOG_FILE = "log.csv"


def pictures(
    preset: PathLike | Subject, recipe: Recipe, part: object, settings: dict | None = None
) -> "dict[str, Figure]":
    """Draws what a preset does on its test part.

    Args:
        preset: str or `Path`. A preset that `keras-ssm train` made.
        recipe: `Recipe` that made it.
        part: the test part, as the recipe arranged it.
        settings: dict or `None`. Those of the recipe. Defaults to `None`: what the preset names.

    Returns:
        Dict from the name of a file to a `matplotlib.figure.Figure`: `samples.png`, three test
        samples and what the model does on each, step by step; `confusion.png`, or `errors.png` of
        forecasts and texts; `reliability.png` of classifiers whose probabilities differ
        from how often they are right; `learning.png`, where the preset has a `log.csv`.

    Raises:
        ImportError: if matplotlib is not installed.

    Example:
        ```python
        from keras_ssm import gallery, recipes

        recipe = recipes.get("japanese_vowels")
        # part = recipe.read(Path("data")).test
        # gallery.pictures("s4d_japanese_vowels", recipe, part)["samples.png"].savefig("a.png")
        ```
    """
    subject = preset if isinstance(preset, Subject) else Subject(preset, recipe, part, settings)
    return {name: figure for name, (figure, _) in described(subject).items()}


def described(subject: Subject) -> "dict[str, tuple[Figure, str]]":
    """The figures of a preset, each with a sentence that says what it shows."""
    figures = {}
    if isinstance(subject.model, SSMForecaster):
        figures = forecasts.pictures(subject)
    elif isinstance(subject.model, SSMCausalLM):
        figures = texts.pictures(subject)
    elif subject.classifies:
        figures = classes.pictures(subject)
    elif subject.has_classes:
        figures = events.pictures(subject)
    if (subject.directory / LOG_FILE).is_file():
        figure = plot_learning_curves(subject.directory / LOG_FILE)
        figures[LEARNING] = figure, f"Loss and scores over the epochs of training.{_kept(subject)}"
    return figures


def _kept(subject):
    """Which epoch's weights a forecaster kept, where that is not the last one."""
    epoch = (getattr(subject.model, "fitted", None) or {}).get("epoch")
    if epoch == 0:
        return " The weights kept are those before the first epoch: training gained nothing sure."
    return "" if epoch is None else f" The weights kept are those after epoch {epoch}."
