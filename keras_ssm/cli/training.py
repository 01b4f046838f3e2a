"""`keras-ssm train` and `keras-ssm evaluate`."""

import shlex
from pathlib import Path

import click
from rich.table import Table

from keras_ssm.cli.command_group import check_installed, choose_backend, load_keras, setting
from keras_ssm.cli.console import BACKENDS, console

DATA = click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of all data; the recipe reads the folder of its name in it.",
)


@click.command()
@click.argument("recipe")
@click.argument("settings", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--system", help="Which of the recipe's models.  [default: its first]")
@DATA
@click.option("--out", type=click.Path(path_type=Path), help="[default: runs/RECIPE-SYSTEM-SEED]")
@click.option("--seed", default=0, show_default=True, help="Of initial values, batches, dropout.")
@click.option("--results", type=click.Path(path_type=Path), help="CSV file to add the scores to.")
@click.option("--backend", type=click.Choice(BACKENDS), help="Keras backend.")
def train(recipe, settings, system, data, out, seed, results, backend):
    """Trains a model by a recipe, scores it and makes a preset of it.

    RECIPE is tinyshakespeare. A run that was interrupted goes on when the same command is given
    again. NAME=VALUE stands in place of a setting of the recipe: hidden_dim=64 epochs=2.
    """
    choose_backend(backend)
    check_installed("tqdm", "yaml")
    load_keras()
    from keras_ssm import recipes
    from keras_ssm.recipes import run

    try:
        overrides = dict(setting(text) for text in settings)
        found = recipes.get(recipe)
        system = system or next(iter(found.systems))
        out = out or Path("runs") / f"{recipe}-{system}-{seed}"
        words = ["keras-ssm", "train", recipe, "--system", system, "--seed", str(seed), *settings]
        done = run.train(found, system, data, out, seed, overrides, command=shlex.join(words))
        if results is not None:
            run.append_rows(results, done)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    table = Table("metric", *done["scores"])
    for metric in done["scores"]["test"]:
        table.add_row(metric, *(f"{part[metric]:.4f}" for part in done["scores"].values()))
    console.print(table)
    console.print(f"written to {out}")


@click.command()
@click.argument("preset")
@DATA
@click.option("--tolerance", default=1e-3, show_default=True, help="Largest relative difference.")
@click.option("--backend", type=click.Choice(BACKENDS), help="Keras backend.")
def evaluate(preset, data, tolerance, backend):
    """Scores a preset on the test part again: exit 0 where the score repeats, else 1."""
    choose_backend(backend)
    load_keras()
    from keras_ssm.recipes import run

    try:
        scores = run.evaluate(preset, data)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    table = Table("metric", "recorded", "found")
    for metric, recorded, found in scores:
        table.add_row(metric, f"{recorded:.4f}", f"{found:.4f}")
    console.print(table)
    if any(abs(found - recorded) > tolerance * abs(recorded) for _, recorded, found in scores):
        raise click.ClickException(
            f"The scores must repeat within {tolerance:g} of those recorded. Received: others"
        )
