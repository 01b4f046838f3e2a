"""The commands. Each imports what it needs: help must not load a backend."""

import json
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from keras_ssm import demo as demonstration
from keras_ssm import presets
from keras_ssm.cli.benchmark import benchmark
from keras_ssm.cli.command_group import (
    CommandGroup,
    check_installed,
    choose_backend,
    load_keras,
    setting,
)
from keras_ssm.cli.console import BACKENDS, console
from keras_ssm.cli.experiments import experiment
from keras_ssm.cli.training import evaluate, train
from keras_ssm.version import __version__


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="keras-ssm")
def main():
    """State-space models for Keras 3."""


main.add_command(benchmark)
main.add_command(train)
main.add_command(evaluate)
main.add_command(experiment)


@main.command("list")
@click.option("--markdown", is_flag=True, help="The table of the README.")
def list_command(markdown):
    """Lists the presets that a name loads, and where each stands."""
    if markdown:
        click.echo(presets.markdown_table(), nl=False)
        return
    listed = _explained(presets.list_presets)
    table = Table(*presets.table.COLUMNS, "from")
    for row, info in zip(presets.table.rows(listed), listed.values(), strict=True):
        table.add_row(*row, _source(info))
    console.print(table)
    if not any(info["published"] for info in listed.values()):
        console.print(
            f"None is published yet; on the Hub they will be hf://{presets.ORGANISATION}/<preset>."
        )


@main.command()
@click.argument("name")
@click.option("--revision", help="Branch, tag or commit of a preset on the Hub.")
def info(name, revision):
    """Shows configuration, size, scores and licences of a preset.

    NAME is a built-in name, a directory, or hf://organisation/name. Of a published model in
    another format its configuration is shown.
    """
    preset = _explained(lambda: presets.find(name, revision, weights=False))
    directory = preset.directory
    if preset.format is not None:
        console.print(_published(name, preset))
        return
    document = _explained(lambda: presets.read(directory))
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))["config"]
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("preset", name)
    for key in ("task", "system", "library_version"):
        if key in document:
            table.add_row(key.replace("_", " "), str(document[key]))
    table.add_row("parameters", f"{document.get('parameters', 0):,}")
    for key, value in _settings(config):
        table.add_row(key, value)
    for entry in document.get("scores", []):
        table.add_row(
            "score", f"{presets.table.score(entry)}\n[dim]{entry.get('command', '')}[/dim]"
        )
    for row in document.get("baselines", []):
        score = presets.table.shown(row["value"], row["metric"])
        table.add_row(f"beside it, {row['system']}", f"{score} {row['metric']}")
    for line in presets.table.costs(document):
        table.add_row("cost", line)
    for key, value in document.get("data", {}).items():
        table.add_row(f"data {key}".replace("data name", "data"), str(value))
    for key, value in document.get("licences", {}).items():
        table.add_row(f"licence of {key}", str(value))
    table.add_row("directory", str(directory))
    console.print(table)


@main.command()
@click.option(
    "--preset", help=f"Name or directory.  [default: {' or '.join(demonstration.FAVOURITES)}]"
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("out"), show_default=True)
@click.option("--web", is_flag=True, help="Show a page in the browser instead.")
@click.option("--port", type=int, help="Port of the page.  [default: 7860 or the next free one]")
@click.option("--backend", type=click.Choice(BACKENDS), help="Keras backend.")
def demo(preset, out, web, port, backend):
    """Streams, compares, saves and plots a preset, on real data that come with the package.

    With --web, presets read what you draw, say, or have in a table, in a page on this machine.
    """
    choose_backend(backend)
    if web:
        if preset is not None:
            raise click.UsageError("Choose the preset on the page, or leave --web.")
        _show_page(port)
        return
    if port is not None:
        raise click.UsageError("--port goes with --web.")
    preset = preset or _explained(demonstration.favourite)
    check_installed(*demonstration.LIBRARIES[_explained(lambda: demonstration.kind(preset))])
    load_keras()
    demonstration.run(preset, out, console)


def _show_page(port):
    check_installed("gradio", "matplotlib")
    load_keras()
    from keras_ssm.web import serve

    serve(port)


@main.command("convert")
@click.argument("source")
@click.argument("destination", type=click.Path(path_type=Path))
@click.option("--format", default="auto", show_default=True, help="Format of the checkpoint.")
@click.option("--to", help="Write a checkpoint: s4-example, s4-block, s5-flax, lru-flax ...")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="See below.")
@click.option("--config", type=click.Path(path_type=Path), help="YAML or JSON of the training run.")
@click.option(
    "--ignore", multiple=True, metavar="PATTERN", help="Tensors or weights to leave aside; repeat."
)
@click.option("--check", type=click.Path(path_type=Path), help="npz of recorded inputs and logits.")
@click.option("--overwrite", is_flag=True, help="Replace a model that is there.")
@click.option("--backend", type=click.Choice(BACKENDS), help="Keras backend.")
def convert_command(
    source, destination, format, to, settings, config, ignore, check, overwrite, backend
):
    """Converts a published checkpoint to a preset, or a preset back.

    SOURCE is a checkpoint of state-spaces/s4, ag1988/dss, lindermanlab/S5 or
    NicolasZucchet/minimal-LRU, or safetensors with their names; or the directory of a Mamba model,
    of transformers, state-spaces/mamba or Codestral, or hf://organisation/name of one. DESTINATION
    becomes a preset. Nothing in a checkpoint is run. What it does not say (pre- or post-norm, the
    transform of dt, ...) is set by the constructor names of the layers and models:
    --set prenorm=true --set dt_transform=softplus.

    With --to, SOURCE is a preset and DESTINATION becomes a checkpoint of the official classes;
    with --to mamba-hf or mamba-original a directory.
    """
    choose_backend(backend)
    load_keras()
    try:
        overrides = dict(map(setting, settings))
        if to and (overrides or config or ignore or check or format != "auto"):
            raise ValueError(
                "With `--to`, SOURCE and DESTINATION say everything. Received: further options"
            )
        if to:
            _export(source, destination, to, overwrite)
        else:
            _import(source, destination, format, config, ignore, check, overwrite, overrides)
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def _import(source, destination, format, config, ignore, check, overwrite, overrides):
    from keras_ssm import convert

    report, comparison = convert.convert_checkpoint(
        source, destination, format, config, ignore, check, overwrite, **overrides
    )
    report.print(console)
    if comparison is not None:
        worst = sorted(comparison.rows, reverse=True)[:5]
        console.print(
            f"{comparison.name} of {check}: largest differences "
            f"{', '.join(f'{row:.1e}' for row in worst)} of the maximum, "
            f"{len(comparison.rows)} rows"
        )
    console.print(f"written to {destination}")


def _export(source, destination, to, overwrite):
    from keras_ssm import convert
    from keras_ssm.models.saving.preset_loading import load_model

    model = load_model(source)
    if not hasattr(model, "backbone"):
        raise ValueError(
            "A preset to convert must hold a task model. "
            f"Received: {type(model).__name__} in '{source}'"
        )
    remarks = convert.export_checkpoint(model, destination, to, overwrite)
    for remark in remarks:
        console.print(f"note: {remark}", highlight=False)
    console.print(f"written to {destination}")


@main.command()
@click.argument("preset_dir", required=False)
@click.argument("repo_id", required=False)
@click.option("--all", "everything", is_flag=True, help="All presets of the package.")
@click.option(
    "--organisation", default=presets.ORGANISATION, show_default=True, help="Where --all goes."
)
@click.option("--dry-run", is_flag=True, help="Check, and tell what would be uploaded.")
@click.option("--private", is_flag=True, help="The repository must be private.")
@click.option("--revision", help="Branch, made if there is none.  [default: main]")
@click.option("--token", help="Better set HF_TOKEN, or run `hf auth login`.")
@click.option("--overwrite", is_flag=True, help="Replace another model in the repository.")
@click.option("--overwrite-card", is_flag=True, help="Replace a card edited in the repository.")
@click.option("--show-card", is_flag=True, help="Print the generated card and stop.")
@click.option("--space", metavar="REPO_ID", help="Publish the page of `demo --web` as a Space.")
@click.option("--backend", type=click.Choice(BACKENDS), help="Keras backend.")
def publish(preset_dir, repo_id, everything, organisation, show_card, space, backend, **settings):
    """Publishes a preset on the Hugging Face Hub, with a model card.

    PRESET_DIR is a directory that `save_to_preset` wrote, or an installed preset; REPO_ID is
    organisation/name. The preset is checked before, and downloaded and compared afterwards.

    With --space REPO_ID the page of `keras-ssm demo --web` becomes a Space instead, with the
    package and the presets that it shows.
    """
    if space is not None:
        if everything or preset_dir or show_card or settings["overwrite_card"]:
            raise click.UsageError("--space REPO_ID publishes the page, and no preset.")
        _publish_space(space, backend, settings)
        return
    if everything == bool(preset_dir or repo_id) or bool(preset_dir) != bool(repo_id):
        raise click.UsageError("Name PRESET_DIR and REPO_ID, or --all.")
    jobs = [(preset_dir, repo_id)]
    if everything:
        listed = _explained(presets.list_presets)
        jobs = [
            (name, f"{organisation}/{name}") for name, facts in listed.items() if facts["handle"]
        ]
    choose_backend(backend)
    failed = []
    for source, destination in jobs:
        try:
            _publish(source, destination, show_card, settings)
        except ValueError as error:
            failed.append(destination)
            click.echo(f"Error: {error}", err=True)
    if failed:
        click.echo(f"not published: {', '.join(failed)}", err=True)
        raise SystemExit(1)


def _publish_space(repo_id, backend, settings):
    choose_backend(backend)
    load_keras()
    from keras_ssm.web import publish_space

    settings.pop("overwrite_card")
    publication = _explained(lambda: publish_space(repo_id, backend=backend, **settings))
    for line in publication.describe():
        console.print(line, highlight=False, markup=False)


def _publish(source, destination, show_card, settings):
    directory = presets.resolve(source)
    load_keras()
    from keras_ssm import hub

    if show_card:
        click.echo(hub.card(directory, destination), nl=False)
        return
    for line in hub.publish(source, destination, **settings).describe():
        console.print(line, highlight=False, markup=False)


def _explained(action):
    try:
        return action()
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def _source(info):
    published = "on the Hub" if info["published"] else "not published yet"
    places = {"package": "package, " + published, "hub": published}
    return places.get(info["source"], info["source"])


def _published(name, preset):
    """The configuration of a published model in the format of another library, as a table."""
    file = "params.json" if preset.format == presets.CODESTRAL else "config.json"
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("published model", name)
    table.add_row("format", preset.format)
    for key, value in sorted(presets.read_json(preset.directory / file).items()):
        table.add_row(escape(key), escape(str(value)))
    table.add_row("directory", str(preset.directory))
    return table


def _settings(config):
    """The configuration of a backbone and its mixer, without the entries that Keras adds."""
    mixer = config.get("mixer", {}).get("config", {})
    for prefix, values in (("", config), ("mixer ", mixer)):
        for key, value in values.items():
            if key not in ("name", "trainable", "dtype", "mixer", "seed") and value is not None:
                yield prefix + key, str(value)
