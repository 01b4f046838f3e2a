"""Layers that change sequences in training only."""

import keras
import numpy as np
import pytest

from keras_ssm.layers import S4D, RandomGain, RandomNoise, RandomShift, RandomTimeMask
from keras_ssm.models import SSMBackbone, SSMClassifier
from tests.backend_tools import to_numpy

pytestmark = pytest.mark.once("torch")

LAYERS = [
    RandomGain(0.5, 2.0, seed=1),
    RandomShift(3, seed=1),
    RandomNoise(0.5, seed=1),
    RandomNoise(0.5, relative=False, seed=1),
    RandomTimeMask(0.5, num_masks=2, seed=1),
]


def again(layer):
    return type(layer).from_config(layer.get_config())


@pytest.fixture
def series(rng):
    x = rng.uniform(1.0, 2.0, (6, 12, 2)).astype("float32")
    mask = np.arange(12) < np.array([[12], [5], [9], [1], [12], [7]])
    mask[4, :3] = False
    return np.where(mask[..., None], x, np.float32(np.nan)), mask


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_rows_change_in_training_and_masks_hold(series, layer):
    x, mask = series
    layer = again(layer)
    assert layer(x, mask=mask) is not None
    np.testing.assert_array_equal(to_numpy(layer(x, mask=mask)), x)
    first, second = (to_numpy(layer(x, mask=mask, training=True)) for _ in range(2))
    for y in (first, second):
        assert np.isfinite(y).all() and not y[~mask].any()
        rows = (y != np.where(mask[..., None], x, 0.0)).any(axis=(1, 2))
        assert rows.sum() >= 3  # a draw may be 0
    assert (first != second).any()
    twin = again(layer)
    np.testing.assert_array_equal(to_numpy(twin(x, mask=mask, training=True)), first)
    other = type(layer).from_config({**layer.get_config(), "seed": 2})
    assert (to_numpy(other(x, mask=mask, training=True)) != first).any()


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_half_precision_changes_as_full_precision_does(layer):
    x = np.where(np.arange(2000) % 2, 300.0, -280.0).astype("float32")
    x = np.stack([x, 0.5 * x])[..., None]
    exact, half = (
        to_numpy(keras.ops.cast(again(layer)(keras.ops.cast(x, dtype), training=True), "float32"))
        for dtype in ("float32", "float16")
    )
    np.testing.assert_allclose(half, exact, rtol=2e-3, atol=0.5)
    with pytest.raises(ValueError, match="must hold floats"):
        layer(x.astype("int16"), training=True)


def test_what_each_of_them_does(rng):
    x = rng.uniform(1.0, 2.0, (200, 20, 1)).astype("float32")
    gain = to_numpy(RandomGain(0.5, 2.0, seed=0)(x, training=True)) / x
    assert np.ptp(gain, axis=1).max() < 1e-5 and 0.5 <= gain.min() < 0.55 < 1.8 < gain.max() <= 2.0
    assert 0.35 < (gain[:, 0] < 1.0).mean() < 0.65  # half of them are softer, half louder
    shifts = []
    for row, moved in zip(x, to_numpy(RandomShift(4, seed=0)(x, training=True)), strict=True):
        found = [k for k in range(-4, 5) if np.array_equal(moved, shifted(row, k))]
        shifts += found
    assert len(shifts) == 200 and set(shifts) == set(range(-4, 5))
    zero = to_numpy(RandomTimeMask(0.25, seed=0)(x, training=True))[..., 0] == 0
    assert set(zero.sum(axis=1)) == {0, 1, 2, 3, 4, 5}
    assert (np.abs(np.diff(zero.astype(int), axis=1)).sum(axis=1) <= 2).all()  # one stretch
    assert zero[:, 0].any() and zero[:, -1].any()
    noise = to_numpy(RandomNoise(0.1, seed=0)(10 * x, training=True)) - 10 * x
    level = noise.std(axis=(1, 2)) / (10 * np.sqrt((x**2).mean(axis=(1, 2))))
    assert 0.04 < level.mean() < 0.06 and level.max() < 0.16


def shifted(row, k):
    padded = np.pad(row, [(4, 4), (0, 0)])
    return padded[4 - k : 24 - k]


@pytest.mark.everywhere
def test_a_compiled_fit_draws_anew_in_each_step(rng):
    x = rng.standard_normal((4, 8, 1)).astype("float32")
    backbone = SSMBackbone(S4D(state_dim=4, seed=0), 1, 4, augmentation=LAYERS)
    model = SSMClassifier(backbone, 2)
    model.compile(optimizer=keras.optimizers.SGD(0.0), metrics=[])
    y = np.array([0, 1, 1, 0])
    plain = model.evaluate(x, y, verbose=0)
    losses = model.fit(x, y, epochs=2, verbose=0).history["loss"]
    assert len({plain, *losses}) == 3
    assert model.evaluate(x, y, verbose=0) == plain


def test_a_backbone_augments_in_fit_and_not_in_predict(rng, tmp_path):
    x = rng.standard_normal((4, 8, 1)).astype("float32")
    losses = {}
    for name, layers in (
        ("plain", None),
        ("one", LAYERS),
        ("same", LAYERS),
    ):
        keras.utils.set_random_seed(3)
        backbone = SSMBackbone(S4D(state_dim=4, seed=0), 1, 4, augmentation=layers)
        model = SSMClassifier(backbone, 2)
        losses[name] = [model.predict(x, verbose=0)]
        history = model.fit(x, np.array([0, 1, 1, 0]), epochs=2, verbose=0, shuffle=False)
        losses[name] += history.history["loss"]
    np.testing.assert_array_equal(losses["one"][0], losses["plain"][0])
    assert losses["one"][1:] == losses["same"][1:]
    assert losses["one"][1] != losses["plain"][1]
    model.save_to_preset(tmp_path / "preset")
    loaded = SSMClassifier.from_preset(tmp_path / "preset")
    assert [layer.get_config() for layer in loaded.backbone.augmentation_layers] == [
        layer.get_config() for layer in LAYERS
    ]
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


def test_wrong_augmentation_is_refused():
    for wrong in (
        lambda: RandomGain(2.0, 1.0),
        lambda: RandomShift(0),
        lambda: RandomNoise(-1.0),
        lambda: RandomTimeMask(1.5),
        lambda: SSMBackbone(S4D(state_dim=4), 1, 4, augmentation=["gain"]),
        lambda: SSMBackbone(S4D(state_dim=4), 1, 4, vocabulary_size=9, augmentation=[RandomGain()]),
    ):
        with pytest.raises(ValueError, match=r"Received: "):
            wrong()
