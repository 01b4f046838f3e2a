"""`keras-ssm train` and `keras-ssm evaluate`."""

import shlex
from pathlib import Path

import click
from rich.table import Table

from keras_ssm import recipes
from keras_ssm.cli.command_group import check_installed, choose_backend, load_keras, setting
from keras_ssm.cli.console import BACKENDS, console

_FOLDER = {"type": click.Path(path_type=Path)}
_FOLDER |= {"help": "Folder of all data; a recipe reads its own folder in it."}
DATA = click.option("--data", required=True, **_FOLDER)
DATA_IF_NEEDED = click.option("--data", **_FOLDER)


class TrainCommand(click.Command):
    """A command whose `--seeds` takes all the integers that follow, and that lists the recipes."""

    def parse_args(self, context, args):
        if not args:
            click.echo(f"{context.get_usage()}\n\nRecipes:\n{_listed()}\n\n--help says more.")
            context.exit()
        return super().parse_args(context, gathered(args))

    def format_epilog(self, context, formatter):
        with formatter.section("Recipes"):
            formatter.write_dl(list(recipes.summaries().items()))


def gathered(args):
    """Returns the words of a command with the numbers after `--seeds` as one word."""
    words = []
    for word in args:
        if word.isdecimal() and len(words) > 1 and words[-2] == "--seeds":
            words[-1] = f"{words[-1]} {word}"
        else:
            words.append(word)
    return words


def _listed():
    summaries = recipes.summaries()
    width = max(map(len, summaries))
    return "\n".join(f"  {name:{width}}  {text}" for name, text in summaries.items())


def read_seeds(context, parameter, value):
    try:
        seeds = [int(word) for word in value.split()] if value is not None else None
    except ValueError:
        raise click.BadParameter(f"must be integers. Received: {value}") from None
    if seeds is not None and len(set(seeds)) < len(seeds):
        raise click.BadParameter(f"must differ. Received: {value}")
    return seeds


@click.command(cls=TrainCommand)
@click.argument("recipe")
@click.argument("settings", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--system", help="Which of the recipe's models.  [default: its first]")
@DATA_IF_NEEDED
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Directory of the run; with --seeds that of all runs.  [default: runs/RECIPE-SYSTEM-SEED]",
)
@click.option("--seed", type=int, help="Of initial values, batches, dropout.  [default: 0]")
@click.option(
    "--seeds",
    callback=read_seeds,
    metavar="SEED...",
    help="One run for each of these seeds, and the mean and the spread of their scores.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help="A smoke run: one epoch of at most N batches, and few rows to score.",
)
@click.option("--no-test", is_flag=True, help="Leave the test part unread: to choose settings.")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="CSV file to add the scores to.  [default: results.csv beside the run]",
)
@click.option("--backend", type=click.Choice(BACKENDS), help="Keras backend.")
def train(recipe, settings, system, data, out, seed, seeds, limit, no_test, results, backend):
    """Trains a model by a recipe, scores it and makes a preset of it.

    A run that was interrupted goes on when the same command is given again. NAME=VALUE stands in
    place of a setting of the recipe: hidden_dim=64 epochs=2.
    """
    if seeds and seed is not None:
        raise click.UsageError("Name --seed or --seeds, not both.")
    choose_backend(backend)
    check_installed("tqdm", "yaml")
    load_keras()
    from keras_ssm import training

    try:
        overrides = dict(setting(text) for text in settings)
        chosen = recipes.get(recipe)
        if data is None and chosen.needs_data:
            raise click.UsageError(f"Missing option '--data': recipe '{recipe}' reads a folder.")
        system = system or next(iter(chosen.systems))
        words = ["keras-ssm", "train", recipe, "--system", system]
        options = [*(["--limit", str(limit)] if limit else []), *["--no-test"] * no_test, *settings]

        def command(*seed_words):
            return shlex.join([*words, *seed_words, *options])

        folder = Path("runs") if out is None or not seeds else out
        table = results
        finished = []
        for number in seeds or [seed or 0]:
            directory = folder / f"{recipe}-{system}-{number}" if seeds or out is None else out
            finished.append(
                training.train(
                    *(chosen, system, data, directory, number, overrides),
                    command=command("--seed", str(number)),
                    limit=limit,
                    test=not no_test,
                )
            )
            table = results or directory.parent / "results.csv"
            training.append_rows(table, finished[-1])
            _show(finished[-1], f"seed {number}")
            console.print(f"written to {directory}")
        if seeds:
            rows = training.summary(finished, command("--seeds", *map(str, seeds)))
            training.write_rows(table, rows)
            _show_summary(rows)
        console.print(f"scores in {table}")
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def _show(results, title):
    scores = results["scores"]
    table = Table("metric", *scores, title=title)
    for metric in next(iter(scores.values())):
        table.add_row(metric, *(f"{part[metric]:.4f}" for part in scores.values()))
    console.print(table)


def _show_summary(rows):
    table = Table("metric", "part", "mean", "spread", title=f"seeds {rows[0]['seed']}")
    for row in rows:
        spread = "" if row["spread"] is None else f"{row['spread']:.4f}"
        table.add_row(row["metric"], row["part"], f"{row['value']:.4f}", spread)
    console.print(table)


@click.command()
@click.argument("preset")
@DATA_IF_NEEDED
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
    for metric, recorded, score_now in scores:
        table.add_row(metric, f"{recorded:.4f}", f"{score_now:.4f}")
    console.print(table)
    # NaN repeats nothing.
    repeats = [
        abs(score_now - recorded) <= tolerance * abs(recorded) for _, recorded, score_now in scores
    ]
    if not all(repeats):
        raise click.ClickException(
            f"The scores must repeat within {tolerance:g} of those recorded. Received: others"
        )
