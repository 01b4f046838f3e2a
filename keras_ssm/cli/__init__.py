"""The command `keras-ssm`."""

from keras_ssm.cli.commands import main

__all__ = ["main"]
