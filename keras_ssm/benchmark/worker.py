"""The measurements of one section on one backend, a JSON row a line."""

import importlib
import json
import sys

import keras


def rows(section, **arguments):
    """Yields the rows of a section, with the backend and the section's name.

    Args:
        section: str. Of `run.SECTIONS`.
        **arguments: those of the section's `rows`.
    """
    module = importlib.import_module(f"keras_ssm.benchmark.sections.{section}")
    for row in module.rows(**arguments):
        yield {"section": section, "backend": keras.config.backend(), **row}


def main():
    for row in rows(**json.loads(sys.argv[1])):
        print(json.dumps(row), flush=True)
