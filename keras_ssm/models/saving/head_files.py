import contextlib
import contextvars
from collections.abc import Iterator, Mapping

import keras

from keras_ssm.types import PathLike

# Arguments of a head, which do not change its backbone.
OF_A_HEAD = {"num_classes", "pooling", "head_dtype", "head_dim", "head_activation"}
OF_A_HEAD |= {"tie_embeddings", "num_outputs", "lookback", "horizon", "quantiles", "head"}
OF_A_HEAD |= {"normalization", "train_shortcut", "decoder"}

_LEAVES_HEAD = contextvars.ContextVar("leaves_head", default=False)


@contextlib.contextmanager
def leaving_head(leaves: bool) -> Iterator[None]:
    """Loads presets without their heads: keras_hub does so for the argument `num_classes` alone."""
    token = _LEAVES_HEAD.set(leaves)
    try:
        yield
    finally:
        _LEAVES_HEAD.reset(token)


def is_saved_head(documents: Mapping, arguments: Mapping) -> bool:
    """Whether all arguments of a head are those of the saved one.

    Args:
        documents: `presets.Documents` of a preset.
        arguments: mapping of those that override the configuration.
    """
    saved = (documents.get("task.json") or {}).get("config") or {}
    passed = {name: arguments[name] for name in arguments if name in OF_A_HEAD}
    passed = {name: list(v) if isinstance(v, tuple) else v for name, v in passed.items()}
    return bool(passed) and all(name in saved and saved[name] == passed[name] for name in passed)


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
