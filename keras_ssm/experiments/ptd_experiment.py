"""The claim of perturb-then-diagonalise: systems under noise at the spikes of S4D-LegS."""

import itertools
import shlex
import statistics
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from keras_ssm import initializers
from keras_ssm.checks import check_choice, check_positive
from keras_ssm.experiments.fourier_noise import set_fourier_noise, with_fourier_noise
from keras_ssm.experiments.ptd_recipe import PTDNoise
from keras_ssm.experiments.tables import add_rows, read_table, write_table
from keras_ssm.training import append_rows, train
from keras_ssm.types import PathLike

FORMS = {
    "published": {"residual": False, "frozen": True},
    "package": {"residual": True, "frozen": False},
}
AMPLITUDES = (0.03, 0.1, 0.3, 1.0)
PUBLISHED_AMPLITUDE = 0.1
COLUMNS = ("form", "system", "seed", "frequency", "amplitude", "images", "accuracy")


def ptd_noise(
    data: PathLike,
    out: PathLike,
    source: str = "sequential_mnist",
    forms: Iterable[str] = tuple(FORMS),
    systems: Iterable[str] = tuple(PTDNoise.systems),
    seeds: Iterable[int] = (0, 1, 2),
    overrides: dict | None = None,
    images: int = 300,
    limit: int | None = None,
) -> list[dict]:
    """Trains networks of each system, and scores them with noise in every state-space layer.

    Every network is trained without noise, by `training.train`: what was interrupted goes on, and
    a run that is complete is not repeated. Then a wave of one frequency is added to the input of
    every layer, see `with_fourier_noise`. All test images are read at the largest spike of
    S4D-LegS with the published amplitude of 0.1, and `images` of them over the grid of
    `frequencies` and amplitudes from 0.03 to 1.

    The published form has no residual connection and no D, and dt, A and B do not learn. The form
    of this package has both, and all of it learns.

    Args:
        data: str or `Path`. Folder of all data.
        out: str or `Path`. Directory of all runs, of `noise.csv` and `noise.png`.
        source: str. Recipe whose images are read. Defaults to `"sequential_mnist"`.
        forms: names of `"published"` and `"package"`. Defaults to both.
        systems: names of `PTDNoise.systems`. Defaults to all.
        seeds: integers. Defaults to 0, 1 and 2.
        overrides: dict or `None`. Settings in place of those of `PTDNoise`.
        images: int. Test images for each cell of the grid. Defaults to `300`.
        limit: int or `None`. A smoke run: so many batches an epoch, and few rows to score.

    Returns:
        List of dicts: the rows of `noise.csv`, one for each run, frequency and amplitude. Amplitude
        0 is without noise.

    Raises:
        ValueError: for unknown names or settings, or data that are not there.

    Example:
        ```python
        # keras_ssm.experiments.ptd_noise("data", "runs/ptd_noise", systems=["s4", "s4ptd"])
        ```

    Reference:
        [PTD](https://arxiv.org/abs/2310.01698), section 5.1.
    """
    out, recipe, rows = Path(out).expanduser(), PTDNoise(source), []
    check_positive(images=images)
    forms, systems, seeds = tuple(forms), tuple(systems), tuple(seeds)
    if decided := {"residual", "frozen"} & {*(overrides or {})}:
        raise ValueError(
            "`forms` decides about the residual connection and what learns. "
            f"Received: {sorted(decided)}"
        )
    for name, values, choices in (("form", forms, FORMS), ("system", systems, recipe.systems)):
        for value in values:
            check_choice(name, value, tuple(choices))
    for seed, form, system in itertools.product(seeds, forms, systems):
        directory = out / f"{form}-{system}-{seed}"
        results = train(
            *(recipe, system, data, directory, seed, {**(overrides or {}), **FORMS[form]}),
            command=_command(source, form, system, seed, overrides, images, limit),
            limit=limit,
        )
        append_rows(out / "results.csv", results)
        rows += _scored(recipe, results, directory, Path(data), form, images)
        # Writes all rows so far, and keeps the rows of other runs from earlier calls.
        add_rows(out / "noise.csv", rows, COLUMNS, ("form", "system", "seed"))
    return rows


def summary(rows: list[dict]) -> list[dict]:
    """Returns a row for each form and system: means over the seeds, and their spread.

    Args:
        rows: rows of `ptd_noise`.

    Returns:
        List of dicts of `form`, `system`, `seeds`, and of `clean` and `noisy` the mean and the
        standard deviation over the seeds (of a sample; `None` for one): the accuracy on all test
        images without noise, and with the published noise at the largest spike.

    Example:
        ```python
        rows = [
            {"form": "published", "system": "s4", "seed": 0, "frequency": 325.4, "amplitude": a,
             "images": 10_000, "accuracy": 0.9 - a}
            for a in (0.0, 0.1)
        ]
        keras_ssm.experiments.summary(rows)[0]["noisy"]  # (0.8, None)
        ```
    """
    runs_of = {}
    for row in rows:
        # The first two rows of a run are scores on all test images: without noise, and with it.
        key = row["form"], row["system"]
        runs = runs_of.setdefault(key, {})
        values = runs.setdefault(row["seed"], [])
        if len(values) < 2:
            values.append(row["accuracy"])
    return [
        {
            **{"form": form, "system": system, "seeds": len(runs)},
            **{
                name: _mean_and_spread([values[i] for values in runs.values()])
                for i, name in enumerate(("clean", "noisy"))
            },
        }
        for (form, system), runs in runs_of.items()
    ]


def frequencies(state_dim: int) -> np.ndarray:
    """Returns the frequencies of the grid: the largest spike last but one.

    They are the spike over powers of two, the four fastest poles of S4D-LegS, the middle between
    each pair of these, and twice the spike.

    Args:
        state_dim: int. Size N of the state.

    Example:
        ```python
        spike = keras_ssm.experiments.frequencies(32)[-2]  # 325.4, nearly N^2 / pi
        ```
    """
    poles = -initializers.nplr("legs", state_dim).A.imag[:4]
    between = np.sqrt(poles[1:] * poles[:-1])
    low = poles[0] / 2.0 ** np.arange(4, 9)
    return np.unique(np.concatenate([low, poles, between, 2 * poles[:1]]))


def _scored(recipe, results, directory, data, form, images):
    """The rows of a run: from its file, or else by scoring its network under noise."""
    if (directory / "noise.csv").is_file():
        rows = read_table(directory / "noise.csv")
        if min(row["images"] for row in rows) == min(images, rows[0]["images"]):
            return rows
    system, seed, settings = (results[key] for key in ("system", "seed", "settings"))
    model = recipe.make_model(system, seed, settings)
    model.load_weights(directory / "best.weights.h5")
    splits = recipe.arrange(recipe.read(data.expanduser()), settings)
    if "limit" in results:
        splits = recipe.limited(splits, results["limit"], settings)
    waves = frequencies(settings["state_dim"])
    noisy = with_fourier_noise(model, waves[-2], PUBLISHED_AMPLITUDE)
    subset = splits.test.spread(images)
    cells = [(waves[-2], PUBLISHED_AMPLITUDE, splits.test)]
    cells += [(wave, amplitude, subset) for wave in waves for amplitude in AMPLITUDES]
    scores = [(0.0, 0.0, splits.test.size, results["scores"]["test"]["accuracy"])]
    for wave, amplitude, part in cells:
        set_fourier_noise(noisy, float(wave), amplitude, seed)
        accuracy = recipe.score(noisy, part, settings)["accuracy"]
        scores.append((round(float(wave), 3), amplitude, part.size, round(accuracy, 4)))
    rows = [dict(zip(COLUMNS, (form, system, seed, *score), strict=True)) for score in scores]
    write_table(directory / "noise.csv", rows, COLUMNS)
    return rows


def _command(source, form, system, seed, overrides, images, limit):
    """How to repeat one run."""
    words = ["keras-ssm", "experiment", "ptd_noise", "--source", source, "--form", form]
    words += ["--system", system, "--seeds", str(seed), "--images", str(images)]
    words += ["--limit", str(limit)] if limit else []
    values = {name: str(value).lower() for name, value in (overrides or {}).items()}
    return shlex.join([*words, *(f"{name}={value}" for name, value in values.items())])


def _mean_and_spread(values):
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
