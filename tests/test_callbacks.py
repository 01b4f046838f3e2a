"""Checkpoints and backups: whole at every moment, and training goes on from them."""

import os

import keras
import numpy as np
import pytest

from keras_ssm.callbacks import BackupAndRestore, ModelCheckpoint
from keras_ssm.layers import S4D
from keras_ssm.models import SSMBackbone, SSMClassifier
from tests.backend_tools import BACKEND, relative_error, to_numpy

pytestmark = pytest.mark.once("torch")

X = np.random.default_rng(0).standard_normal((8, 6, 2)).astype("float32")
Y = np.arange(8) % 3


def make_model(classes=3):
    keras.utils.set_random_seed(0)
    mixer = S4D(state_dim=4, seed=0)
    backbone = SSMBackbone(mixer, 1, 4, input_dim=2, dropout=0.5, norm="batch")
    model = SSMClassifier(backbone, classes)
    model.compile("adam", run_eagerly=BACKEND != "jax")
    return model


def train(model, *callbacks, epochs=4):
    return model.fit(
        X, Y, batch_size=4, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks)
    )


class Stop(keras.callbacks.Callback):
    """Ends training as a kill does: no callback hears of it."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.at, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise KeyboardInterrupt


@pytest.mark.everywhere
def test_training_goes_on_as_if_nothing_had_happened(tmp_path):
    whole = make_model()
    train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(make_model(), BackupAndRestore(tmp_path / "backup"), Stop(2, 1))
    model = make_model()
    model.layers[-1].bias.assign(model.layers[-1].bias + 1)  # from any initial values
    history = train(model, BackupAndRestore(tmp_path / "backup"))
    assert len(history.epoch) == 2
    for mine, expected in zip(model.variables, whole.variables, strict=True):
        np.testing.assert_allclose(to_numpy(mine), to_numpy(expected), rtol=1e-5, atol=1e-6)
    moments = zip(model.optimizer.variables, whole.optimizer.variables, strict=True)
    for mine, expected in moments:
        np.testing.assert_allclose(to_numpy(mine), to_numpy(expected), rtol=1e-4, atol=1e-6)
    assert not (tmp_path / "backup").exists()


def test_a_backup_of_some_batches_starts_its_epoch_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(make_model(), BackupAndRestore(tmp_path, save_freq=1), Stop(1, 1))
    model = make_model()
    assert train(model, BackupAndRestore(tmp_path, delete_checkpoint=False)).epoch == [1, 2, 3]
    assert int(to_numpy(model.optimizer.iterations)) == 3 + 6
    assert os.listdir(tmp_path) == ["latest.weights.h5"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_former_file(tmp_path, monkeypatch, call):
    plain = keras.Sequential([keras.Input((6, 2)), keras.layers.Flatten(), keras.layers.Dense(3)])
    plain.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True), run_eagerly=True)
    for model in (make_model(), plain):
        callbacks = [
            ModelCheckpoint(tmp_path / "a.keras"),
            ModelCheckpoint(tmp_path / "a.weights.h5", save_weights_only=True),
            BackupAndRestore(tmp_path / "backup", delete_checkpoint=False),
        ]
        train(model, *callbacks, epochs=1)
        files = ["a.keras", "a.weights.h5", "backup/latest.weights.h5"]
        before = [(tmp_path / name).read_bytes() for name in files]

        def interrupted(*args, **kwargs):
            raise KeyboardInterrupt

        for callback in callbacks:
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(os, call, interrupted)
                train(model, callback, epochs=2)
        assert [(tmp_path / name).read_bytes() for name in files] == before
        (tmp_path / files[-1]).unlink()
    assert keras.models.load_model(tmp_path / "a.keras").count_params()


def test_the_best_checkpoint_loads(tmp_path):
    model = make_model()
    path = tmp_path / "{epoch}" / "best.keras"
    train(model, ModelCheckpoint(path, monitor="loss", save_best_only=True), epochs=1)
    loaded = keras.models.load_model(tmp_path / "1" / "best.keras")
    assert relative_error(loaded(X), model(X)) < 1e-6


def test_a_backup_of_another_model_or_a_damaged_one_is_refused(tmp_path):
    keep = BackupAndRestore(tmp_path, delete_checkpoint=False)
    train(make_model(), keep, epochs=1)
    with pytest.raises(ValueError, match=r"Backup.*Received"):
        train(make_model(classes=4), keep, epochs=2)
    keep.path.write_bytes(keep.path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"Backup.*Received"):
        train(make_model(), keep, epochs=2)
    with pytest.raises(ValueError, match=r"save_freq.*Received"):
        BackupAndRestore(tmp_path, save_freq=True)
