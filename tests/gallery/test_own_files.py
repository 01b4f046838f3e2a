"""The code in a card runs: its example, and what reads a person's own file, on such files."""

import numpy as np
import pytest

import keras_ssm
from keras_ssm import recipes
from keras_ssm.models.saving.preset_loading import load_model
from tests.own_files import digit, heart, hours, scene, vowel, word

pytestmark = pytest.mark.once("torch")


FEW = {"hidden_dim": 4, "num_layers": 1, "state_dim": 4}
# The file, the preset or the settings of a small model, and what the code prints.
CASES = {
    "digits": (digit, "s4d_digits", {}),
    "japanese_vowels": (vowel, "s4d_japanese_vowels", {}),
    "etth1": (hours, "s4d_etth1", {}),
    "ecg_ahead": (heart, "s4d_ecg_ahead", {}),
    "mitbih": (heart, FEW, {}),
    "mitbih_detector": (heart, FEW, {}),
    "sequential_mnist": (digit, FEW, {}),
    "permuted_mnist": (digit, FEW, {"permuted": True}),
    "spoken_digits": (word, FEW, {}),
    "tinyshakespeare": (scene, {"hidden_dim": 32, "num_layers": 1}, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_code_for_an_own_file_runs(name, tmp_path, monkeypatch, capsys, rng):
    monkeypatch.chdir(tmp_path)
    write, model, settings = CASES[name]
    recipe = recipes.get("sequential_mnist" if name == "permuted_mnist" else name)
    system = model.split("_")[0] if isinstance(model, str) else next(iter(recipe.systems))
    write(rng)
    if isinstance(model, str):
        model = load_model(model)
    else:
        settings = recipe.settings_of(system, {**model, **settings})
        model = recipe.make_model(system, 0, settings)
    facts = recipe.facts(system, recipe.settings_of(system, settings))
    exec(facts["example"], {"keras_ssm": keras_ssm, "model": model})
    assert capsys.readouterr().out
    exec(facts["own_file"], {"keras_ssm": keras_ssm, "model": model})
    shown = capsys.readouterr().out
    if name == "etth1":
        forecast = np.loadtxt("forecast.csv", delimiter=",")
        assert forecast.shape == (96, 7) and 15 < forecast.mean() < 25
    elif name == "ecg_ahead":
        assert len(shown.splitlines()) == 90
    elif name == "mitbih_detector":
        assert all(line.split()[1] == "s" for line in shown.splitlines())  # some beats or none
    elif name == "tinyshakespeare":
        assert "bits for each byte" in shown and len(shown) > 150
    else:
        classes = [int(word) for word in shown.strip("[]\n").split()]
        assert len(classes) == (17 if name == "mitbih" else 1)
        assert set(classes) <= set(range(len(recipe.classes)))
