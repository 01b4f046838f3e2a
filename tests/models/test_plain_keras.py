"""A step of training is that of a plain `keras.Model` of the same layers."""

import keras
import numpy as np
import pytest

from keras_ssm.layers import S4D
from keras_ssm.models import SSMBackbone, SSMRegressor
from keras_ssm.optimizers import ssm_optimizer
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


def grouped():
    return ssm_optimizer(
        0.05,
        0.02,
        use_ema=True,
        ema_momentum=0.5,
        ema_overwrite_frequency=2,
        gradient_accumulation_steps=2,
        clipnorm=0.5,
    )


def clipped_together():
    return ssm_optimizer(0.05, 0.02, epsilon=1e-2, global_clipnorm=0.5)


def scaled():
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05), initial_scale=1024.0)


WAYS = {
    "sample_weight, gradient accumulation, EMA": (
        averaged,
        {"sample_weight": np.linspace(0, 2, 8)},
    ),
    "class_weight, loss scaling": (scaled, {"class_weight": {0: 3.0, 1: 0.5}}),
    "the default optimizer, gradient accumulation, EMA": (grouped, {}),
    "mixed_float16": (clipped_together, {}),
}


FIRST = next(iter(WAYS))

ONCE = {
    "the default optimizer, gradient accumulation, EMA": pytest.mark.once("torch"),
    "mixed_float16": pytest.mark.once("torch", "tensorflow"),
}


@pytest.mark.parametrize("way", [pytest.param(way, marks=ONCE.get(way, ())) for way in WAYS])
def test_a_step_is_that_of_a_plain_model(rng, way):
    optimizer, weights = WAYS[way]
    if way == "mixed_float16":
        keras.config.set_dtype_policy(way)
    inputs = rng.standard_normal((8, 10, 2)).astype("float32")
    inputs *= MASK[..., None]  # the task zeroes what the mask covers
    x = {"inputs": inputs, "padding_mask": MASK}
    y = np.arange(8) % 2
    # Penalties of activities in half precision do not add up with the loss in Keras on TensorFlow.
    task, twin, plain = pair()
    if way == "mixed_float16":
        for part in (task, twin):
            part.backbone.blocks[0].activity_regularizer = None
    for model in (task, plain):
        model.compile(
            optimizer(),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            weighted_metrics=["accuracy"],
            run_eagerly=BACKEND == "tensorflow",
        )
        is_scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        assert is_scaled == (way in ("mixed_float16", "class_weight, loss scaling"))
    before = [to_numpy(v) for v in task.trainable_variables]
    first = {k: v if isinstance(v, dict) else v[:4] for k, v in weights.items()}
    logs = []
    for model in (task, plain):
        batch = {k: v[:4] for k, v in x.items()}, y[:4]
        on_batch = model.train_on_batch(*batch, return_dict=True, **first)
        fitted = model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0, **weights)
        scores = {}
        if way == FIRST:  # scores and predictions do not depend on the optimizer
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


@pytest.mark.once("torch")
def test_the_norm_of_all_gradients_is_clipped_as_by_one_optimizer(rng):
    x = rng.standard_normal((8, 10, 2)).astype("float32")
    # Far from a step of Adam, which would undo any factor on its gradients.
    arguments = {"epsilon": 1.0, "global_clipnorm": 0.25}
    models = [make_model(dropout=0.0) for _ in range(3)]
    models[1].set_weights(models[0].get_weights())
    models[2].set_weights(models[0].get_weights())
    together = ssm_optimizer(0.5, 0.5, weight_decay=0.0, **arguments)
    optimizers = (
        keras.optimizers.Adam(0.5, **arguments),
        type(together).from_config(together.get_config()),
        ssm_optimizer(0.5, 0.5, weight_decay=0.0, loss_scale_factor=8.0, **arguments),
    )
    for model, optimizer in zip(models, optimizers, strict=True):
        model.compile(optimizer, run_eagerly=True)
        model.fit(x, np.arange(8) % 2, epochs=2, shuffle=False, verbose=0)
    for model in models[1:]:
        for a, b in zip(model.trainable_variables, models[0].trainable_variables, strict=True):
            assert relative_error(a, to_numpy(b)) < 1e-5, a.path
    for wrong in ({"gradient_accumulation_steps": 2}, {"clipnorm": 1.0}):
        with pytest.raises(ValueError, match=r"global_clipnorm.*Received"):
            ssm_optimizer(global_clipnorm=1.0, **wrong)


def test_numbers_are_learned_as_by_a_plain_model(rng, tmp_path):
    def made():
        keras.utils.set_random_seed(0)
        backbone = SSMBackbone(S4D(state_dim=4, seed=0), num_layers=1, hidden_dim=4, input_dim=2)
        return SSMRegressor(backbone, num_outputs=2, normalize_targets=False)

    task, twin = made(), made()
    plain = plain_model(twin)
    twin.set_weights(task.get_weights())
    x = {"inputs": rng.standard_normal((8, 10, 2)) * MASK[..., None], "padding_mask": MASK}
    x["inputs"] = x["inputs"].astype("float32")
    y = rng.standard_normal((8, 2)).astype("float32")
    weight = np.linspace(0, 2, 8)
    seen = []
    for model in (task, plain):
        eager = BACKEND == "tensorflow"
        model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"], run_eagerly=eager)
        fit = model.fit(x, y, 4, 3, 0, sample_weight=weight, shuffle=False, validation_data=(x, y))
        seen.append([*fit.history.values(), model.evaluate(x, y, verbose=0)])
    for ours, theirs in zip(*seen, strict=True):
        assert np.allclose(ours, theirs, rtol=1e-5)
    assert fit.history["loss"][-1] < fit.history["loss"][0]
    expected = plain.predict(x, verbose=0)
    assert relative_error(task.predict(x, verbose=0), expected) < 1e-5
    task.save(tmp_path / "numbers.keras")
    reloaded = keras.saving.load_model(tmp_path / "numbers.keras")
    assert relative_error(reloaded.predict(x, verbose=0), expected) < 1e-5
