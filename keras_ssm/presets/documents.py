"""The JSON files of a preset, each read once."""

from collections.abc import Mapping
from pathlib import Path

from keras_ssm.presets.preset_files import PRESET_FILE, read_json


class Documents(Mapping):
    """Dict of the name of each JSON file of a preset, `preset.json` apart, to what it holds.

    Args:
        directory: `Path`. The preset.
    """

    def __init__(self, directory: Path):
        self.directory = Path(directory)
        self._names = sorted(
            path.name for path in self.directory.glob("*.json") if path.name != PRESET_FILE
        )
        self._read = {}

    def __getitem__(self, name: str) -> dict:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._read:
            self._read[name] = read_json(self.directory / name)
        return self._read[name]

    def __iter__(self):
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
