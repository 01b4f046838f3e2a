"""A training whose numbers go says where, which weight went first, and keeps the last good ones."""

import h5py
import keras
import numpy as np
import pytest

from keras_ssm.training import train
from tests.training.toy import Toy

pytestmark = [pytest.mark.once("torch"), pytest.mark.usefixtures("undrawn")]


class Poison(keras.callbacks.Callback):
    """Spoils a weight after a step, as an update can."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.at = epoch, batch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            kernel = self.model.get_layer("logits").kernel
            kernel.assign(kernel * np.inf)


class Poisoned(Toy):
    def __init__(self, epoch, batch):
        self.at = epoch, batch

    def fit(self, model, splits, seed, settings, callbacks, limit=None):
        callbacks = [Poison(*self.at), *callbacks]
        super().fit(model, splits, seed, settings, callbacks, limit)


def good(path):
    """Whether all numbers of a weights file are finite."""
    found = []

    def look(name, item):
        if isinstance(item, h5py.Dataset):
            found.append(np.isfinite(item[()]).all())

    with h5py.File(path) as file:
        file.visititems(look)
    return len(found) > 5 and all(found)


@pytest.mark.parametrize(
    ("at", "stopped"),
    [((1, 0), "loss=nan, .* at step 2 of epoch 2"), ((1, 1), "no numbers.* at step 2 of epoch 2")],
    ids=["seen in the loss", "at the end of an epoch"],
)
def test_the_first_weight_that_goes_is_named(tmp_path, data, at, stopped):
    with pytest.raises(ValueError, match=stopped) as caught:
        train(Poisoned(*at), "plain", data, tmp_path / "run")
    message = str(caught.value)
    assert f"first weight to go was 'logits/kernel', at step {at[1] + 1} of epoch 2" in message
    assert good(tmp_path / "run" / "last_good.weights.h5")
    assert good(tmp_path / "run" / "backup" / "latest.weights.h5")
    model = Toy().make_model("plain", 0, Toy().settings_of("plain"))
    model.load_weights(tmp_path / "run" / "last_good.weights.h5")


def test_the_last_good_weights_are_those_before_the_step(tmp_path, data):
    with pytest.raises(ValueError, match="must stay finite"):
        train(Poisoned(1, 0), "plain", data, tmp_path / "run")
    train(Toy(), "plain", data, tmp_path / "one", overrides={"epochs": 1})
    models = [Toy().make_model("plain", 0, Toy().settings_of("plain")) for _ in range(2)]
    models[0].load_weights(tmp_path / "run" / "last_good.weights.h5")
    models[1].load_weights(tmp_path / "one" / "backup" / "latest.weights.h5")
    for mine, expected in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (mine, expected)))


def test_a_rate_that_is_too_high_ends_the_run(tmp_path, data):
    with pytest.raises(ValueError, match="before it the largest number was") as caught:
        train(Toy(), "plain", data, tmp_path / "run", overrides={"learning_rate": 1e38})
    assert "Received: loss=" in str(caught.value)
    assert good(tmp_path / "run" / "last_good.weights.h5")
