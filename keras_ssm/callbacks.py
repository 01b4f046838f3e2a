"""Callbacks of training whose files are whole at every moment."""

import contextlib
import json
import os
from pathlib import Path

import h5py
import keras

from keras_ssm.atomic_file import writing_file
from keras_ssm.scratch import SAVING, leftovers, remove
from keras_ssm.types import PathLike

_FACTS = "keras_ssm_backup"
_GENERATORS = "keras_ssm_seed_generators"


class ModelCheckpoint(keras.callbacks.ModelCheckpoint):
    """`keras.callbacks.ModelCheckpoint` that replaces a file whole or not at all.

    If the process is killed or the disk is full, the former checkpoint stays as it was. The
    callback works for every Keras model. Its arguments are those of Keras' callback.

    Args:
        filepath: str or `Path`. Ends in `.keras`, or in `.weights.h5` with `save_weights_only`.
            It may hold names such as `{epoch:02d}` and `{val_loss:.2f}`.
        *args, **kwargs: `monitor`, `verbose`, `save_best_only`, `save_weights_only`, `mode`,
            `save_freq`, `initial_value_threshold`; see Keras.

    Example:
        ```python
        checkpoint = keras_ssm.callbacks.ModelCheckpoint("best.keras", save_best_only=True)
        model = keras_ssm.models.SSMClassifier.from_preset("s4d_digits")
        x, y = np.zeros((8, 64), "float32"), np.zeros(8, int)
        model.fit(x, y, validation_data=(x, y), callbacks=[checkpoint], verbose=0)
        ```
    """

    @property
    def model(self):
        """The model that trains; its `save` and `save_weights` are atomic."""
        model = super().model
        return None if model is None else _AtomicSaves(model)


class _AtomicSaves:
    """A model whose files are written beside their place; the model itself in all else."""

    def __init__(self, model):
        object.__setattr__(self, "_model", model)

    def __getattr__(self, name):
        return getattr(self._model, name)

    def __setattr__(self, name, value):
        setattr(self._model, name, value)

    def save(self, filepath, **kwargs):
        with _file(filepath) as file:
            self._model.save(file, **kwargs)

    def save_weights(self, filepath, **kwargs):
        with _file(filepath) as file:
            self._model.save_weights(file, **kwargs)


def _file(filepath):
    """A file beside its place; what lies on another machine, `gs://...`, is left to Keras."""
    return contextlib.nullcontext(filepath) if "://" in filepath else writing_file(filepath)


class BackupAndRestore(keras.callbacks.BackupAndRestore):
    """`keras.callbacks.BackupAndRestore` with one file that is whole at every moment.

    The file `backup_dir/latest.weights.h5` holds the weights, the state of the optimizer, the
    number of the epoch and the counters of all seed generators of the model, so that dropout goes
    on with the numbers that it would have drawn. When `fit` starts and finds the file, it restores
    all of these and goes on with that epoch; after the last epoch the file is removed.

    An epoch that was interrupted starts again from its first batch. The order of shuffled data is
    not restored, since it comes from generators outside the model. With `shuffle=False` training
    continues exactly as it would have without the interruption.

    Args:
        backup_dir: str or `Path`. Directory of the backup, of this training alone.
        save_freq: `"epoch"` or int. After each epoch, or after so many batches.
            Defaults to `"epoch"`.
        delete_checkpoint: bool. Whether the file is removed when training is complete.
            Defaults to `True`.

    Raises:
        ValueError: when `fit` finds a damaged file, or that of another model.

    Example:
        ```python
        backup = keras_ssm.callbacks.BackupAndRestore("backup")
        model = keras_ssm.models.SSMClassifier.from_preset("s4d_digits")
        x, y = np.zeros((8, 64), "float32"), np.zeros(8, int)
        model.fit(x, y, epochs=3, callbacks=[backup], verbose=0)
        ```
    """

    def __init__(
        self, backup_dir: PathLike, save_freq: str | int = "epoch", delete_checkpoint: bool = True
    ):
        if save_freq != "epoch" and (isinstance(save_freq, bool) or not isinstance(save_freq, int)):
            raise ValueError(
                f"`save_freq` must be 'epoch' or an integer. Received: save_freq={save_freq!r}"
            )
        super().__init__(
            os.fspath(backup_dir), save_freq=save_freq, delete_checkpoint=delete_checkpoint
        )

    @property
    def path(self):
        """`Path` of the backup."""
        return Path(self.backup_dir).expanduser() / "latest.weights.h5"

    def on_train_begin(self, logs=None):
        if not self.path.is_file():
            return
        model = self.model
        if model.optimizer is not None and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        facts, counters = self._read()
        generators = _seed_generators(model)
        shapes = [tuple(value.shape) for value in counters]
        if shapes != [tuple(variable.shape) for variable in generators]:
            raise self._foreign(f"{len(counters)} seed generators, the model {len(generators)}")
        try:
            model.load_weights(self.path)
        except Exception as error:
            raise self._foreign(f"{type(error).__name__}: {error}") from error
        for variable, value in zip(generators, counters, strict=True):
            variable.assign(value)
        self.restore_facts(facts)

    def facts(self) -> dict:
        """Returns what the file holds beside weights and counters, as JSON has it.

        A subclass adds what else must go on: the file is written as one.
        """
        return {"epoch": self._current_epoch, "batch": self._last_batch_seen}

    def restore_facts(self, facts: dict) -> None:
        """Takes up again what `facts` returned, after the weights were loaded."""
        self._current_epoch = self.model._initial_epoch = facts["epoch"]

    def on_train_end(self, logs=None):
        if not self.delete_checkpoint:
            return
        self.path.unlink(missing_ok=True)
        for path in leftovers(self.path, SAVING):
            remove(path)
        try:
            self.path.parent.rmdir()
        except OSError:  # the directory holds other files
            return

    def _save_model(self):
        with writing_file(self.path) as scratch:
            self.model.save_weights(scratch)
            with h5py.File(scratch, "r+") as file:
                file.attrs[_FACTS] = json.dumps(self.facts())
                for i, variable in enumerate(_seed_generators(self.model)):
                    file[f"{_GENERATORS}/{i}"] = keras.ops.convert_to_numpy(variable)

    def _read(self):
        try:
            with h5py.File(self.path, "r") as file:
                facts = json.loads(file.attrs[_FACTS])
                group = file.get(_GENERATORS, {})
                return facts, [group[str(i)][()] for i in range(len(group))]
        except Exception as error:  # h5py raises errors of many kinds
            raise self._foreign(f"{type(error).__name__}: {error}") from error

    def _foreign(self, received):
        return ValueError(
            f"Backup '{self.path}' must be that of this model: remove it, or name another "
            f"`backup_dir`. Received: {received}"
        )


def _seed_generators(model):
    """The variables of a model's seed generators, in their order: no weights file holds them."""
    weights = {id(variable) for variable in (*model.weights, *model.metrics_variables)}
    optimizer = model.optimizer
    if optimizer is not None:
        weights |= {id(variable) for variable in optimizer.variables}
    return [variable for variable in model.variables if id(variable) not in weights]
