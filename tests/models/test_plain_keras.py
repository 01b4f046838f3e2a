"""A step of training is that of a plain `keras.Model` of the same layers."""

import keras
import numpy as np
import pytest

from tests.backend_tools import BACKEND, relative_error, to_numpy
from tests.models.test_training_mode import make_model

MASK = np.arange(10)[None] < np.array([[10], [7], [4], [9], [10], [1], [8], [6]])


def plain_model(task):
    """A functional model of the layers of a task."""
    inputs = keras.Input((None, 2), name="inputs")
    mask = keras.Input((None,), dtype="bool", name="padding_mask")
    y = task.backbone.encoder_layer(inputs)
    for block in task.backbone.blocks:
        y = block(y, mask=mask)
    y = task.head_dropout(task.pooler(y, mask=mask))
    return keras.Model({"inputs": inputs, "padding_mask": mask}, task.head(y))


def pair():
    """A task and a plain model of equal weights, seeds included."""
    task, twin = make_model(), make_model()
    for part in (task, twin):
        part.head.kernel.regularizer = keras.regularizers.L2(0.1)
        part.backbone.blocks[0].activity_regularizer = keras.regularizers.L2(0.01)
    plain = plain_model(twin)
    # Two orders: that of attributes and that of the graph.
    for name in ("trainable_variables", "non_trainable_variables"):
        for ours, theirs in zip(getattr(task, name), getattr(twin, name), strict=True):
            theirs.assign(to_numpy(ours))
    return task, twin, plain


def averaged():
    return keras.optimizers.AdamW(
        0.05, use_ema=True, ema_momentum=0.5, gradient_accumulation_steps=2, clipnorm=0.5
    )


def scaled():
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05), initial_scale=1024.0)


WAYS = {
    "sample_weight, gradient accumulation, EMA": (
        averaged,
        {"sample_weight": np.linspace(0, 2, 8)},
    ),
    "class_weight, loss scaling": (scaled, {"class_weight": {0: 3.0, 1: 0.5}}),
}


FIRST = next(iter(WAYS))


@pytest.mark.parametrize("way", WAYS)
def test_a_step_is_that_of_a_plain_model(rng, way):
    optimizer, weights = WAYS[way]
    inputs = rng.standard_normal((8, 10, 2)).astype("float32")
    inputs *= MASK[..., None]  # the task zeroes what the mask covers
    x = {"inputs": inputs, "padding_mask": MASK}
    y = np.arange(8) % 2
    task, twin, plain = pair()
    for model in (task, plain):
        model.compile(
            optimizer(),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            weighted_metrics=["accuracy"],
            run_eagerly=BACKEND == "tensorflow",
        )
    before = [to_numpy(v) for v in task.trainable_variables]
    first = {k: v if isinstance(v, dict) else v[:4] for k, v in weights.items()}
    logs = []
    for model in (task, plain):
        batch = {k: v[:4] for k, v in x.items()}, y[:4]
        on_batch = model.train_on_batch(*batch, return_dict=True, **first)
        fitted = model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0, **weights)
        scores = {}
        if way == FIRST:  # what is scored and predicted does not depend on the optimizer
            scores = model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
            scores["tested"] = model.test_on_batch(*batch, return_dict=True)
        logs.append({**fitted.history, "batch": on_batch, "scores": scores})
    ours, theirs = ([to_numpy(v) for v in keras.tree.flatten(part)] for part in logs)
    assert len(ours) == len(theirs) == (15 if way == FIRST else 9)
    assert relative_error(np.array(ours), np.array(theirs)) < 1e-5
    for name in ("trainable_variables", "non_trainable_variables"):
        for a, b in zip(getattr(task, name), getattr(twin, name), strict=True):
            assert relative_error(a, to_numpy(b)) < 1e-4, a.path
    assert all(
        (to_numpy(v) != old).any() for v, old in zip(task.trainable_variables, before, strict=True)
    )
    moments = sorted(str(v.shape) for v in task.optimizer.variables)
    assert moments == sorted(str(v.shape) for v in plain.optimizer.variables)
    if way == FIRST:
        expected = plain.predict(x, batch_size=4, verbose=0)
        assert relative_error(task.predict(x, batch_size=4, verbose=0), expected) < 1e-5
        assert relative_error(task.predict_on_batch(batch[0]), expected[:4]) < 1e-5
    # An average that became the weights does not keep the next step from running.
    assert np.isfinite(task.train_on_batch(*batch)).all()
