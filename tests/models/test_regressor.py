"""The regressor: numbers of a sequence or of its steps, in the units of the targets."""

import keras
import numpy as np
import pytest

from keras_ssm.layers import S4D
from keras_ssm.models import SSMBackbone, SSMClassifier, SSMRegressor
from tests.backend_tools import BACKEND, relative_error, to_numpy

LENGTHS = np.array([8, 5, 3, 7])
MASK = np.arange(8)[None] < LENGTHS[:, None]
ONCE = pytest.mark.once("torch")


def make_model(num_outputs=1, pooling="mean", compile="sgd", metrics="auto", **arguments):
    keras.utils.set_random_seed(0)
    backbone = SSMBackbone(
        S4D(state_dim=4, seed=0),
        num_layers=1,
        hidden_dim=4,
        input_dim=2,
        dtype=arguments.pop("dtype", None),
    )
    model = SSMRegressor(backbone, num_outputs, pooling=pooling, **arguments)
    if compile == "sgd":
        eager = BACKEND == "tensorflow"
        model.compile(keras.optimizers.SGD(0.0), metrics=metrics, run_eagerly=eager)
    return model


@pytest.fixture
def x(rng):
    return rng.standard_normal((4, 8, 2)).astype("float32")


def cut(values):
    return [row[:n] for row, n in zip(values, LENGTHS, strict=True)]


def test_targets_of_any_size_train_and_answers_are_in_their_units(rng):
    x = rng.standard_normal((64, 8, 2)).astype("float32")
    means = x.mean(axis=1)
    y = np.stack([3e5 + 2e5 * means[:, 0], 1e-3 * means[:, 1]], axis=1)
    model = make_model(2, compile=None)
    history = model.fit(x, y, epochs=30, batch_size=16, validation_split=0.25, verbose=0).history
    train = y[:48]
    assert relative_error(model.scaling.mean, train.mean(axis=0)) < 1e-5
    assert relative_error(model.scaling.scale, train.std(axis=0)) < 1e-5
    found = model.predict(x, verbose=0)
    explained = 1 - ((found - y) ** 2).mean(axis=0) / y.var(axis=0)
    assert explained[0] > 0.8  # the loss is that of the units of the targets, and the first leads
    error = np.abs(model.predict(x[48:], verbose=0) - y[48:]).mean()
    assert abs(history["val_mae"][-1] / error - 1) < 1e-4
    model.fit(x[:4], y[:4] + 7, verbose=0)  # later data does not change the units
    assert relative_error(model.scaling.mean, train.mean(axis=0)) < 1e-5


@ONCE
def test_what_sets_the_units(x):
    y = np.array([100.0, 300.0, 500.0, 1e9])
    model = make_model()
    model.fit(x, y, sample_weight=np.array([1.0, 2.0, 1.0, 0.0]), verbose=0)
    assert abs(float(model.scaling.mean[0]) - 300) < 1e-3
    model.adapt_targets([5.0, 7.0, 9.0])
    assert abs(float(model.scaling.mean[0]) - 7) < 1e-5
    assert abs(float(model.scaling.scale[0]) - np.std([5, 7, 9])) < 1e-5
    off = make_model(normalize_targets=False)
    off.fit(x, y, verbose=0)
    constant = make_model()
    constant.fit(x, np.full(4, 0.1), verbose=0)
    for model in (off, constant):
        assert float(model.scaling.scale[0]) == 1
    steps = make_model(pooling=None)
    steps.fit(cut(x), [np.full(n, n) for n in LENGTHS], verbose=0)
    every = np.repeat(LENGTHS, LENGTHS)
    assert abs(float(steps.scaling.mean[0]) - every.mean()) < 1e-5
    assert abs(float(steps.scaling.scale[0]) - every.std()) < 1e-5
    steps.adapt_targets([np.full(n, n) for n in LENGTHS], [np.arange(n) < 3 for n in LENGTHS])
    assert abs(float(steps.scaling.mean[0]) - LENGTHS.mean()) < 1e-5
    conv = {"encoder": "conv", "encoder_width": 4, "encoder_stride": 2}
    backbone = SSMBackbone(S4D(state_dim=4), num_layers=1, hidden_dim=4, input_dim=2, **conv)
    strided = SSMRegressor(backbone, pooling=None)
    strided.fit(cut(x), [np.full(n // 2, n) for n in LENGTHS], verbose=0)
    assert abs(float(strided.scaling.mean[0]) - np.average(LENGTHS, weights=LENGTHS // 2)) < 1e-5
    half = make_model(dtype="mixed_bfloat16")
    half.adapt_targets([1e6 - 1, 1e6 + 1])
    assert np.abs(half.predict(x, verbose=0) - 1e6).max() < 100


METRICS = ["mae", keras.metrics.RootMeanSquaredError, keras.metrics.R2Score]


@ONCE
@pytest.mark.parametrize("outputs", [1, 2])
def test_numbers_at_every_step_count_where_they_are_valid(x, rng, outputs):
    metrics = [m if isinstance(m, str) else m() for m in METRICS]
    model = make_model(outputs, pooling=None, metrics=metrics, normalize_targets=False)
    y = rng.standard_normal((4, 8, outputs))
    found = model.predict(cut(x), verbose=0)
    error = (found - y)[MASK]
    mse, mae = (error**2).mean(), np.abs(error).mean()
    r2 = 1 - (error**2).sum(axis=0) / ((y[MASK] - y[MASK].mean(axis=0)) ** 2).sum(axis=0)
    expected = [mse, mae, np.sqrt(mse), r2.mean()]
    padded = {"inputs": np.where(MASK[..., None], x, np.nan), "padding_mask": MASK}
    kinds = [(cut(x), cut(y)), (padded, np.where(MASK[..., None], y, 7.0))]
    if outputs == 1:
        kinds.append((padded, y[..., 0]))
        kinds.append((cut(x), cut(y[..., 0])))
    for inputs, targets in kinds:
        np.testing.assert_allclose(model.evaluate(inputs, targets, verbose=0), expected, rtol=1e-5)
    weights = rng.random((4, 8)).astype("float32")
    loss = model.evaluate(cut(x), cut(y), sample_weight=cut(weights), verbose=0)[0]
    np.testing.assert_allclose(loss, ((error**2).mean(1) * weights[MASK]).mean(), rtol=1e-5)


@ONCE
def test_streams_of_batches_have_targets_of_one_axis_less(x, rng):
    """Four steps in four rows: no axis may be taken for another."""
    import tensorflow as tf

    x, y, mask = x[:, :4], rng.standard_normal((4, 4)).astype("float32"), MASK[:, :4]
    model = make_model(pooling=None, normalize_targets=False)
    inputs = {"inputs": x, "padding_mask": mask}
    error = (model.predict(inputs, verbose=0)[..., 0] - y)[mask]
    expected = [(error**2).mean(), np.abs(error).mean()]
    dataset = tf.data.Dataset.from_tensor_slices((inputs, y)).batch(4)
    np.testing.assert_allclose(model.evaluate(dataset, verbose=0), expected, rtol=1e-5)
    np.testing.assert_allclose(model.test_on_batch(inputs, y), expected, rtol=1e-5)
    np.testing.assert_allclose(model.train_on_batch(inputs, y), expected, rtol=1e-5)


@pytest.mark.once("torch")
def test_batches_of_targets_without_units_warn(recwarn):
    def batches():
        yield np.ones((4, 8, 2), "float32"), np.full(4, 3e5)

    model = make_model()
    model.fit(batches(), verbose=0)
    assert [str(w.message) for w in recwarn if "adapt_targets" in str(w.message)]
    recwarn.clear()
    model.adapt_targets([2e5, 4e5])
    model.fit(batches(), verbose=0)
    assert not [str(w.message) for w in recwarn if "adapt_targets" in str(w.message)]


@ONCE
def test_the_first_batch_of_a_loop_sets_the_units(x, recwarn):
    model = make_model(pooling=None)
    model.train_on_batch(x[:1, :1], np.array([[7.0]]))  # one row has no deviation
    assert [str(w.message) for w in recwarn if "adapt_targets" in str(w.message)]
    recwarn.clear()
    model.train_on_batch({"inputs": x, "padding_mask": MASK}, np.where(MASK, LENGTHS[:, None], 1e9))
    every = np.repeat(LENGTHS, LENGTHS)
    assert abs(float(model.scaling.mean[0]) - every.mean()) < 1e-5
    assert abs(float(model.scaling.scale[0]) - every.std()) < 1e-5
    model.train_on_batch(x, np.full((4, 8), 1e6))
    assert abs(float(model.scaling.mean[0]) - every.mean()) < 1e-5
    assert not [str(w.message) for w in recwarn if "adapt_targets" in str(w.message)]


@pytest.fixture(scope="module")
def trained():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 8, 2)).astype("float32")
    model = make_model(2, pooling="attention", compile=None)
    model.fit(x, rng.standard_normal((4, 2)) * 50 + 200, epochs=2, verbose=0)
    return model, x


@ONCE
def test_files_hold_the_units_and_the_optimizer(trained, tmp_path):
    model, x = trained
    model.step_scale = 2.0
    expected = model.predict(x, verbose=0)
    assert expected.min() > 50
    model.save(tmp_path / "model.keras")
    model.save_to_preset(tmp_path / "preset")
    model.save_weights(tmp_path / "model.weights.h5")
    fresh = keras.models.clone_model(model)
    assert relative_error(fresh.predict(x, verbose=0), expected) > 0.1
    fresh.load_weights(tmp_path / "model.weights.h5")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert int(to_numpy(loaded.optimizer.iterations)) == 2
    for again in (fresh, loaded, SSMRegressor.from_preset(tmp_path / "preset")):
        assert relative_error(again.predict(x, verbose=0), expected) < 1e-6
        assert float(again.scaling.count) == 4
    scaled = SSMRegressor.from_preset(tmp_path / "preset", step_scale=1.0)
    assert relative_error(scaled.predict(x, verbose=0), expected) > 1e-5
    model.step_scale = 1.0


@ONCE
def test_pieces_and_steps_equal_one_pass(trained):
    model, x = trained
    expected = to_numpy(model(x))
    state = model(x[:, :3], return_state=True)[1]
    y, state = model(x[:, 3:7], initial_state=state, return_state=True)
    y, _ = model.step(x[:, 7], state, model.discretize())
    stream = model.stream(batch_size=4)
    for found in (y, stream(x)[:, -1]):
        assert relative_error(found, expected) < 1e-5


@ONCE
def test_new_heads_on_trained_backbones(trained, tmp_path):
    model, x = trained
    model.save_to_preset(tmp_path / "numbers")
    hidden = to_numpy(model.backbone(x))
    three = SSMRegressor.from_preset(tmp_path / "numbers", num_outputs=3)
    classes = SSMClassifier.from_preset(tmp_path / "numbers", num_classes=3)
    classes.save_to_preset(tmp_path / "classes")
    classes.backbone.save_to_preset(tmp_path / "backbone")
    for name in ("classes", "backbone"):
        with pytest.raises(ValueError, match="holds no head of a SSMRegressor: pass `num_outputs`"):
            SSMRegressor.from_preset(tmp_path / name)
        with pytest.raises(ValueError, match="pass `num_classes`"):
            SSMClassifier.from_preset(tmp_path / "backbone")
    names = ("classes", "backbone")
    others = [SSMRegressor.from_preset(tmp_path / name, num_outputs=3) for name in names]
    for again in (three, classes, *others):
        assert relative_error(again.backbone(x), hidden) < 1e-6
        assert again.predict(x, verbose=0).shape == (4, 3)
    assert float(three.scaling.count) == 0
    three.fit(x, np.ones((4, 3)) * [1, 2, 3], verbose=0)


@ONCE
def test_low_rank_updates_and_integers(trained, tmp_path):
    model, x = trained
    model.save_to_preset(tmp_path / "preset")
    y = np.random.default_rng(1).standard_normal((4, 2))
    tuned = SSMRegressor.from_preset(tmp_path / "preset")
    tuned.enable_lora(2)
    tuned.adapt_targets(y)
    tuned.fit(x, y, verbose=0)
    tuned.save_lora_weights(tmp_path / "tuned.lora.h5")
    reloaded = SSMRegressor.from_preset(tmp_path / "preset")
    reloaded.load_lora_weights(tmp_path / "tuned.lora.h5")
    assert relative_error(reloaded.predict(x, verbose=0), tuned.predict(x, verbose=0)) < 1e-5
    model = SSMRegressor.from_preset(tmp_path / "preset")
    expected = model.predict(x, verbose=0)
    model.quantize("int8")
    assert relative_error(model.predict(x, verbose=0), expected) < 0.05
    model.save_to_preset(tmp_path / "int8")
    loaded = SSMRegressor.from_preset(tmp_path / "int8")
    assert relative_error(loaded.predict(x, verbose=0), model.predict(x, verbose=0)) < 1e-5


@ONCE
def test_what_is_refused(x):
    model, steps = make_model(2), make_model(pooling=None)
    y = np.zeros((4, 2))
    for one, targets, received in (
        (model, y[:, 0], r"\(batch, 2\). Received: y.shape=\(4,\)"),
        (model, np.zeros((4, 3)), r"y.shape=\(4, 3\)"),
        (model, np.where(y == 0, np.nan, y), "must be finite"),
        (steps, np.zeros(4), "8 steps"),
        (steps, np.zeros((4, 8, 2)), r"\(batch, length, 1\) or \(batch, length\)"),
        (steps, [np.zeros(7)] * 4, "Row 0 of `y`"),
        (model, ["a"] * 4, "must be numbers"),
    ):
        with pytest.raises(ValueError, match=received):
            one.fit(x, targets, verbose=0)
    for arguments in ({"loss": "sparse_categorical_crossentropy"}, {"metrics": ["accuracy"]}):
        with pytest.raises(ValueError, match=r"must read numbers.*SSMClassifier.*Received"):
            model.compile("sgd", **arguments)
    for targets, match in (
        (np.zeros((4, 3)), r"\(batch, 2\)"),
        ([[np.nan, 1.0]], "not finite"),
        (np.zeros((0, 2)), "0 targets"),
    ):
        with pytest.raises(ValueError, match=match):
            model.adapt_targets(targets)
    with pytest.raises(ValueError, match="num_outputs=0"):
        make_model(0)
    with pytest.raises(ValueError, match="normalize_targets"):
        make_model(normalize_targets="yes")
