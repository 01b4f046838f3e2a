"""Presets in half of their bytes, where their score does not move."""

import shutil
import tempfile
from pathlib import Path

from keras_ssm import hub, presets, recipes
from keras_ssm.gallery.subject import Subject
from keras_ssm.models.saving.preset_loading import load_model
from keras_ssm.training.preset_facts import weights_size
from keras_ssm.types import PathLike

MOST = 5e-4  # of the main score: half of what `keras-ssm evaluate` lets pass
ROUNDED_FROM = "rounded_from"


def halve(name: str, data: PathLike | None, directory: PathLike) -> tuple[float, float]:
    """Writes the weights of a preset anew in float16, if its main score stays.

    Args:
        name: str. A preset that a recipe made.
        data: str, `Path` or `None`. Folder of all data; `None` where the recipe needs none.
        directory: str or `Path`. Folder of the presets.

    Returns:
        Tuple of the main score on the test part before and after.

    Raises:
        ValueError: for a preset that no recipe made, weights that float16 does not hold, or a
            score that moves by more than 0.0005. Nothing is written then.
    """
    directory = Path(directory).expanduser()
    document = presets.verify(directory / name)
    if "recipe" not in document:
        raise ValueError(f"Preset '{name}' must be made by a recipe. Received: no 'recipe'")
    recipe = recipes.get(document["recipe"]["recipe"])
    part = recipe.arrange(recipe.read_below(data), document["recipe"]["settings"]).test
    subject = Subject(directory / name, recipe, part)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch) / name
        subject.model.save_to_preset(scratch, weights_dtype="float16")
        models = subject.model, load_model(scratch)
        scores = [recipe.score(model, part, subject.settings) for model in models]
        metric = next(iter(scores[0]))
        before, after = (float(values[metric]) for values in scores)
        if not abs(after - before) <= MOST * max(1.0, abs(before)):
            raise ValueError(
                f"The {metric} of '{name}' must stay within {MOST:g} in float16. "
                f"Received: {after:.6g} after {before:.6g}"
            )
        with presets.writing(directory / name) as place:
            for path in (directory / name).iterdir():
                shutil.copyfile(path, place / path.name)
            weights = [path.name for path in scratch.glob("*.weights.h5")]
            for file in weights:
                shutil.copyfile(scratch / file, place / file)
            facts = {key: document[key] for key in document if key not in ("files", "sample")}
            facts["sample"] = presets.read(scratch)["sample"]
            facts["size"] = weights_size(scratch)
            of_run = document.get(ROUNDED_FROM, {})  # of weights that were halved before
            facts[ROUNDED_FROM] = {file: document["files"][file] for file in weights} | of_run
            presets.describe(place, facts)
            (place / presets.CARD_FILE).write_text(hub.card(place), encoding="utf-8")
    return before, after
