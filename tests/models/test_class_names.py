"""Names of classes: in labels, in answers, in files."""

import keras
import numpy as np
import pytest

import keras_ssm
from keras_ssm.layers import S4D
from keras_ssm.models import SSMBackbone, SSMClassifier, SSMPairClassifier

pytestmark = pytest.mark.once("torch")
NAMES = ["rest", "walk", "run"]


def make_model(num_classes=3, pooling="mean", names=tuple(NAMES), task=SSMClassifier):
    keras.utils.set_random_seed(0)
    backbone = SSMBackbone(S4D(state_dim=4, seed=0), num_layers=1, hidden_dim=4)
    return task(backbone, num_classes, pooling=pooling, class_names=names)


@pytest.fixture
def x(rng):
    return rng.standard_normal((6, 8)).astype("float32")


def test_labels_by_name_train_as_those_by_number_do(x):
    numbers = np.array([0, 1, 2, 0, 1, 2])
    names = [NAMES[n] for n in numbers]
    weights = []
    for y, known in ((numbers, None), (names, NAMES), (np.array(names, object), np.array(NAMES))):
        model = make_model(names=known)
        keys = NAMES if known is not None else range(3)
        by_class = dict(zip(keys, (1.0, 2.0, 0.5), strict=True))
        model.fit(x, y, shuffle=False, class_weight=by_class, verbose=0)
        weights.append(model.get_weights())
        assert np.isfinite(model.evaluate(x, y, verbose=0)).all()
    for found in weights[1:]:
        assert all((a == b).all() for a, b in zip(found, weights[0], strict=True))
    import pandas as pd

    assert np.isfinite(model.evaluate(x, pd.Series(names), verbose=0)).all()
    steps = make_model(pooling=None)
    rows, labels = [x[0], x[1, :5]], [["run"] * 8, ["rest"] * 5]
    by_number = steps.evaluate(rows, [np.full(8, 2), np.zeros(5, int)], verbose=0)
    assert steps.evaluate(rows, labels, verbose=0) == by_number
    with pytest.raises(ValueError, match=r"names of \['rest', 'walk', 'run'\]. Received: 'fly'"):
        model.fit(x, [*names[:5], "fly"], verbose=0)
    with pytest.raises(ValueError, match="Received: 'fly'"):
        model.fit(x, names, class_weight={"fly": 2.0}, verbose=0)


def test_labels_by_name_in_datasets(x):
    import tensorflow as tf

    names = [NAMES[n] for n in (0, 1, 2, 0, 1, 2)]
    model, weights = make_model(), {"rest": 3.0}

    def loss(data, y=None):
        model.set_weights(before)
        return model.fit(data, y, verbose=0, class_weight=weights).history["loss"]

    def batches(y):
        return tf.data.Dataset.from_tensors((x, y))

    before = model.get_weights()
    expected = loss(x, names)
    for data in (batches(names), batches(np.array(names, "S"))):
        np.testing.assert_allclose(loss(data), expected, rtol=1e-6)
    np.testing.assert_allclose(loss(x, tf.constant(names)), expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"names of \['rest', 'walk', 'run'\]. Received: 'fly'"):
        loss(batches(["fly"] * 6))
    model, weights = make_model(pooling=None), None
    before = model.get_weights()
    rows, labels = [x[0], x[1, :5]], [["run"] * 8, ["rest"] * 5]
    expected = loss(rows, labels)
    ragged = tf.ragged.constant([row.tolist() for row in rows])
    for y in (tf.ragged.constant(labels), tf.ragged.constant(labels).to_tensor()):
        np.testing.assert_allclose(
            loss(tf.data.Dataset.from_tensors((ragged, y))), expected, rtol=1e-6
        )
    with pytest.raises(ValueError, match=r"`y` must be numbers; .* `class_names`"):
        make_model(names=None).fit(batches(names), verbose=0)


def test_answers_have_names_and_padding_has_none(x):
    model = make_model()
    expected = model.predict(x, verbose=0).argmax(-1)
    assert (model.predict_classes(x, verbose=0) == np.array(NAMES)[expected]).all()
    assert (make_model(names=None).predict_classes(x, verbose=0) == expected).all()
    rows = [x[0], x[1, :3]]
    for names, last in ((NAMES, ""), (None, -1)):
        found = make_model(pooling=None, names=names).predict_classes(rows, verbose=0)
        assert found.shape == (2, 8) and (found[1, 3:] == last).all()
        assert (found[0] != last).all() and (found[1, :3] != last).all()
    one = make_model(1, names=["no", "yes"])
    yes = one.predict(x, verbose=0)[:, 0] > 0
    assert (one.predict_classes(x, verbose=0) == np.where(yes, "yes", "no")).all()
    x[4, 2] = np.nan
    with pytest.raises(ValueError, match="NaN for row 4"):
        model.predict_classes(x, verbose=0)
    with pytest.raises(ValueError, match="arrays, lists or a dict for classes of steps"):
        make_model(pooling=None).predict_classes((batch for batch in [x]), verbose=0)


def test_files_and_the_card_hold_them_and_a_new_head_has_its_own(x, tmp_path):
    model = make_model()
    model.save(tmp_path / "model.keras")
    model.save_to_preset(tmp_path / "preset")
    for again in (
        keras.models.load_model(tmp_path / "model.keras"),
        SSMClassifier.from_preset(tmp_path / "preset"),
        keras.models.clone_model(model),
    ):
        assert again.id2label == {0: "rest", 1: "walk", 2: "run"}
        assert again.label2id["run"] == 2
    assert keras_ssm.presets.read(tmp_path / "preset")["id2label"] == dict(
        zip("012", NAMES, strict=True)
    )
    assert "0 `rest`, 1 `walk`, 2 `run`." in keras_ssm.hub.card(tmp_path / "preset")
    other = SSMClassifier.from_preset(tmp_path / "preset", num_classes=2)
    assert other.class_names is None
    other = SSMClassifier.from_preset(tmp_path / "preset", num_classes=2, class_names=["a", "b"])
    assert other.class_names == ("a", "b")
    renamed = SSMClassifier.from_preset(tmp_path / "preset", class_names=["a", "b", "c"])
    assert set(renamed.predict_classes(x, verbose=0)) <= {"a", "b", "c"}
    unnamed = make_model(names=None)
    unnamed.save_to_preset(tmp_path / "unnamed")
    assert "id2label" not in keras_ssm.presets.read(tmp_path / "unnamed")
    assert make_model(task=SSMPairClassifier).class_names == tuple(NAMES)


NONE = ["abc", ["a", "b"], ["a", "b", "a"], [1, 2, 3], ["a", "", "c"], 3]


@pytest.mark.parametrize("names", NONE)
def test_names_that_are_none(names):
    with pytest.raises(ValueError, match=r"a name for each of the 3 classes.*Received"):
        make_model(names=names)
