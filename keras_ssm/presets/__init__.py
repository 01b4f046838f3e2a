"""Presets as files: names, directories, checks. Imports neither keras nor keras_hub."""

from keras_ssm.presets.preset_files import FORMAT_VERSION, describe, read, verify, writing
from keras_ssm.presets.registry import list_presets, resolve

__all__ = ["FORMAT_VERSION", "describe", "list_presets", "read", "resolve", "verify", "writing"]
