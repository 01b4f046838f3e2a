import contextlib
import contextvars
from collections.abc import Iterator

import keras

from keras_ssm.types import PathLike

_LEAVES_HEAD = contextvars.ContextVar("leaves_head", default=False)


@contextlib.contextmanager
def leaving_head(leaves: bool) -> Iterator[None]:
    """Loads presets without their heads: keras_hub does so for the argument `num_classes` alone."""
    token = _LEAVES_HEAD.set(leaves)
    try:
        yield
    finally:
        _LEAVES_HEAD.reset(token)


class HeadFiles:
    """The weights file of a task beside that of its backbone."""

    def save_task_weights(self, filepath: PathLike) -> None:
        """Saves what the head adds to the backbone; not the optimizer."""
        keras.saving.save_weights(self, filepath, objects_to_skip=self._not_in_head())

    def load_task_weights(self, filepath: PathLike) -> None:
        """Loads what `save_task_weights` saved."""
        if _LEAVES_HEAD.get():
            return
        keras.saving.load_weights(self, filepath, objects_to_skip=self._not_in_head())

    def _not_in_head(self):
        parts = list(self.backbone._flatten_layers())
        optimizer = getattr(self, "optimizer", None)
        return parts if optimizer is None else [*parts, optimizer]
