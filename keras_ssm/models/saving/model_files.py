import io
import os

from keras_ssm.atomic_directory import writing_directory
from keras_ssm.atomic_file import writing_file
from keras_ssm.models.saving.adapted_files import apart
from keras_ssm.types import PathLike


class ModelFiles:
    """Saves backbone and task models, so that the old file or the whole new one is always there."""

    def save(
        self, filepath: PathLike, overwrite: bool = True, zipped: bool | None = None, **kwargs
    ) -> None:
        """Saves the model as a `.keras` file, whole or not at all; see `keras.Model.save`.

        Args:
            filepath: str or `Path`. Must end in `.keras`, unless `zipped=False`. A link is
                replaced, never what it points to.
            overwrite: bool. Whether a file that is there is replaced without a question.
            zipped: bool or `None`. `False` for a directory. Defaults to a file.
            **kwargs: Further arguments of `keras.Model.save`.

        Raises:
            ValueError: for a name with another ending. Keras would write one that ends in `.h5`,
                and could not load it.
        """
        elsewhere = _is_elsewhere(filepath)
        if not elsewhere and zipped is not False and not os.fspath(filepath).endswith(".keras"):
            raise ValueError(
                "`filepath` of a model must end in '.keras', or `zipped=False` make a directory; "
                "`save_weights` writes '.weights.h5', and `save_to_preset` a preset. "
                f"Received: filepath='{filepath}'"
            )
        with apart():
            if elsewhere or (not overwrite and os.path.exists(filepath)):
                super().save(filepath, overwrite=overwrite, zipped=zipped, **kwargs)
            elif zipped is False:
                with writing_directory(filepath) as directory:
                    super().save(directory, zipped=False, **kwargs)
            else:
                with writing_file(filepath) as file:
                    super().save(file, zipped=zipped, **kwargs)

    def save_weights(
        self, filepath: PathLike, overwrite: bool = True, max_shard_size: float | None = None
    ) -> None:
        """Saves the weights, whole or not at all; see `keras.Model.save_weights`.

        Args:
            filepath: str or `Path`. Must end in `.weights.h5`. A link is replaced, never what
                it points to.
            overwrite: bool. Whether a file that is there is replaced without a question.
            max_shard_size: float or `None`. Size in GB above which several files are written,
                one after the other, as Keras does: kept together only within a preset.
        """
        apart = max_shard_size is not None or (not overwrite and os.path.exists(filepath))
        if apart or _is_elsewhere(filepath):
            super().save_weights(filepath, overwrite=overwrite, max_shard_size=max_shard_size)
        else:
            with writing_file(filepath) as file:
                super().save_weights(file)


def _is_elsewhere(filepath):
    """Whether Keras writes this without a file on this machine."""
    return isinstance(filepath, io.IOBase) or "://" in str(filepath)
