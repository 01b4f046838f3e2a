"""What `summary` of a task says of its preprocessor."""

import keras
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from keras_ssm.keras_internals import print_msg

_OF_EVERY_LAYER = ("name", "trainable", "dtype", "config_file")


def print_preprocessor(preprocessor, line_length=None, print_fn=None):
    """Prints a preprocessor as Keras prints a model: its class and its settings.

    Args:
        preprocessor: layer, or any callable.
        line_length: int or `None`. Width of the table. Defaults to that of the terminal.
        print_fn: callable or `None`. Takes the text. Defaults to printing it.
    """
    name, kind, settings = _described(preprocessor)
    captured = print_fn is not None or not keras.config.is_interactive_logging_enabled()
    plain = {"force_terminal": False, "color_system": None} if captured else {}
    console = Console(highlight=False, width=line_length, **plain)
    table = Table("Preprocessor (type)", "Setting", width=line_length, show_lines=True)
    rows = "\n".join(f"{key}: {value}" for key, value in settings.items()) or "-"
    table.add_row(f"{escape(name)} ([color(33)]{escape(kind)}[/])", escape(rows))
    with console.capture() as text:
        console.print(f'[bold]Preprocessor: "{escape(name)}"[/]')
        console.print(table)
    if captured:
        (print_fn or print_msg)(text.get().rstrip("\n"))
    else:
        print(text.get(), end="")


def _described(preprocessor):
    kind = type(preprocessor).__name__
    name = getattr(preprocessor, "name", None) or getattr(preprocessor, "__name__", kind)
    settings = {}
    if isinstance(preprocessor, keras.Layer):
        config = preprocessor.get_config()
        settings = {k: _short(v) for k, v in config.items() if k not in _OF_EVERY_LAYER}
    return str(name), kind, settings


def _short(value):
    """The class of a layer inside, such as a tokenizer, in place of its configuration."""
    return value["class_name"] if isinstance(value, dict) and "class_name" in value else value
