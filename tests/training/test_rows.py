"""Labelled rows: batches of few shapes in an order of their own, and predictions in theirs."""

import keras
import numpy as np
import pytest

from keras_ssm.layers import S4D
from keras_ssm.models import SSMBackbone, SSMClassifier
from keras_ssm.training import Part, ShuffledRows, predict, split
from tests.backend_tools import to_numpy

pytestmark = pytest.mark.once("torch")

LENGTHS = np.random.default_rng(0).integers(3, 30, size=37)
RAGGED = Part([np.full((n, 2), i + 1.0) for i, n in enumerate(LENGTHS)], np.arange(37))
EQUAL = Part(np.arange(37 * 5, dtype="int16").reshape(37, 5), np.arange(37))


def epoch_of(data, epoch):
    data.epoch = epoch
    return [data[i] for i in range(len(data))]


@pytest.mark.parametrize("part", [RAGGED, EQUAL], ids=["ragged", "equal"])
def test_each_row_comes_once_an_epoch_in_batches_of_few_shapes(part):
    data = ShuffledRows(part, batch_size=8, seed=0, lengths=3)
    batches = epoch_of(data, 0)
    seen = np.concatenate([y for _, y in batches])
    assert set(seen) == set(range(37)) and len(seen) == 40  # the last batch is filled up
    shapes = {x["inputs"].shape for x, _ in batches}
    assert len(shapes) <= 3 and {shape[0] for shape in shapes} == {8}
    for x, y in batches:
        for row, mask, label in zip(x["inputs"], x["padding_mask"], y, strict=True):
            given = np.asarray(part.x[label]).reshape(mask.sum(), -1)
            np.testing.assert_array_equal(row[mask], given)
            assert not row[~mask].any()


def test_the_seed_and_the_epoch_alone_decide_the_order():
    def labels(seed, epoch, before=()):
        data = ShuffledRows(RAGGED, batch_size=8, seed=seed)
        for other in before:
            epoch_of(data, other)
        return np.concatenate([y for _, y in epoch_of(data, epoch)]).tolist()

    assert labels(0, 2) == labels(0, 2, before=(0, 1))
    assert labels(0, 2) != labels(0, 1) != labels(1, 1)


def test_augmentation_is_drawn_by_seed_epoch_and_batch():
    class Noisy(ShuffledRows):
        def augment(self, x, y, rng):
            return rng.standard_normal(2).tolist(), y

    first = [x for x, _ in epoch_of(Noisy(EQUAL, 8, seed=0), 1)]
    data = Noisy(EQUAL, 8, seed=0)
    epoch_of(data, 0)
    assert [x for x, _ in epoch_of(data, 1)] == first
    assert len({tuple(x) for x in first}) == len(first)


def test_predictions_are_those_of_each_row_alone():
    keras.utils.set_random_seed(0)
    backbone = SSMBackbone(S4D(state_dim=4, seed=0), 1, 4, input_dim=2)
    model = SSMClassifier(backbone, num_classes=3)
    found = predict(model, RAGGED.x, batch_size=8, lengths=3)
    for row, logits in zip(RAGGED.x[:5], found, strict=False):
        single = to_numpy(model(row[None].astype("float32")))[0]
        np.testing.assert_allclose(logits, single, rtol=1e-4, atol=1e-5)
    assert found.shape == (37, 3)


def test_token_ids_stay_integers():
    part = Part([np.arange(n) for n in (3, 5, 4)], np.zeros(3, int))
    x, _ = ShuffledRows(part, batch_size=2, seed=0, key="token_ids")[0]
    assert x["token_ids"].dtype.kind == "i" and x["token_ids"].ndim == 2


def test_a_split_has_the_same_share_of_each_label():
    part = Part(np.arange(60), np.repeat([0, 1, 2], [30, 20, 10]))
    train, validation = split(part, 0.2, seed=1)
    assert np.bincount(validation.y).tolist() == [6, 4, 2]
    assert sorted([*train.x, *validation.x]) == list(range(60))
    assert not np.array_equal(validation.x, split(part, 0.2, seed=2)[1].x)
    for fraction in (0.0, 1.0, 0.01):
        with pytest.raises(ValueError, match=r"`fraction`.*Received"):
            split(part, fraction)
