"""Published checkpoints as models of this package, and back."""

from keras_ssm.convert.checkpoint import FORMATS, load_checkpoint

__all__ = ["FORMATS", "load_checkpoint"]
