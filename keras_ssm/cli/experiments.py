"""`keras-ssm experiment`: claims of papers, repeated."""

from pathlib import Path

import click
from rich.table import Table

from keras_ssm.cli.command_group import check_installed, choose_backend, load_keras, setting
from keras_ssm.cli.console import BACKENDS, console
from keras_ssm.cli.training import DATA, gathered, read_seeds

OUT = click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Directory of what comes out."
)
BACKEND = click.option("--backend", type=click.Choice(BACKENDS), help="Keras backend.")


class SeedsCommand(click.Command):
    """A command whose `--seeds` takes all the integers that follow."""

    def parse_args(self, context, args):
        return super().parse_args(context, gathered(args))


@click.group()
def experiment():
    """Repeats a claim of a paper: trainings, scores, a table and a picture."""


@experiment.command("ptd_noise", cls=SeedsCommand)
@click.argument("settings", nargs=-1, metavar="[NAME=VALUE]...")
@DATA
@OUT
@click.option("--source", default="sequential_mnist", show_default=True, help="Recipe of images.")
@click.option("--form", "forms", multiple=True, help="published, package; repeat.  [default: both]")
@click.option("--system", "systems", multiple=True, help="A system; repeat.  [default: all]")
@click.option(
    "--seeds", default="0 1 2", callback=read_seeds, metavar="SEED...", help="[default: 0 1 2]"
)
@click.option(
    "--images",
    type=click.IntRange(1),
    default=300,
    show_default=True,
    help="Test images for each frequency and amplitude of the grid.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="A smoke run of N batches.")
@BACKEND
def ptd_noise(settings, data, out, source, forms, systems, seeds, images, limit, backend):
    """Noise at the spikes of S4D-LegS, in every layer of S4, S4D, S4-PTD, S5 and S5-PTD.

    Trains a small network of each system without noise, and scores it with a wave of one frequency
    in every layer, over frequencies and amplitudes. Given again, the command goes on where it was
    interrupted. NAME=VALUE stands in place of a setting: hidden_dim=64 epochs=10.
    """
    choose_backend(backend)
    check_installed("matplotlib", "tqdm", "yaml")
    load_keras()
    from keras_ssm import experiments

    chosen = {name: value for name, value in (("forms", forms), ("systems", systems)) if value}
    try:
        rows = experiments.ptd_noise(
            *(data, out, source),
            **chosen,
            seeds=seeds,
            overrides=dict(setting(text) for text in settings),
            images=images,
            limit=limit,
        )
        table = Table("form", "system", "seeds", "without noise", "with noise")
        for row in experiments.summary(rows):
            scores = (_with_spread(*row[name]) for name in ("clean", "noisy"))
            table.add_row(row["form"], row["system"], str(row["seeds"]), *scores)
        console.print(table)
        experiments.plot_ptd_noise(rows).savefig(out / "noise.png", dpi=100, bbox_inches="tight")
        console.print(f"scores in {out / 'noise.csv'}, picture in {out / 'noise.png'}")
    except ValueError as error:
        raise click.ClickException(str(error)) from None


@experiment.command("playback_rate")
@click.argument("sources", nargs=-1, required=True, metavar="RUN...")
@DATA
@OUT
@click.option("--rate", "rates", multiple=True, type=float, help="Repeat.  [default: 0.4 to 1.6]")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="So many recordings.")
@BACKEND
def playback_rate(sources, data, out, rates, limit, backend):
    """Spoken digits at other sampling rates, by models that were trained at one.

    RUN is the directory of a complete run of `keras-ssm train spoken_digits`, of a system or of a
    baseline, or a preset that came of one.
    """
    choose_backend(backend)
    check_installed("matplotlib")
    load_keras()
    from keras_ssm import experiments

    try:
        options = {"rates": rates} if rates else {}
        rows = experiments.playback_rate(sources, data, out, limit=limit, **options)
        measured_rates = sorted({row["rate"] for row in rows})
        table = Table("model", "reading", *map(str, measured_rates))
        for source, reading in dict.fromkeys((row["source"], row["reading"]) for row in rows):
            row_at = {
                r["rate"]: r for r in rows if (r["source"], r["reading"]) == (source, reading)
            }
            scores = (
                f"{row_at[rate]['accuracy']:.3f}" if rate in row_at else ""
                for rate in measured_rates
            )
            table.add_row(source, reading, *scores)
        console.print(table)
        experiments.plot_playback_rate(rows).savefig(out / "rates.png", dpi=100)
        console.print(f"scores in {out / 'rates.csv'}, picture in {out / 'rates.png'}")
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def _with_spread(mean, spread):
    return f"{mean:.4f}" if spread is None else f"{mean:.4f} ± {spread:.4f}"
