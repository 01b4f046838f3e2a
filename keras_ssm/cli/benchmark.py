"""`keras-ssm benchmark`."""

import importlib.util
import shlex
import sys
import time
from pathlib import Path

import click
from rich.progress import Progress, SpinnerColumn

from keras_ssm.cli.command_group import check_installed
from keras_ssm.cli.console import BACKENDS, console


@click.command()
@click.option("--backend", "backends", multiple=True, type=click.Choice(BACKENDS), help="Repeat.")
@click.option("--layer", "names", multiple=True, help="S4, S4D, ..., LSTM, GRU; repeat.")
@click.option("--method", "methods", multiple=True, help="auto, chunked, fft, recurrent; repeat.")
@click.option("--length", "lengths", multiple=True, type=int, help="1024, 4096, ...; repeat.")
@click.option("--quick", is_flag=True, help="The shortest length, what auto picks, and LSTM.")
@click.option("--layers", is_flag=True, help="Time every layer and method. The default.")
@click.option("--memory", is_flag=True, help="Count the peak memory of the same.")
@click.option("--stream", is_flag=True, help="Time a streamed step of six layers.")
@click.option("--fit", is_flag=True, help="Train a classifier of four blocks.")
@click.option("--long", is_flag=True, help="Read a million steps.")
@click.option("--selective", is_flag=True, help="Time Mamba and Mamba-2 beside other forms.")
@click.option("--selective-memory", is_flag=True, help="Count the peak memory of the same.")
@click.option("--decode", is_flag=True, help="Write text with a model of 130 million weights.")
@click.option("--context", type=click.IntRange(min=101), help="Of --decode: tokens read before.")
@click.option("--full", is_flag=True, help="All of these.")
@click.option("--seconds", type=float, help="Time for each function that is measured.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for tables and picture.")
def benchmark(backends, names, methods, lengths, quick, context, full, seconds, out, **sections):
    """Times every layer against its published formulation, in one run.

    With --out, the rows are saved in a new CSV file under results/ in that folder. The page
    benchmark.md and the picture show all the files there: of each measurement the newest, in
    tables of their own for each machine.
    """
    backends = _installed(backends)
    if out is not None:
        check_installed("matplotlib")
    from keras_ssm import machine
    from keras_ssm.atomic_file import writing_file
    from keras_ssm.benchmark import memory, picture, records, report, run

    shapes = run.QUICK_SHAPES if quick else run.SHAPES
    choices = {
        "--layer": [
            *run.SYSTEMS,
            *run.KERNELS,
            *run.GATED,
            *run.BLOCKS,
            *run.GRIDS,
            *run.OTHERS,
        ],
        "--method": run.METHODS,
        "--length": [shape[1] for shape in shapes],
    }
    for option, values in (("--layer", names), ("--method", methods), ("--length", lengths)):
        for value in values:
            if value not in choices[option]:
                raise click.BadParameter(
                    f"{value} is none of {', '.join(map(str, choices[option]))}", param_hint=option
                )
    chosen_sections = [section for section in run.SECTIONS if full or sections[section]]
    if not chosen_sections:
        chosen_sections = ["layers", "memory"] if quick and memory.available() else ["layers"]
    for section in chosen_sections:
        if names and "names" in run.SECTIONS[section] and not run.names_of(section, names, quick):
            raise click.BadParameter(
                f"--{section} measures {', '.join(run.SYSTEMS)} alone. Received: "
                f"{', '.join(names)}",
                param_hint="--layer",
            )
    machine_facts, rows = machine.describe(), []
    earlier = _earlier(out)
    job = {
        "shapes": [shape for shape in shapes if not lengths or shape[1] in lengths],
        "names": list(names) or (run.QUICK_NAMES if quick else choices["--layer"]),
        "methods": list(methods) or (["auto"] if quick else run.METHODS),
        "seconds": seconds or (0.05 if quick else 3.0),
        "quick": quick,
        "context": context,
    }
    start, date = time.perf_counter(), time.strftime("%Y-%m-%d")
    path = None if out is None else records.new_path(out, date, backends)

    def save():
        """Runs after every row, so that rows stay if the command is interrupted."""
        current = records.Run(machine_facts, _command(), date, time.perf_counter() - start, rows)
        records.write(path, current)
        groups = records.by_machine([*earlier, current])
        with writing_file(out / "benchmark.md") as scratch:
            scratch.write_text(report.markdown(groups))
        return next(group for group in groups if current in group)

    with Progress(SpinnerColumn(), *Progress.get_default_columns()[:1], console=console) as bar:
        task = bar.add_task("measuring", total=None)

        def keep(row):
            rows.append(row)
            bar.update(task, description=_measured(row))
            if out is not None:
                save()

        try:
            run.run(chosen_sections, backends, keep, **job)
        except RuntimeError as error:
            raise click.ClickException(str(error)) from None
    for table in report.tables(rows):
        console.print(table)
    if out is not None and picture.curves(measured := records.all_rows(save())):
        picture.draw(measured, out / "benchmark.png")


def _installed(backends):
    """The chosen backends, which must be installed; without a choice all installed ones."""
    check_installed(*backends)
    installed = backends or [name for name in BACKENDS if importlib.util.find_spec(name)]
    if not installed:
        raise click.ClickException(
            "A backend is needed: pip install 'keras-ssm[jax]', or tensorflow, or torch. "
            "Received: none of them is installed"
        )
    return list(installed)


def _earlier(out):
    from keras_ssm.benchmark import records

    try:
        return [] if out is None else records.read_all(out)
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def _measured(row):
    return f"{row['section']}: {row['layer']} on {row['backend']}"


def _command():
    arguments = iter(sys.argv[1:])
    words = []
    for argument in arguments:  # the folder changes no measurement
        if argument == "--out":
            next(arguments, None)
        elif not argument.startswith("--out="):
            words.append(argument)
    return shlex.join(["keras-ssm", *words])
