"""Losses and metrics are read on the logits that a classifier returns."""

import keras
import numpy as np
import pytest

from tests.backend_tools import to_numpy
from tests.models.test_training_mode import make_model

pytestmark = pytest.mark.once("torch")


@pytest.fixture
def model():
    return make_model()


@pytest.mark.parametrize(
    "name",
    ["sparse_categorical_crossentropy", "CategoricalCrossentropy", "bce", "function", "class"],
)
def test_names_of_losses_mean_logits(model, rng, name):
    x, y = rng.standard_normal((4, 6, 2)).astype("float32"), np.arange(4) % 2
    losses = keras.losses
    named = {
        "function": losses.categorical_crossentropy,
        "class": losses.CategoricalFocalCrossentropy,
        "bce": {"logits": "bce"},
    }
    logits = to_numpy(model(x)).astype("float64")
    odds = logits - logits[:, ::-1]
    log_p = -np.log1p(np.exp(-odds))
    targets = np.eye(2)[y]
    expected = -(targets * log_p).sum(axis=1).mean()
    if name == "bce":
        expected = np.mean(np.log1p(np.exp(-np.where(targets > 0, logits, -logits))))
    elif name == "class":
        expected = -(0.25 * targets * (1 - np.exp(log_p)) ** 2 * log_p).sum(axis=1).mean()
    model.compile("sgd", named.get(name, name), metrics=[], run_eagerly=True)
    loss = model.test_on_batch(x, y if name.startswith("sparse") else targets)
    assert abs(np.ravel(loss)[0] - expected) < 1e-5


def test_losses_and_metrics_of_probabilities_are_refused(model):
    losses, metrics = keras.losses, keras.metrics
    for loss in (
        losses.SparseCategoricalCrossentropy(),
        [losses.BinaryCrossentropy()],
        "kl_divergence",
        losses.KLDivergence(),
        "poisson",
        "dice",
        losses.Tversky(),
        "crossentropy",
    ):
        with pytest.raises(ValueError, match=r"logits.*Received"):
            model.compile(loss=loss)
    for metric in (
        metrics.AUC(),
        metrics.SparseCategoricalCrossentropy(),
        metrics.BinaryAccuracy(),
        metrics.Precision(),
        metrics.F1Score(threshold=0.5),
        metrics.PrecisionAtRecall(0.5),
        "ce",
    ):
        for argument in ("metrics", "weighted_metrics"):
            with pytest.raises(ValueError, match=r"logits.*Received"):
                model.compile(**{argument: [metric]})
    model.compile(loss=losses.SparseCategoricalCrossentropy(from_logits=True))
    model.compile(loss=lambda y, z: keras.ops.mean(z), metrics=["sparse_categorical_accuracy"])
    model.compile(loss="mse", metrics=[metrics.Precision(thresholds=0.0)])


def test_names_of_metrics_mean_logits(model, rng):
    x = rng.standard_normal((8, 6, 2)).astype("float32")
    logits = to_numpy(model(x))
    # Probabilities above and below a half, none of whose logits passes 0.5.
    model.head.bias.assign(0.2 - logits.mean(axis=0))
    logits = logits + 0.2 - logits.mean(axis=0)
    targets = np.eye(2)[np.arange(8) % 2]
    names = ["binary_accuracy", "binary_crossentropy", "AUC", "Precision", "recall"]
    model.compile("sgd", "bce", metrics=names, run_eagerly=True)
    found = model.evaluate(x, targets, verbose=0, return_dict=True)
    right = (logits > 0) == targets.astype(bool)
    assert abs(found["binary_accuracy"] - right.mean()) < 1e-6
    assert abs(found["binary_crossentropy"] - found["loss"]) < 1e-5
    assert abs(found["Precision"] - targets[logits > 0].mean()) < 1e-6
    assert abs(found["recall"] - (logits > 0)[targets > 0].mean()) < 1e-6
    keras_auc = keras.metrics.AUC()
    keras_auc.update_state(targets, 1 / (1 + np.exp(-logits)))
    assert abs(found["AUC"] - float(keras_auc.result())) < 1e-5


def test_targets_that_a_loss_would_stretch_or_round_are_refused(model, rng):
    x, labels = rng.standard_normal((4, 6, 2)).astype("float32"), np.arange(4) % 2
    for loss in ("mse", keras.losses.mean_squared_error, "categorical_crossentropy", ["mae"]):
        model.compile("sgd", loss, metrics=[], run_eagerly=True)
        with pytest.raises(ValueError, match=r"shape of the outputs.*Received"):
            model.evaluate(x, labels, verbose=0)
        assert np.isfinite(model.evaluate(x, np.eye(2)[labels], verbose=0))
    for loss in ("auto", ["sparse_categorical_crossentropy"]):
        model.compile("sgd", loss, metrics=[], run_eagerly=True)
        for wrong, message in ((labels + 0.5, "whole numbers"), (labels + 1, "from 0 to 1")):
            with pytest.raises(ValueError, match=rf"{message}.*Received"):
                model.evaluate(x, wrong, verbose=0)
    with pytest.raises(ValueError, match=r"targets of `x`.*Received"):
        model.evaluate(x, verbose=0)
