"""The digits of scikit-learn: batches, models, runs without a folder of data, and presets."""

import numpy as np
import pytest
from click.testing import CliRunner

from keras_ssm import presets, recipes
from keras_ssm.cli import main
from keras_ssm.models import SSMClassifier, SSMImageClassifier
from keras_ssm.training import MIXERS
from keras_ssm.training.preset_facts import facts_of

pytest.importorskip("sklearn")
pytestmark = pytest.mark.once("torch")

RECIPE = recipes.get("digits")
PRESETS = [
    name
    for name, info in presets.list_presets().items()
    if info.get("recipe", {}).get("recipe") == "digits"
]


@pytest.fixture(scope="module")
def splits():
    return RECIPE.read_below(None)


@pytest.mark.parametrize(("system", "shape"), [("s4d", (64,)), ("s4nd", (8, 8))])
def test_batches_are_those_of_the_seed_and_the_epoch(splits, system, shape):
    settings = RECIPE.settings_of(system)
    parts = RECIPE.arrange(splits, settings)
    data, other, again = (RECIPE.training_data(parts, seed, settings) for seed in (0, 1, 0))
    assert len(data) == 20  # whole batches of 64, of 1297 images
    x, y = data[3]
    assert x.shape == (64, *shape) and parts.test.x.shape == (500, *shape)
    np.testing.assert_array_equal(again[3][0], x)  # without the batches before it
    rows = np.concatenate(data.order(np.random.default_rng([0, 0])))
    assert len(set(rows)) == 1280
    data.epoch = 1
    for differing in (other[3], data[3]):
        assert not np.array_equal(differing[0], x)
    # An image is moved a little: it is like the one that it was, and not the same.
    plain = parts.train.take(np.split(rows, 20)[3])
    np.testing.assert_array_equal(y, plain.y)
    pairs = zip(plain.x.reshape(64, -1), x.reshape(64, -1), strict=True)
    assert 0.5 < np.mean([np.corrcoef(*pair)[0, 1] for pair in pairs]) < 0.99


@pytest.mark.parametrize("system", RECIPE.systems)
def test_models_of_all_systems(system):
    settings = RECIPE.settings_of(system, {"num_layers": 1, "hidden_dim": 4})
    model = RECIPE.make_model(system, 0, settings)
    assert type(model) is (SSMImageClassifier if system == "s4nd" else SSMClassifier)
    mixer = model.backbone.blocks[0].mixer
    config = mixer.get_config()
    arguments = RECIPE.of_mixer.get(system, {})
    assert {name: config[name] for name in arguments} == arguments
    assert type(mixer) is getattr(MIXERS[system], "func", MIXERS[system])
    assert (mixer.name.startswith("dss") and mixer.variant == "exp-re-im") == (system == "gss")
    config = model.backbone.get_config()
    blocks = RECIPE.of_blocks.get(system, {})
    assert {name: config[name] for name in blocks} == blocks
    assert (config["gate"] == "wide") == (system == "gss")
    facts = RECIPE.facts(system, settings)
    assert ("8 x 8" in facts["limits"]) == ("(1, 8, 8)" in facts["own_file"]) == (system == "s4nd")


@pytest.mark.parametrize("system", ["s4d", "s4nd"])
def test_a_run_needs_no_folder(tmp_path, system):
    small = ["hidden_dim=4", "num_layers=1", "batch_size=8"]
    words = ["train", "digits", "--system", system, *small, "--limit", "1"]
    run = CliRunner().invoke(main, [*words, "--out", str(tmp_path / "run")])
    assert run.exit_code == 0, run.output
    preset = tmp_path / "run" / f"{system}_digits"
    assert "keras-ssm train digits" in (preset / "README.md").read_text()
    document = presets.read(preset)
    assert document["recipe"]["settings"]["batch_size"] == 8
    assert "Each of the 1297 images" in document["training"]


def test_other_recipes_ask_for_their_folder(tmp_path):
    run = CliRunner().invoke(main, ["train", "sequential_mnist", "--out", str(tmp_path / "run")])
    assert run.exit_code == 2 and "Missing option '--data'" in run.output
    with pytest.raises(ValueError, match=r"`data` must be the folder.*Received: data=None"):
        recipes.get("sequential_mnist").read_below(None)
    run = CliRunner().invoke(main, ["evaluate", "s5_sequential_mnist"])
    assert run.exit_code == 1 and "`data` must be the folder" in run.output


def test_a_preset_is_scored_again():
    run = CliRunner().invoke(main, ["evaluate", "s5_digits"])
    assert run.exit_code == 0 and "0.9940" in run.output, run.output


@pytest.mark.parametrize("name", PRESETS)
def test_presets_say_what_the_recipe_and_the_table_say(name, splits):
    document = presets.read(presets.resolve(name))
    rows = [row for row in presets.read_results() if row["name"] == name]
    settings = document["recipe"]["settings"]
    facts = facts_of(RECIPE, settings, rows, RECIPE.arrange(splits, settings).test)
    assert {key: document[key] for key in facts} == facts
    assert settings.keys() == RECIPE.settings_of(document["recipe"]["system"]).keys()
    assert "python examples" not in (presets.resolve(name) / "README.md").read_text()


def test_weights_from_before_the_recipe_fit_its_model():
    settings = presets.read(presets.resolve("dss_digits"))["recipe"]["settings"]
    built, model = RECIPE.make_model("dss", 0, settings), SSMClassifier.from_preset("dss_digits")
    configs = [m.backbone.blocks[0].mixer.get_config() for m in (built, model)]
    ours, theirs = ({k: v for k, v in c.items() if k not in ("name", "seed")} for c in configs)
    assert ours == theirs
    built.set_weights(model.get_weights())
    x = np.random.default_rng(0).uniform(0, 16, (2, 64)).astype("float32")
    np.testing.assert_allclose(built.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6)
