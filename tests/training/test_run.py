"""Runs of a recipe: what they leave behind, and that an interruption changes nothing."""

import csv
import json

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from keras_ssm import recipes
from keras_ssm.cli import main
from keras_ssm.models import SSMClassifier
from keras_ssm.recipes import run
from keras_ssm.training import EpochData, FollowEpochs
from keras_ssm.training.not_finite import StopAtNaN
from keras_ssm.training.run_backup import RunBackup
from tests.small_preset import make_model
from tests.training.toy import Toy

pytestmark = [pytest.mark.once("torch"), pytest.mark.usefixtures("undrawn")]


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
    repeated = run.train(Toy(), "s4d", data, tmp_path / "parts", seed=1)  # nothing is left to do
    assert (
        repeated["scores"] == whole["scores"] and repeated["wall_seconds"] == parts["wall_seconds"]
    )
    with pytest.raises(ValueError, match="this run alone"):
        run.train(Toy(), "s4d", data, tmp_path / "parts", seed=2)


def test_seeds_and_settings_make_other_runs(tmp_path, data):
    losses = [
        run.train(Toy(), system, data, tmp_path / str(i), seed, {"epochs": 1})["scores"]["test"]
        for i, (system, seed) in enumerate([("s4d", 0), ("s4d", 1), ("plain", 0)])
    ]
    assert len({loss["loss"] for loss in losses}) == 3
    assert (tmp_path / "0" / "s4d_toy" / "README.md").is_file()
    assert not (tmp_path / "2" / "plain_toy").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"width": 3}, "Settings of 'plain' are epochs"),
        ({"epochs": "3"}, "`epochs` must be of type int"),
        ({"epochs": True}, "`epochs` must be of type int"),
    ],
)
def test_unknown_settings_are_refused(tmp_path, data, overrides, message):
    with pytest.raises(ValueError, match=message):
        run.train(Toy(), "plain", data, tmp_path / "out", overrides=overrides)
    assert not (tmp_path / "out").exists()


def test_the_commands_train_and_evaluate(tmp_path, data, known):
    out, table = tmp_path / "out", tmp_path / "results.csv"
    train = ["train", "toy", "epochs=1", "--data", data, "--out", out, "--results", table]
    for _ in range(2):
        result = CliRunner().invoke(main, list(map(str, train)), catch_exceptions=False)
        assert result.exit_code == 0, result.output
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
    result = CliRunner().invoke(main, evaluate)
    assert result.exit_code == 1 and "must repeat" in result.output
    make_model().save_to_preset(tmp_path / "own")
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path / "own"), "--data", str(data)])
    assert result.exit_code == 1 and "names no recipe" in result.output


def test_seeds_have_a_mean_and_a_spread(tmp_path, data, known):
    words = [
        "train",
        "toy",
        "--system",
        "plain",
        "--data",
        data,
        "--out",
        tmp_path / "runs",
        "epochs=1",
    ]
    # The numbers that follow are seeds, not the recipe or its settings.
    result = CliRunner().invoke(main, [*map(str, words), "--seeds", "0", "1", "4"])
    assert result.exit_code == 0, result.output
    with open(tmp_path / "runs" / "results.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "test"]
    *single, all_of_them = rows
    assert [row["seed"] for row in rows] == ["0", "1", "4", "0 1 4"]
    values = [float(row["value"]) for row in single]
    assert float(all_of_them["value"]) == pytest.approx(np.mean(values), abs=1e-5)
    assert float(all_of_them["spread"]) == pytest.approx(np.std(values, ddof=1), abs=1e-5)
    assert all_of_them["command"] == "keras-ssm train toy --system plain --seeds 0 1 4 epochs=1"
    assert all_of_them["spread"] in result.output or "spread" in result.output
    assert (tmp_path / "runs" / "toy-plain-4" / "results.json").is_file()
    for seeds in (["--seeds", "1", "1"], ["--seeds", "a"], ["--seeds", "1", "2", "--seed", "1"]):
        assert CliRunner().invoke(main, [*map(str, words), *seeds]).exit_code == 2


def test_a_smoke_run_is_short_and_a_run_of_its_own(tmp_path, data):
    smoke = run.train(Toy(), "plain", data, tmp_path / "run", limit=1)
    assert smoke["steps"] == 1 and smoke["limit"] == 1 and smoke["settings"]["epochs"] == 1
    with pytest.raises(ValueError, match="differs in settings"):
        run.train(Toy(), "plain", data, tmp_path / "run")
    longer = run.train(Toy(), "plain", data, tmp_path / "longer", overrides={"epochs": 2}, limit=1)
    assert longer["steps"] == 2
    with pytest.raises(ValueError, match="limit"):
        run.train(Toy(), "plain", data, tmp_path / "none", limit=0)


def test_settings_are_chosen_without_the_test_part(tmp_path, data):
    class Sealed(Toy):
        def read(self, directory):
            return super().read(directory)._replace(test="unread")

    found = run.train(Sealed(), "s4d", data, tmp_path / "run", 0, {"epochs": 1}, test=False)
    assert set(found["scores"]) == {"validation"}
    assert not (tmp_path / "run" / "s4d_toy").exists()

    class Whole(Toy):
        def read(self, directory):
            return super().read(directory)._replace(validation=None)

    assert set(run.train(Whole(), "plain", data, tmp_path / "whole")["scores"]) == {"test"}
    with pytest.raises(ValueError, match="validation part"):
        run.train(Whole(), "plain", data, tmp_path / "neither", test=False)


def test_a_run_goes_on_with_its_own_backend_alone(tmp_path, data):
    run.train(Toy(), "plain", data, tmp_path / "run", overrides={"epochs": 1})
    requested = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**requested, "backend": "other"}))
    with pytest.raises(ValueError, match="differs in backend"):
        run.train(Toy(), "plain", data, tmp_path / "run", overrides={"epochs": 1})


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
