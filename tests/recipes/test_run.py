"""Runs of a recipe: what they leave behind, and that an interruption changes nothing."""

import csv
import json

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from keras_ssm import recipes
from keras_ssm.cli import main
from keras_ssm.layers import S4D
from keras_ssm.models import SSMBackbone, SSMClassifier
from keras_ssm.recipes import run
from keras_ssm.recipes.recipe import EpochData, FollowEpochs, Recipe, Splits
from keras_ssm.training.not_finite import StopAtNaN
from keras_ssm.training.run_backup import RunBackup

pytestmark = pytest.mark.once("torch")


class Signs(EpochData):
    def batch(self, rng):
        x = rng.standard_normal((4, 5, 1)).astype("float32")
        return x, (x[:, -1, 0] > 0).astype("int32")


class Toy(Recipe):
    """Whether the last number is positive."""

    name = "toy"
    settings = {"epochs": 3, "steps": 2, "learning_rate": 1e-2, "hidden_dim": 4}
    systems = {"s4d": {}, "narrow": {"hidden_dim": 2}}
    baselines = ("narrow",)

    def read(self, directory):
        if not (directory / self.name).is_dir():
            raise ValueError(f"No data. Received: '{directory}'")
        x = np.linspace(-1, 1, 40, dtype="float32").reshape(8, 5, 1)
        part = x, (x[:, -1, 0] > 0).astype("int32")
        return Splits(None, part, part)

    def make_model(self, system, seed, settings):
        keras.utils.set_random_seed(seed)
        mixer = S4D(state_dim=4, seed=seed)
        backbone = SSMBackbone(mixer, 1, settings["hidden_dim"], dropout=0.5)
        model = SSMClassifier(backbone, num_classes=2, pooling="last")
        model.compile(optimizer=keras.optimizers.Adam(settings["learning_rate"]))
        return model

    def training_data(self, splits, seed, settings):
        return Signs(seed, settings["steps"])

    def score(self, model, part, settings):
        return {"loss": float(model.evaluate(*part, verbose=0, return_dict=True)["loss"])}

    def facts(self, system, settings):
        return {"data": {"name": "signs"}}


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data" / "toy").mkdir(parents=True)
    return tmp_path / "data"


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setattr(recipes, "get", lambda name: Toy())


def weights(directory):
    model = SSMClassifier.from_preset(directory / "s4d_toy")
    return [keras.ops.convert_to_numpy(weight) for weight in model.weights]


@pytest.mark.parametrize(
    "moment",
    [(StopAtNaN, "on_epoch_begin"), (RunBackup, "on_epoch_end")],
    ids=["before an epoch", "before its backup"],
)
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path, data, monkeypatch, moment):
    whole = run.train(Toy(), "s4d", data, tmp_path / "whole", seed=1)

    def killed(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*moment, killed, raising=False)
        with pytest.raises(KeyboardInterrupt):
            run.train(Toy(), "s4d", data, tmp_path / "parts", seed=1)
    assert not (tmp_path / "parts" / "results.json").exists()
    parts = run.train(Toy(), "s4d", data, tmp_path / "parts", seed=1)
    assert parts["scores"] == whole["scores"] and parts["steps"] == 6
    for one, other in zip(weights(tmp_path / "whole"), weights(tmp_path / "parts"), strict=True):
        np.testing.assert_array_equal(one, other)
    with open(tmp_path / "parts" / "log.csv", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1", "2"]
    again = run.train(Toy(), "s4d", data, tmp_path / "parts", seed=1)  # nothing is left to do
    assert again["scores"] == whole["scores"] and again["wall_seconds"] == parts["wall_seconds"]
    with pytest.raises(ValueError, match="this run alone"):
        run.train(Toy(), "s4d", data, tmp_path / "parts", seed=2)


def test_seeds_and_settings_make_other_runs(tmp_path, data):
    losses = [
        run.train(Toy(), system, data, tmp_path / str(i), seed, {"epochs": 1})["scores"]["test"]
        for i, (system, seed) in enumerate([("s4d", 0), ("s4d", 1), ("narrow", 0)])
    ]
    assert len({loss["loss"] for loss in losses}) == 3
    assert (tmp_path / "0" / "s4d_toy" / "README.md").is_file()
    assert not (tmp_path / "2" / "narrow_toy").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"width": 3}, "Settings of 's4d' are epochs"),
        ({"epochs": "3"}, "`epochs` must be of type int"),
        ({"epochs": True}, "`epochs` must be of type int"),
    ],
)
def test_unknown_settings_are_refused(tmp_path, data, overrides, message):
    with pytest.raises(ValueError, match=message):
        run.train(Toy(), "s4d", data, tmp_path / "out", overrides=overrides)
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_no_number_ends_the_run(tmp_path, data):
    with pytest.raises(ValueError, match=r"must stay finite.*first weight to go"):
        run.train(Toy(), "s4d", data, tmp_path / "out", overrides={"learning_rate": 1e38})


def test_the_commands_train_and_evaluate(tmp_path, data, known):
    out, table = tmp_path / "out", tmp_path / "results.csv"
    train = ["train", "toy", "epochs=1", "--data", data, "--out", out, "--results", table]
    for _ in range(2):
        done = CliRunner().invoke(main, list(map(str, train)), catch_exceptions=False)
        assert done.exit_code == 0, done.output
    with open(table, newline="") as file:
        found = list(csv.DictReader(file))
    assert [(row["preset"], row["part"], row["seed"]) for row in found] == [
        ("s4d_toy", "validation", "0"),
        ("s4d_toy", "test", "0"),
    ]
    assert found[0]["command"] == "keras-ssm train toy --system s4d --seed 0 epochs=1"
    preset = out / "s4d_toy"
    evaluate = ["evaluate", str(preset), "--data", str(data)]
    assert CliRunner().invoke(main, evaluate).exit_code == 0
    document = json.loads((preset / "preset.json").read_text())
    document["scores"][0]["value"] *= 1.01
    (preset / "preset.json").write_text(json.dumps(document))
    done = CliRunner().invoke(main, evaluate)
    assert done.exit_code == 1 and "must repeat" in done.output
    done = CliRunner().invoke(main, ["evaluate", "s4d_digits", "--data", str(data)])
    assert done.exit_code == 1 and "names no recipe" in done.output


def test_every_seed_epoch_and_batch_has_data_of_its_own():
    class Draws(EpochData):
        def batch(self, rng):
            return rng.integers(2**62)

    seen = set()
    for seed in (0, 1):
        data = Draws(seed, batches=3)
        for epoch in (0, 1):
            FollowEpochs(data).on_epoch_begin(epoch)
            first = [data[i] for i in range(3)]
            assert first == [data[i] for i in range(3)]
            seen |= {*first}
    assert len(seen) == 12
