"""Presets as files: names, directories, checks. Imports neither keras nor keras_hub."""

from keras_ssm.presets.class_check import check_classes
from keras_ssm.presets.config_check import check_agreement, check_sizes, is_quantised
from keras_ssm.presets.documents import Documents
from keras_ssm.presets.found_preset import FoundPreset
from keras_ssm.presets.hub_errors import explained
from keras_ssm.presets.hub_snapshot import SCHEME, download
from keras_ssm.presets.migrations import format_version, migrate_document, migrated
from keras_ssm.presets.preset_files import (
    CARD_FILE,
    PRESET_FILE,
    describe,
    files_read_on_load,
    is_read_on_load,
    read,
    read_json,
    sha256,
    verify,
    vouching,
    write,
    writing,
)
from keras_ssm.presets.published_models import (
    CODESTRAL,
    HF,
    HYENA_HF,
    HYENA_ORIGINAL,
    ORIGINAL,
    PUBLISHED_FORMATS,
    directory_of,
    is_weight_file,
    published_format,
    weight_index,
    weight_names,
)
from keras_ssm.presets.registry import ORGANISATION, find, handle, list_presets, resolve
from keras_ssm.presets.results import RESULTS_FILE, read_results, write_results
from keras_ssm.presets.table import markdown_results, markdown_table, markdown_tasks
from keras_ssm.presets.weights_check import check_weights

__all__ = [
    "CARD_FILE",
    "CODESTRAL",
    "HF",
    "HYENA_HF",
    "HYENA_ORIGINAL",
    "ORGANISATION",
    "ORIGINAL",
    "PRESET_FILE",
    "PUBLISHED_FORMATS",
    "RESULTS_FILE",
    "SCHEME",
    "Documents",
    "FoundPreset",
    "check_agreement",
    "check_classes",
    "check_sizes",
    "check_weights",
    "describe",
    "directory_of",
    "download",
    "explained",
    "files_read_on_load",
    "find",
    "format_version",
    "handle",
    "is_quantised",
    "is_read_on_load",
    "is_weight_file",
    "list_presets",
    "markdown_results",
    "markdown_table",
    "markdown_tasks",
    "migrate_document",
    "migrated",
    "published_format",
    "read",
    "read_json",
    "read_results",
    "resolve",
    "sha256",
    "verify",
    "vouching",
    "weight_index",
    "weight_names",
    "write",
    "write_results",
    "writing",
]
