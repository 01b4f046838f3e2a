"""`fit` trains in training mode: dropout drops, batch norm gathers statistics."""

import importlib.util

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import S4D
from keras_ssm.models import SSMBackbone, SSMClassifier, SSMPairClassifier
from tests.backend_tools import BACKEND, relative_error, to_numpy


def make_model(num_layers=1, **arguments):
    arguments = {"norm": "batch", "dropout": 0.5, **arguments}
    backbone = SSMBackbone(
        S4D(state_dim=4, seed=0), num_layers, hidden_dim=4, input_dim=2, **arguments
    )
    return SSMClassifier(backbone, num_classes=2)


@pytest.fixture
def series(rng):
    return rng.standard_normal((8, 10, 2)).astype("float32") + 5, np.arange(8) % 2


def test_keras_sees_the_signature_of_a_functional_model():
    model = make_model()
    plain = keras.Model(*[keras.Input((1,))] * 2)
    for part in (model, model.backbone):
        assert part._call_has_training_arg and part._call_has_mask_arg
        assert plain.call_signature_parameters == [
            name
            for name in part.call_signature_parameters
            if name not in ("initial_state", "return_state")
        ]


@pytest.mark.once("torch")
def test_a_mask_is_heard_however_it_comes(series):
    x, mask = series[0], np.arange(10)[None] < np.arange(2, 10)[:, None]
    masked = ops.convert_to_tensor(np.where(mask[..., None], x, 0.0))
    for mask_inputs in (True, False):
        model = make_model(mask_inputs=mask_inputs)
        expected = model({"inputs": masked, "padding_mask": mask})
        assert relative_error(model(masked), expected) > 0.01
        symbol = keras.Input((None, 2))
        around = keras.Model(symbol, model(keras.layers.Masking()(symbol)))
        all_true = np.ones_like(mask)
        for outputs in (
            model(masked, mask=mask),
            model({"inputs": masked}, mask={"inputs": mask, "padding_mask": None}),
            model({"inputs": masked, "padding_mask": all_true}, mask=mask),
            model({"inputs": masked, "padding_mask": mask}, mask=all_true),
            model(keras.layers.Masking()(masked)),
            around(masked),
        ):
            assert relative_error(outputs, expected) < 1e-6
    with pytest.raises(ValueError, match=r"mask.shape=\(8, 9\)"):
        model(x, mask=mask[:, :9])
    with pytest.raises(ValueError, match="nonsense"):
        model(x, nonsense=True)


def make_task(kind):
    """A model, data of two batches and its loss."""
    rng = np.random.default_rng(0)
    backbone = make_model(prenorm=True, norm_momentum=0.5).backbone
    x, y = rng.standard_normal((8, 6, 2)).astype("float32") + 5, np.arange(8) % 2
    if kind == "classifier":
        model = SSMClassifier(backbone, num_classes=2, dropout=0.5)
    elif kind == "steps":
        model, y = SSMClassifier(backbone, num_classes=2, pooling=None), np.repeat(y[:, None], 6, 1)
    elif kind == "pair":
        model, x = SSMPairClassifier(backbone, num_classes=2), np.stack([x, x[::-1]], axis=1)
    else:
        model, y = backbone, rng.standard_normal((8, 6, 4)).astype("float32")
    prepare(model)
    return model, x, y


def prepare(model, rate=0.01):
    loss = "mse"
    if not isinstance(model, SSMBackbone):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        optimizer=keras.optimizers.Adam(rate), loss=loss, run_eagerly=BACKEND == "tensorflow"
    )


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.x, self.y


def generate(x, y):
    yield x, y


def stream(x, y):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, y)).batch(8)


WAYS = {
    "arrays": lambda model, x, y: model.fit(x, y, verbose=0),
    "lists": lambda model, x, y: model.fit(list(x), list(y), verbose=0),
    "tf.data": lambda model, x, y: model.fit(stream(x, y), verbose=0),
    "PyDataset": lambda model, x, y: model.fit(Batches(x, y), verbose=0),
    "generator": lambda model, x, y: model.fit(generate(x, y), verbose=0),
    "train_on_batch": lambda model, x, y: model.train_on_batch(x, y),
}
if importlib.util.find_spec("tensorflow") is None:  # as on a GPU machine
    del WAYS["tf.data"]


def values(model):
    """Weights, statistics of batch norms and states of the seeds by path."""
    kinds = {"seed_generator_state": "seeds"}
    kinds |= dict.fromkeys(("moving_mean", "moving_variance"), "statistics")
    found = {"weights": {}, "seeds": {}, "statistics": {}}
    # PyTorch draws the dropout of the head, of no fixed shape, without the state of a seed.
    head = [] if isinstance(model, SSMBackbone) else model.head_dropout.variables
    for v in model.variables:
        if any(v is other for other in head):
            continue
        kind = "weights" if v.trainable else kinds.get(v.path.rpartition("/")[2])
        if kind is not None:
            found[kind][id(v)] = to_numpy(v).copy()
    return found


def unmoved(before, after, kind):
    assert before[kind]
    return [k for k, value in before[kind].items() if (value == after[kind][k]).all()]


@pytest.mark.parametrize("kind", ["classifier", "pair", "backbone"])
def test_every_way_to_train_is_in_training_mode(kind):
    model, x, y = make_task(kind)
    for way, train in WAYS.items():
        if kind != "classifier" and way not in ("arrays", "train_on_batch"):
            continue
        before = values(model)
        train(model, x, y)
        after = values(model)
        for part in before:
            assert not unmoved(before, after, part), (way, part)
    # And out of it again.
    scores = [model.evaluate(x, y, verbose=0) for _ in range(2)]
    assert scores[0] == scores[1]
    outputs = [model.predict(x, verbose=0) for _ in range(2)]
    assert (outputs[0] == outputs[1]).all()
    assert relative_error(model.predict_on_batch(x), outputs[0]) < 1e-6
    repeated = values(model)
    for part in before:
        assert len(unmoved(after, repeated, part)) == len(repeated[part])


def test_dropout_drops_and_statistics_move_to_those_of_the_data():
    model, x, y = make_task("steps")
    prepare(model, rate=0.0)
    seeds = [v for v in model.non_trainable_variables if v.path.endswith("seed_generator_state")]
    first = [to_numpy(seed).copy() for seed in seeds]

    def losses(shift):
        for seed, value in zip(seeds, first, strict=True):
            seed.assign(value + np.array([shift, 0], value.dtype))
        fitted = model.fit(x, y, epochs=4, shuffle=False, verbose=0)
        return np.array(fitted.history["loss"])

    once, again, other = losses(0), losses(0), losses(7)
    assert relative_error(once, again) < 1e-6
    assert np.abs(once - other).min() > 1e-4 and np.abs(np.diff(once)).min() > 1e-4
    norm = model.backbone.blocks[0].norm
    reads = to_numpy(model.backbone.encoder_layer(x)).reshape(-1, 4)
    assert relative_error(norm.moving_mean, reads.mean(axis=0)) < 1e-3
    assert relative_error(norm.moving_variance, reads.var(axis=0)) < 1e-3

    model.backbone.trainable = False
    prepare(model)
    before = values(model.backbone)
    before["head"] = to_numpy(model.head.kernel).copy()
    model.fit(x + 1, y, verbose=0)
    after = values(model.backbone)
    assert len(unmoved(before, after, "statistics")) == 2
    assert not unmoved(before, after, "seeds")
    assert relative_error(model.head.kernel, before["head"]) > 1e-3


def from_preset(model, directory):
    model.save_to_preset(directory / "preset")
    return SSMClassifier.from_preset(directory / "preset")


def from_keras_file(model, directory):
    model.save(directory / "model.keras")
    return keras.models.load_model(directory / "model.keras")


def with_lora(model, directory):
    model.enable_lora(2)
    return model


@pytest.mark.parametrize("bring", [from_preset, from_keras_file, with_lora])
def test_what_was_loaded_or_adapted_trains_in_training_mode(bring, tmp_path):
    model, x, y = make_task("classifier")
    model = bring(model, tmp_path)
    prepare(model)
    before = values(model)
    # The second factor of an update starts at zero: the first moves from the second step on.
    model.fit(x, y, epochs=2, verbose=0)
    after = values(model)
    assert not unmoved(before, after, "weights") and not unmoved(before, after, "seeds")
    # As in plain Keras, what is frozen keeps its statistics: all but the updates and the head.
    assert len(unmoved(before, after, "statistics")) == (2 if bring is with_lora else 0)


if BACKEND == "torch":

    def test_pytorch_sees_every_weight(tmp_path):
        make_model()
        model = make_model()
        model.save_to_preset(tmp_path / "preset")
        adapted = make_model()
        adapted.enable_lora(2)
        for task in (model, adapted, SSMClassifier.from_preset(tmp_path / "preset")):
            for part in (task, task.backbone):
                parameters = list(part.parameters())
                assert len(parameters) == len(part.variables) <= len(part.state_dict())
                trained = sum(p.requires_grad for p in parameters)
                assert trained == len(part.trainable_variables)
