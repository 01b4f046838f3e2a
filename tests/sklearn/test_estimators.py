"""The estimators: in the tools of scikit-learn, with sequences of every kind."""

import functools
import importlib.util
import pickle
import random
import re

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import estimator_checks

import keras_ssm
from keras_ssm.layers import S5
from keras_ssm.sklearn import SSMClassifierEstimator, SSMRegressorEstimator

pytestmark = pytest.mark.once("torch")
SMALL = {"num_layers": 1, "hidden_dim": 4, "state_dim": 4, "epochs": 1, "random_state": 0}


def make(cls=SSMClassifierEstimator, **arguments):
    return cls(**{**SMALL, **arguments})


@pytest.fixture(scope="module")
def waves():
    """Slow and quick waves of two channels and of different lengths, far from zero."""
    rng = np.random.default_rng(0)
    rows, hertz = [], rng.uniform(0.03, 0.08, 32) + 0.18 * rng.integers(0, 2, 32)
    for frequency in hertz:
        t = np.arange(rng.integers(20, 30)) + rng.uniform(0, 9)
        rows.append(np.stack([np.sin(6.28 * frequency * t), np.cos(t)], 1) * 300 + 5000)
    return rows, np.where(hertz > 0.15, "quick", "slow"), hertz


def test_both_learn_lists_of_sequences(waves):
    rows, labels, _ = waves
    arguments = {"hidden_dim": 16, "epochs": 15, "batch_size": 8, "dropout": 0.0}
    classifier = make(**arguments).fit(rows, labels)
    assert classifier.score(rows, labels) > 0.9
    proba = classifier.predict_proba(rows)
    assert list(classifier.classes_) == ["quick", "slow"] and proba.shape == (32, 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-12)
    assert classifier.n_iter_ == 15 and classifier.history_["loss"][-1] < 0.5
    assert classifier.model_.id2label == {0: "quick", 1: "slow"}


@pytest.mark.parametrize("cls", [SSMClassifierEstimator, SSMRegressorEstimator])
def test_arrays_lists_and_layouts_say_the_same(waves, cls):
    rows, labels, hertz = waves
    y = labels if cls is SSMClassifierEstimator else 1e6 * hertz
    cut = np.stack([row[:20] for row in rows])
    fitted = make(cls).fit(cut, y)
    expected = fitted.outputs(cut)
    assert fitted.n_features_in_ == 2
    turned = cut.transpose(0, 2, 1)
    for estimator, x in (
        (make(cls), list(cut)),
        (make(cls, layout="aeon"), turned),
        (make(cls, layout="aeon"), list(turned)),
    ):
        np.testing.assert_allclose(estimator.fit(x, y).outputs(x), expected, rtol=1e-6)
    one = make(cls).fit(cut[..., :1], y)
    table = make(cls).fit(cut[..., 0], y)
    lists = make(cls).fit([row.tolist() for row in cut[..., 0]], y)
    expected = one.outputs(cut[..., 0])
    for estimator in (table, lists):
        np.testing.assert_allclose(estimator.outputs(cut[..., 0]), expected, rtol=1e-6)
    longer = [row[:, 0] for row in rows]  # of other lengths than those of fit
    np.testing.assert_allclose(table.outputs(longer), one.outputs(longer), rtol=1e-6)


def test_the_tools_of_scikit_learn_take_them(waves):
    import pandas as pd

    rows, labels, hertz = waves
    search = GridSearchCV(make(epochs=2), {"system": ["s4d", S5(state_dim=4)]}, cv=2)
    search.fit(rows, labels)
    assert set(search.predict(rows)) <= {"quick", "slow"}
    halved = FunctionTransformer(lambda rows: [row[::2] for row in rows])
    pipeline = make_pipeline(halved, make(SSMRegressorEstimator))
    assert cross_val_score(pipeline, rows, hertz, cv=2).shape == (2,)
    assert pipeline.fit(rows, hertz).predict(rows).shape == (32,)
    table = np.stack([row[:20, 0] for row in rows])
    scaled = make_pipeline(StandardScaler(), make(standardize=False)).fit(table, labels)
    assert np.isfinite(scaled.predict_proba(table)).all()
    frame = pd.DataFrame(table, columns=[f"t{i}" for i in range(20)])
    named = make().fit(frame, pd.Series(labels))
    assert list(named.feature_names_in_[:2]) == ["t0", "t1"]
    assert (named.predict(frame) == make().fit(table, labels).predict(table)).all()


def test_copies_and_seeds(waves):
    rows, labels, hertz = waves
    first = make(dropout=0.3, epochs=2).fit(rows, labels)
    before = random.getstate()[1][:5], np.random.get_state()[1][:5].tolist()
    reloaded = clone(first)
    assert not hasattr(reloaded, "model_")
    np.testing.assert_array_equal(reloaded.fit(rows, labels).outputs(rows), first.outputs(rows))
    assert (random.getstate()[1][:5], np.random.get_state()[1][:5].tolist()) == before
    other = make(dropout=0.3, epochs=2, random_state=1).fit(rows, labels)
    assert np.abs(other.outputs(rows) - first.outputs(rows)).max() > 1e-3
    loaded = pickle.loads(pickle.dumps(first))
    np.testing.assert_allclose(loaded.outputs(rows), first.outputs(rows), rtol=1e-6)
    numbers = make(SSMRegressorEstimator).fit(rows, np.stack([hertz, 1e6 * hertz], 1))
    np.testing.assert_allclose(
        pickle.loads(pickle.dumps(numbers)).predict(rows), numbers.predict(rows), rtol=1e-6
    )


def test_weights_and_a_part_that_is_held_out(waves):
    rows, labels, _ = waves
    plain = make().fit(rows, labels).outputs(rows)
    weights = np.where(labels == "slow", 3.0, 1.0)
    weighted = make().fit(rows, labels, sample_weight=weights).outputs(rows)
    by_class = make(class_weight={"slow": 3.0, "quick": 1.0}).fit(rows, labels).outputs(rows)
    np.testing.assert_array_equal(weighted, by_class)
    assert np.abs(weighted - plain).max() > 1e-5
    held = {"early_stopping": True, "patience": 2, "validation_fraction": 0.25}
    stopped = make(epochs=20, learning_rate=0.0, **held).fit(rows, labels)
    assert stopped.n_iter_ == 3 and len(set(stopped.history_["val_loss"])) == 1


def test_the_memory_fits_the_length_of_the_sequences():
    x, y = np.random.default_rng(0).standard_normal((4, 200)), [0, 1, 0, 1]
    for given, (low, high) in (("auto", (1 / 200, 0.1)), ((0.2, 0.3), (0.2, 0.3))):
        fitted = make(dt_range=given, hidden_dim=64).fit(x, y)
        dt = np.exp(np.array(fitted.model_.backbone.blocks[0].mixer.log_dt.numpy()))
        assert low * 0.9 < dt.min() < low * 1.5 and high / 1.5 < dt.max() < high * 1.1
    make(system="mamba").fit(x, y)
    mixer = make(system="mamba", dt_range=(0.2, 0.3)).fit(x, y).model_.backbone.blocks[0].mixer
    assert (mixer.dt_min, mixer.dt_max) == (0.2, 0.3)


def test_scikit_learn_must_be_there(monkeypatch):
    found = importlib.util.find_spec
    lacking = lambda name: None if name == "sklearn" else found(name)
    monkeypatch.setattr(importlib.util, "find_spec", lacking)
    with pytest.raises(ImportError, match=re.escape("pip install 'keras-ssm[sklearn]'")):
        keras_ssm.sklearn.SSMClassifierEstimator  # noqa: B018
    with pytest.raises(AttributeError, match="Estimate"):
        keras_ssm.sklearn.Estimate  # noqa: B018


def test_a_large_mean_takes_no_digits_away(waves):
    rows, labels, _ = waves
    far = np.empty(len(rows), object)  # an array of arrays is a list of them
    far[:] = [row + 1e9 for row in rows]
    expected = make().fit(rows, labels).predict_proba(rows)
    np.testing.assert_allclose(make().fit(far, labels).predict_proba(far), expected, atol=1e-5)


def test_what_is_refused(waves):
    rows, labels, hertz = waves
    fitted = make().fit(rows, labels)
    table = make().fit(np.zeros((4, 6)), [0, 1, 0, 1])
    of_layer = functools.partial(SSMClassifierEstimator, system=S5())
    nan = [*rows[:3], np.where(rows[3] > 5000, np.nan, rows[3]), *rows[4:]]
    for run, match in (
        (lambda: fitted.predict([row[:, :1] for row in rows]), "2 channels.*Received: 1"),
        (lambda: fitted.predict(np.zeros((2, 2, 30))), "layout='aeon'"),
        (lambda: table.predict(np.zeros((4, 5))), "5 features.*expecting 6"),
        (lambda: make().fit(nan, labels), "case 3"),
        (lambda: make().fit([*rows[:-1], rows[0][:0]], labels), "at least one step.*case 31"),
        (lambda: make().fit([*rows[:-1], rows[0][:, :1]], labels), "same channels.*1, 2"),
        (lambda: make().fit(rows[:5], labels), r"inconsistent numbers of samples: \[32, 5\]"),
        (lambda: make().fit(np.zeros((2, 3, 4, 5)), [0, 1]), "dim|shape"),
        (lambda: make().fit(rows, hertz), "continuous"),
        (lambda: make(SSMRegressorEstimator).fit(rows, labels), "could not convert|numeric"),
        (lambda: make(system="lstm").fit(rows, labels), "system='lstm'"),
        (lambda: make(pooling=None).fit(rows, labels), "pooling=None"),
        (lambda: make(layout="sktime").fit(rows, labels), "layout='sktime'"),
        (lambda: make(dt_range="long").fit(rows, labels), "dt_range='long'"),
        (lambda: make(system=S5()).fit(rows, labels), "Received: {'state_dim': 4}"),
        (lambda: of_layer(bidirectional=True).fit(rows, labels), "{'bidirectional': True}"),
        (lambda: of_layer(dt_range=(0.1, 0.2)).fit(rows, labels), "'dt_range': .0.1, 0.2"),
        (lambda: make(epochs=0).fit(rows, labels), "epochs=0"),
        (lambda: make(learning_rate=-1).fit(rows, labels), "learning_rate"),
        (lambda: make(early_stopping=True, validation_fraction=1.0).fit(rows, labels), "between"),
        (lambda: make().fit(rows, labels, sample_weight=np.ones(3)), "sample_weight"),
    ):
        with pytest.raises(ValueError, match=match):
            run()
    with pytest.raises(NotFittedError):
        make().predict(rows)


CHECKS = ["unfitted", "fit_idempotent", "n_features_in", "estimators_pickle", "estimators_nan_inf"]


@pytest.mark.parametrize("cls", [SSMClassifierEstimator, SSMRegressorEstimator])
def test_some_checks_of_scikit_learn(cls):
    for name in CHECKS:
        name = "estimators_unfitted" if name == "unfitted" else name
        getattr(estimator_checks, f"check_{name}")(cls.__name__, make(cls))


# Checks of scikit-learn for tables, and the reasons why sequences differ.
FAIL = {
    "check_sample_weight_equivalence_on_dense_data": "batches are drawn: a row twice is no weight",
    "check_methods_sample_order_invariance": "the last digit of float32 depends on the batch",
    "check_methods_subset_invariance": "the last digit of float32 depends on the batch",
    "check_classifiers_train": "one epoch of 4 features, to be quick",
    "check_class_weight_classifiers": "one epoch of 4 features, to be quick",
    "check_regressors_train": "one epoch of 4 features, to be quick",
}


@pytest.mark.slow
@pytest.mark.parametrize("cls", [SSMClassifierEstimator, SSMRegressorEstimator])
def test_all_checks_of_scikit_learn(cls):
    estimator = make(cls, batch_size=512)
    results = estimator_checks.check_estimator(
        estimator, expected_failed_checks=FAIL, on_skip=None, on_fail=None
    )
    failed = {
        r["check_name"]: str(r["exception"])[:200] for r in results if r["status"] == "failed"
    }
    assert failed == {}
