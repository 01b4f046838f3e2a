"""Pictures of each kind of model: what they show is what the model does."""

import numpy as np
import pytest

from keras_ssm import models, recipes
from keras_ssm.gallery import Subject, pictures, step_cost
from keras_ssm.layers import S4D
from keras_ssm.training import History, Part
from keras_ssm.training.beat_events import Beats

pytestmark = pytest.mark.once("torch")


def subject(model, recipe, part, settings, tmp_path):
    model.save_to_preset(tmp_path / "small", info={"name": "small"})
    return Subject(tmp_path / "small", recipe, part, settings)


def lines(axis):
    return {line.get_label(): line for line in axis.get_lines()}


@pytest.mark.parametrize("count", [1, 2])
def test_a_forecaster(tmp_path, rng, count):
    waves = [np.sin(np.arange(200) * 2 * np.pi / 24 + i)[:, None] for i in range(count)]
    waves = [wave + 0.1 * rng.normal(size=wave.shape) for wave in waves]
    backbone = models.SSMBackbone(S4D(state_dim=4), num_layers=1, hidden_dim=4)
    model = models.SSMForecaster(backbone, lookback=24, horizon=12)
    model.fit([wave[:140] for wave in waves] if count > 1 else waves[0][:140], epochs=0, verbose=0)
    part = History(waves, 60)
    preset_subject = subject(model, recipes.get("etth1"), part, {}, tmp_path)
    figures = pictures(preset_subject, preset_subject.recipe, part)
    assert set(figures) == {"samples.png", "errors.png"}
    (axis,) = figures["errors.png"].axes
    errors = {name: line.get_ydata() for name, line in lines(axis).items()}
    assert set(errors) == {"this preset", "last value", "last season, 24 rows"}
    # A season of 24 repeats: its error is that of the noise, and the last value is far off.
    assert all(len(values) == 12 for values in errors.values())
    assert errors["last season, 24 rows"].mean() < 0.05 < errors["last value"].mean()
    top = figures["samples.png"].axes[0]
    actual = lines(top)["what came"].get_ydata()
    np.testing.assert_allclose(actual, waves[0][140:152, 0])
    expected = preset_subject.model.predict(waves[0][:140])[:, 0]
    np.testing.assert_allclose(lines(top)["forecast"].get_ydata(), expected, atol=1e-5)
    cost = step_cost(preset_subject.model, waves[0][:1])
    assert cost["microseconds"] > 0 and cost["state_bytes"] > 0


def test_a_language_model(tmp_path, rng):
    recipe = recipes.get("tinyshakespeare")
    settings = recipe.settings_of("s4d", {"hidden_dim": 4, "num_layers": 1, "state_dim": 4})
    ids = rng.integers(97, 123, size=700).astype("int32")
    preset_subject = subject(recipe.make_model("s4d", 0, settings), recipe, ids, settings, tmp_path)
    figures = pictures(preset_subject, recipe, ids)
    assert set(figures) == {"samples.png", "errors.png"}
    labels = [text.get_text() for text in figures["samples.png"].axes[0].get_xticklabels()]
    assert [text[0] for text in labels] == [chr(i) for i in ids[120:160]]
    bits = lines(figures["errors.png"].axes[0])["each place"].get_ydata()
    assert len(bits) == 256 and 5 < bits.mean() < 12  # of 256 letters, before any training


def test_a_model_that_answers_at_each_step(tmp_path, rng):
    recipe = recipes.get("mitbih_detector")
    settings = recipe.settings_of("s4d", {"hidden_dim": 4, "num_layers": 1, "state_dim": 4})
    recipe_module = __import__(recipe.__module__, fromlist=["Signals"])
    signal = rng.integers(-99, 99, size=(3000, 2)).astype("int16")
    beats = Beats(np.array([600, 1500]), np.array([1, 3]))
    part = recipe_module.Signals([signal, signal], [beats, beats], 0)
    preset_subject = subject(
        recipe.make_model("s4d", 0, settings), recipe, part, settings, tmp_path
    )
    figures = pictures(preset_subject, recipe, part)
    assert set(figures) == {"samples.png", "confusion.png"}
    stride = settings["encoder_stride"]
    sample, curves = figures["samples.png"].axes[:2]
    assert sample.get_title(loc="left") == "no beat, N, V"
    seconds = [line.get_xdata() for line in curves.get_lines()]
    assert len(seconds[0]) == 150 and seconds[0][-1] == pytest.approx(150 * stride / 360)
    cost = step_cost(preset_subject.model, signal[:1])  # of steps, and not of samples that wait
    assert cost["samples"] == stride


def test_beginnings_of_a_sequence_have_a_whole_step(tmp_path, rng):
    recipe = recipes.get("sequential_mnist")
    small = {"hidden_dim": 4, "num_layers": 1, "state_dim": 4, "permuted": True}
    small |= {"bidirectional": True, "encoder": "conv", "encoder_width": 8, "encoder_stride": 4}
    settings = recipe.settings_of("s4d", small)
    part = Part(rng.integers(0, 256, size=(3, 784)).astype("uint8"), np.array([0, 1, 2]))
    model = recipe.make_model("s4d", 0, settings)
    found = pictures(subject(model, recipe, part, settings, tmp_path), recipe, part)
    curves = found["samples.png"].axes[1].get_lines()
    assert np.isfinite([line.get_ydata() for line in curves]).all()


def test_images_are_drawn_as_images():
    shapes = {}
    for name in recipes.NAMES:
        recipe = recipes.get(name)
        system = next(system for system in recipe.systems if system not in recipe.baselines)
        facts = recipe.facts(system, recipe.settings_of(system))
        if facts["pipeline_tag"] == "image-classification":
            shapes[name] = recipe.picture_shape
    squares = {"mnist_images": (28, 28), "sequential_mnist": (28, 28)}
    assert shapes == {"digits": (8, 8), "grey_cifar": (32, 32), **squares}
