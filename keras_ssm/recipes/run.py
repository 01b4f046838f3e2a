"""Runs of the recipes by their names, and scores of presets that they made."""

from keras_ssm import presets, recipes
from keras_ssm.models.saving.preset_loading import load_model
from keras_ssm.training.preset_facts import on_test
from keras_ssm.training.results import append_rows
from keras_ssm.training.run import train
from keras_ssm.types import PathLike

__all__ = ["append_rows", "evaluate", "train"]


def evaluate(preset: PathLike, data: PathLike | None = None) -> list[tuple[str, float, float]]:
    """Scores a preset again on the test part of its recipe.

    Args:
        preset: str or `Path`. A name, a directory, or `hf://organisation/name`.
        data: str, `Path` or `None`. Folder of all data; `None` where the recipe needs none.

    Returns:
        List of tuples: the metric, the recorded score, and the score now.

    Raises:
        ValueError: if no recipe made the preset, or the data are not there.

    Example:
        ```python
        from keras_ssm.recipes import run
        # run.evaluate("mamba2_tinyshakespeare", data="data")
        ```
    """
    document = presets.read(presets.resolve(preset))
    if "recipe" not in document:
        raise ValueError(
            "A preset to evaluate must be made by `keras-ssm train`. "
            f"Received: '{preset}', whose preset.json names no recipe"
        )
    origin = document["recipe"]
    recipe = recipes.get(origin["recipe"])
    settings = recipe.settings_of(origin["system"], origin["settings"])
    part = recipe.arrange(recipe.read_below(data), settings).test
    scores = recipe.score(load_model(preset), part, settings)
    recorded = {entry["metric"]: entry["value"] for entry in document["scores"]}
    names = {metric: on_test(metric) for metric in scores}
    if lacking := sorted(set(recorded) - set(names.values())):
        raise ValueError(
            f"Recipe '{recipe.name}' must give each score that '{preset}' has. "
            f"Received: none of {', '.join(lacking)}"
        )
    # Scores that a later version of the recipe added were not recorded.
    return [(m, recorded[name], scores[m]) for m, name in names.items() if name in recorded]
