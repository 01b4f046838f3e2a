"""Commands that end in one line, without a traceback, where something is not installed or fails."""

import contextlib
import errno
import importlib.util
import os
import re
import sys

import click

from keras_ssm.cli.console import BACKENDS

# Libraries that come with an extra of the package, by the names under which they are imported.
EXTRAS = {
    "gradio": "web",
    "jax": "jax",
    "matplotlib": "demo",
    "msgpack": "convert",
    "safetensors": "convert",
    "sklearn": "demo",
    "tensorflow": "tensorflow",
    "torch": "torch",
    "tqdm": "demo",
    "yaml": "convert",
}


class CommandGroup(click.Group):
    """A group of commands that says in one line which library is missing or which output fails."""

    def invoke(self, context):
        try:
            return super().invoke(context)
        except ImportError as error:
            raise click.ClickException(explain_missing(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # the reader has gone: click ends without a message
            raise click.ClickException(_one_line(error)) from error

    def main(self, *args, **kwargs):
        try:
            return super().main(*args, **kwargs)
        except OSError as error:  # while an error message is printed
            raise SystemExit(_report_failure(error)) from None
        finally:
            # Flushed here, since Python would print a traceback at its own end.
            codes = [_flush(stream) for stream in (sys.stdout, sys.stderr)]
            if any(codes):
                raise SystemExit(max(codes))


def explain_missing(error):
    """Says in one line which library is missing, and what to install.

    Args:
        error: `ImportError`.

    Returns:
        str.
    """
    name = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or name not in EXTRAS:
        return _one_line(error)
    return (
        f"This needs {name}: pip install 'keras-ssm[{EXTRAS[name]}]'. Received: no module '{name}'"
    )


def check_installed(*names):
    """Raises a `ModuleNotFoundError` for the first of these libraries that is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


def load_keras():
    """Imports Keras, whose backend may be missing or unknown.

    Raises:
        click.ClickException: if it cannot be imported, with what to do.
    """
    try:
        import keras

        problem = None
        if keras.config.backend() not in BACKENDS:
            problem = "a backend for which this package is not made"
    except Exception as error:  # backends raise errors of many kinds
        problem = _one_line(error)
    if problem is not None:
        chosen = os.environ.get("KERAS_BACKEND")
        raise click.ClickException(
            "Keras needs a backend that is installed: set `--backend` or KERAS_BACKEND to jax, "
            "tensorflow or torch, and pip install 'keras-ssm[jax]' (or that one). "
            f"Received: {f'KERAS_BACKEND={chosen}' if chosen else 'no KERAS_BACKEND'}, {problem}"
        )


# YAML 1.1 takes a number without a dot for text.
EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")


def choose_backend(backend):
    """Sets the backend that the command was asked for, before Keras is imported."""
    if backend:
        os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def setting(text):
    """Returns the name and the value of `NAME=VALUE`, the value as YAML reads it, or `2e-3`."""
    import yaml

    name, separator, value = text.partition("=")
    if not separator or not name:
        raise ValueError(f"A setting must be NAME=VALUE. Received: {text}")
    if EXPONENT.fullmatch(value):
        return name, float(value)
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        return name, value


def _flush(stream):
    """Writes what is left; returns the exit code that a failure asks for, else 0."""
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError) as error:
        # Output that cannot be written must not be tried again.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return _report_failure(error)
    return 0


def _report_failure(error):
    """Prints why an output failed, unless its reader has gone; returns the exit code."""
    if getattr(error, "errno", None) != errno.EPIPE:
        with contextlib.suppress(OSError, ValueError):
            print(f"Error: {_one_line(error)}", file=sys.stderr, flush=True)
    return 1


def _one_line(error):
    return " ".join(str(error).split()) or type(error).__name__
