from pathlib import Path
from typing import NamedTuple


class FoundPreset(NamedTuple):
    """A preset that was verified.

    Fields:
        directory: `Path`.
        document: dict. Its `preset.json`; `None` of a preset of keras_hub, which has none.
        vouched: what `vouching` returned before it was verified.
        format: str or `None`. The format of another library; see `published_models`.
    """

    directory: Path
    document: dict | None
    vouched: tuple | None
    format: str | None = None

    def __str__(self) -> str:
        return str(self.directory)
