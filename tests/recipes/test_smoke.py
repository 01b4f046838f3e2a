"""Every recipe runs from end to end, on few rows of its data."""

import json

import numpy as np
import pytest

from keras_ssm import recipes
from keras_ssm.models.forecasting import forecaster_training
from keras_ssm.models.forecasting.keep_best import KeepBest
from keras_ssm.training import train
from tests.recipes.data_writers import WRITERS
from tests.shared_data import shared

pytestmark = pytest.mark.once("torch")


# Settings that make a smoke run quicker. It fails for the same mistakes.
FEW_ROWS = {"batch_size": 4, "hidden_dim": 8, "num_layers": 1}
FEW = {"lookback": 8, "horizon": 4, "context": 8, "batch_size": 2, "hidden_dim": 4, "num_layers": 1}
SMALL = {
    "digits": FEW_ROWS,
    "ecg_ahead": FEW,
    "etth1": FEW,
    "grey_cifar": FEW_ROWS,
    "japanese_vowels": {"hidden_dim": 8, "num_layers": 1},
    "listops": {**FEW_ROWS, "rows": 12, "held_out": 4},
    "mitbih": FEW_ROWS,
    "mnist_images": FEW_ROWS,
    "mitbih_detector": {**FEW_ROWS, "window": 3.0},
    "sequential_mnist": FEW_ROWS,
    "spoken_digits": FEW_ROWS,
    "tinyshakespeare": {"rows": 2, "hidden_dim": 32, "num_layers": 1, "window": 64},
}


@pytest.fixture
def folder(tmp_path, rng):
    def make(name):
        if not recipes.get(name).needs_data:
            return None
        if name not in WRITERS:
            return shared("data")
        WRITERS[name](tmp_path, rng)
        return tmp_path

    return make


@pytest.mark.parametrize("name", recipes.NAMES)
def test_a_recipe_runs(tmp_path, folder, name):
    recipe, out = recipes.get(name), tmp_path / "run"
    system = next(iter(recipe.systems))
    found = train(recipe, system, folder(name), out, 0, SMALL.get(name), limit=1)
    assert found["scores"]["test"] and all(map(np.isfinite, found["scores"]["test"].values()))
    assert json.loads((out / "results.json").read_text())["limit"] == 1
    assert (out / f"{system}_{name}" / "README.md").is_file()


@pytest.mark.parametrize(
    ("name", "system"),
    [
        *(("japanese_vowels", "lstm"), ("japanese_vowels", "dss")),
        *(("sequential_mnist", "cnn"), ("sequential_mnist", "dss"), ("listops", "cnn")),
        ("mnist_images", "cnn"),
    ],
)
def test_other_systems_and_baselines_run(tmp_path, folder, name, system):
    recipe, small = recipes.get(name), {"hidden_dim": 4, "batch_size": 4}
    if name == "listops":
        small |= {**SMALL["listops"], "hidden_dim": 4}
    if name == "sequential_mnist":
        small |= {"permuted": True, "num_layers": 1}
    if (name, system) == ("sequential_mnist", "dss"):
        small |= {"encoder": "conv", "encoder_width": 16, "encoder_stride": 8}
    found = train(recipe, system, folder(name), tmp_path / "run", 0, small, limit=1)
    assert 0 <= found["scores"]["test"]["accuracy"] <= 1
    made = (tmp_path / "run" / f"{system}_{name}").exists()
    assert made == (system not in recipe.baselines)


@pytest.mark.parametrize(
    ("name", "system"),
    [
        *(("spoken_digits", "waveform_cnn"), ("spoken_digits", "log_mel_cnn")),
        *(("spoken_digits", "lstm"), ("mitbih", "beat_cnn"), ("mitbih", "cnn")),
    ],
)
def test_baselines_of_signals_run(tmp_path, folder, name, system):
    found = train(recipes.get(name), system, folder(name), tmp_path / "run", 0, FEW_ROWS, limit=1)
    metric = "macro-F1" if name == "mitbih" else "accuracy at half rate, low-pass"
    assert 0 <= found["scores"]["test"][metric] <= 1


def test_what_the_settings_are_is_in_the_name_of_a_preset_and_on_its_card():
    for name, settings, expected in (
        ("sequential_mnist", {}, "s5_sequential_mnist"),
        ("sequential_mnist", {"permuted": True}, "s5_permuted_mnist"),
        ("etth1", {}, "s5_etth1"),
        ("etth1", {"horizon": 192}, "s5_etth1_192"),
        ("mitbih", {"split": "patients"}, "s5_mitbih_patients"),
        ("spoken_digits", {"held_out": "theo"}, "s5_spoken_digits_theo"),
    ):
        recipe = recipes.get(name)
        assert recipe.preset_name("s5", recipe.settings_of("s5", settings)) == expected
    recipe = recipes.get("sequential_mnist")
    strided = {"encoder": "conv", "encoder_width": 8, "encoder_stride": 4}
    limits = recipe.facts("s5", recipe.settings_of("s5", strided))["limits"]
    assert "after every 4 pixels" in limits
    backbone = recipe.make_backbone("s5", 0, recipe.settings_of("s5", strided))
    assert (backbone.encoder_width, backbone.stride) == (8, 4)
    with pytest.raises(ValueError, match="encoder_stride"):
        recipe.make_backbone("s5", 0, recipe.settings_of("s5", {"encoder_stride": 4}))


OF_THE_FAMILY = ["mitbih", "sequential_mnist", "spoken_digits", "listops", "etth1", "ecg_ahead"]


@pytest.mark.parametrize("name", OF_THE_FAMILY)
def test_every_system_of_the_family_is_there_and_builds(name):
    recipe = recipes.get(name)
    assert {"s4", "s4d", "s4ptd", "dss", "s5", "s5ptd"} <= set(recipe.systems)
    for system in recipe.systems:
        settings = recipe.settings_of(system)
        small = {"hidden_dim": 4, "num_layers": 1, "state_dim": 16}
        settings |= {key: value for key, value in small.items() if key in settings}
        model = recipe.make_model(system, 0, settings)
        assert system in recipe.baselines or model.backbone.count_params() > 0


@pytest.mark.parametrize("system", ["causal_cnn", "pan_tompkins"])
def test_baselines_of_the_detector_run(tmp_path, folder, system):
    small = {**FEW_ROWS, "window": 3.0} if system == "causal_cnn" else {"split": "patients"}
    name = "mitbih_detector"
    found = train(recipes.get(name), system, folder(name), tmp_path / "run", 0, small, limit=1)
    assert 0 <= found["scores"]["test"]["sensitivity of beats"] <= 1


def test_splits_of_signals(folder):
    recipe = recipes.get("spoken_digits")
    data = recipe.read(folder("spoken_digits"))
    official = recipe.arrange(data, recipe.settings_of("s4d"))
    assert [part.size for part in official] == [40, 100, 100]
    single = recipe.arrange(data, recipe.settings_of("s4d", {"held_out": "george"}))
    assert [part.size for part in single] == [70, 50, 120]
    recipe = recipes.get("mitbih")
    data = recipe.read(folder("mitbih"))
    counts = {}
    for split in ("time", "patients"):
        parts = recipe.arrange(data, recipe.settings_of("s4d", {"split": split}))
        counts[split] = [part.size for part in parts]
        assert parts.train.x.shape[1:] == (936, 2)
    assert sum(counts["time"]) == sum(counts["patients"]) == 108  # the paced record is out
    assert counts["patients"][2] == 54


@pytest.mark.parametrize("system", ["ridge", "dlinear", "seasonal_naive"])
def test_baselines_of_forecasts_run(tmp_path, folder, system):
    recipe = recipes.get("etth1")
    small = {"horizon": 4} if system == "seasonal_naive" else {"horizon": 4, "lookback": 8}
    found = train(recipe, system, folder("etth1"), tmp_path / "run", 0, small, limit=1)
    assert found["scores"]["test"]["MSE"] > 0
    parameters = {"ridge": 32, "seasonal_naive": 0, "dlinear": found["parameters"]}
    assert found["parameters"] == parameters[system]


def test_a_forecaster_that_was_interrupted_ends_as_one_that_was_not(tmp_path, folder, monkeypatch):
    recipe, data = recipes.get("etth1"), folder("etth1")
    small = {**FEW, "epochs": 3, "steps_per_epoch": 2, "learning_rate": 0.05}

    def run(out):
        return train(recipe, "s4d", data, tmp_path / out, 0, small, limit=2)

    end = KeepBest.on_epoch_end  # the first epoch shall be the best
    best_first = lambda self, epoch, logs: end(self, epoch, {"val_loss": float(epoch)})
    monkeypatch.setattr(KeepBest, "on_epoch_end", best_first)
    sure = lambda *arguments: (1.0, 0.0)
    monkeypatch.setattr(forecaster_training, "paired_gain", sure)
    whole, begin = run("whole"), KeepBest.on_epoch_begin

    def interrupted(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt
        begin(self, epoch, logs)

    monkeypatch.setattr(KeepBest, "on_epoch_begin", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("parts")
    monkeypatch.setattr(KeepBest, "on_epoch_begin", begin)
    parts = run("parts")
    assert parts["scores"] == whole["scores"] and parts["steps"] == whole["steps"] == 6
    logs = [(tmp_path / out / "log.csv").read_text() for out in ("whole", "parts")]
    assert logs[0] == logs[1]


def test_the_same_pixels_in_one_order_for_all_runs(folder):
    recipe = recipes.get("sequential_mnist")
    splits = recipe.read(folder("sequential_mnist"))
    plain, permuted = (
        recipe.arrange(splits, recipe.settings_of("s4d", {"permuted": chosen}))
        for chosen in (False, True)
    )
    assert (plain.train.size, plain.validation.size, plain.test.size) == (90, 10, 20)
    order = np.argsort(np.random.RandomState(92916).permutation(784))
    for before, after in zip(plain, permuted, strict=True):
        np.testing.assert_array_equal(after.x[:, order], before.x)


@pytest.mark.parametrize("name", sorted({*WRITERS} - {"listops"}))  # which are generated
def test_data_that_are_not_there_are_told(tmp_path, name):
    recipe = recipes.get(name)
    with pytest.raises(ValueError, match=r"The data must lie in .*Received"):
        train(recipe, next(iter(recipe.systems)), tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_each_recipe_says_what_it_is_in_one_line():
    found = recipes.summaries()
    assert set(found) == set(recipes.NAMES) and all(len(text) < 100 for text in found.values())
    for name in recipes.NAMES:
        assert recipes.get(name).name == name


@pytest.mark.parametrize("name", recipes.summaries())
def test_facts_of_every_system(name):
    recipe = recipes.get(name)
    for system in recipe.systems:
        facts = recipe.facts(system, recipe.settings_of(system))
        assert facts["data"]["name"] and facts["licences"]["data"], system
