"""States and times between samples on their way through blocks, backbones and tasks."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import DSS, S4D, S5, Mamba
from keras_ssm.models import SSMBackbone, SSMClassifier, SSMPairClassifier
from tests.backend_tools import relative_error, to_numpy

pytestmark = pytest.mark.once("torch")


def make_backbone(mixer=None, **arguments):
    arguments = {"num_layers": 2, "hidden_dim": 4, "input_dim": 2, "norm": "batch", **arguments}
    return SSMBackbone(mixer or S5(state_dim=4, dt_min=0.1, dt_max=1.0, seed=0), **arguments)


def make_classifier(mixer=None, pooling="mean", **arguments):
    return SSMClassifier(make_backbone(mixer, **arguments), num_classes=2, pooling=pooling)


@pytest.fixture
def series(rng):
    x = rng.standard_normal((4, 9, 2)).astype("float32")
    return x, np.arange(9)[None] < np.array([[9], [5], [2], [7]])


@pytest.mark.parametrize("pooling", ["mean", "last", "max", "attention", None])
def test_a_sequence_cut_anywhere_goes_on(series, pooling):
    x, mask = series
    model = make_classifier(S4D(state_dim=4, seed=0), pooling)
    if pooling == "attention":
        model.pooler.query.assign([[4.0], [-3.0], [2.0], [-1.0]])
    expected, final = model({"inputs": x, "padding_mask": mask}, return_state=True)
    state = model.get_initial_state(4)
    pieces = []
    for part in (slice(0, 3), slice(3, 4), slice(4, 9)):
        inputs = {"inputs": x[:, part], "padding_mask": mask[:, part]}
        y, state = model(inputs, initial_state=state, return_state=True)
        pieces.append(to_numpy(y))
    y = np.concatenate(pieces, axis=1)[mask] if pooling is None else pieces[-1]
    whole = to_numpy(model({"inputs": x, "padding_mask": mask}))
    for outputs in (to_numpy(expected), whole):
        assert relative_error(y, outputs[mask] if pooling is None else outputs) < 1e-5
    for parts in zip(*(keras.tree.flatten_with_path(s) for s in (state, final)), strict=True):
        (path, a), (_, b) = parts
        assert path == ("rest",) or relative_error(a, to_numpy(b)) < 1e-5, path
    # Single steps go on from there, and lead there; a state may have been kept by NumPy.
    state = keras.tree.map_structure(to_numpy, model(x[:, :3], return_state=True)[1])
    state = model(x[:, 3:6], initial_state=state, return_state=True)[1]
    for t in range(6, 9):
        logits, state = model.step(x[:, t], state)
    outputs = to_numpy(model(x))
    assert relative_error(logits, outputs[:, -1] if pooling is None else outputs) < 1e-5
    start = model.step(x[:, 0], model.get_initial_state(4))[1]
    went_on = to_numpy(model(x[:, 1:], initial_state=start))
    assert relative_error(went_on, outputs[:, 1:] if pooling is None else outputs) < 1e-5


def test_states_as_symbols_and_where_there_are_none(series):
    x = series[0]
    backbone = make_backbone()
    y, states = backbone(keras.Input((None, 2)), return_state=True)
    assert y.shape == (None, None, 4) and [s.shape for s in states] == [(None, 4)] * 2
    for mixer in (S4D(state_dim=4, bidirectional=True), DSS(state_dim=4)):
        model = make_classifier(mixer)
        for part in (model, model.backbone):
            with pytest.raises(ValueError, match="state"):
                part(x, return_state=True)
    with pytest.raises(ValueError, match="2 layers"):
        backbone(x, initial_state=states[:1])
    with pytest.raises(ValueError, match="get_initial_state"):
        make_classifier()(x, initial_state=states)
    with pytest.raises(ValueError, match="carries no states"):
        SSMPairClassifier(backbone, 2)(np.stack([x, x], 1), return_state=True)


def test_states_go_through_functional_models(series, tmp_path):
    x = series[0]
    backbone = make_backbone()
    first, second = keras.Input((None, 2)), keras.Input((None, 2))
    start = backbone(first, return_state=True)[1]
    y, states = backbone(second, initial_state=start, return_state=True)
    model = keras.Model([first, second], [y, *states])
    model.save(tmp_path / "outer.keras")
    reloaded = keras.models.load_model(tmp_path / "outer.keras")
    expected, final = backbone(x, return_state=True)
    for outer in (model, reloaded):
        outputs = outer.predict([x[:, :4], x[:, 4:]], verbose=0)
        assert relative_error(outputs[0], to_numpy(expected)[:, 4:]) < 1e-5
        assert relative_error(outputs[1], final[0]) < 1e-5
    assert len(reloaded.weights) == len(backbone.weights)


def test_a_series_and_its_subsampled_form_agree(rng):
    """Steps over which the input holds are one step that is as long."""
    times = rng.integers(1, 4, (3, 6)).astype("float32")
    coarse = rng.standard_normal((3, 6, 2)).astype("float32")
    fine = [np.repeat(row, n.astype(int), axis=0) for row, n in zip(coarse, times, strict=True)]
    model = make_classifier(pooling="last", num_layers=1)
    expected = model.predict(fine, verbose=0)
    together = {"inputs": coarse, "timesteps": times}
    assert relative_error(model.predict(together, verbose=0), expected) < 1e-5
    assert relative_error(model.predict(coarse, verbose=0), expected) > 1e-3
    # Time steps of 1 change nothing, and those of 2 are a step_scale of 2.
    ones = model.predict({"inputs": coarse, "timesteps": np.ones((3, 6))}, verbose=0)
    assert relative_error(ones, model.predict(coarse, verbose=0)) < 1e-5
    twos = model.predict({"inputs": coarse, "timesteps": 2 * np.ones((3, 6))}, verbose=0)
    # In pieces cut anywhere, and in single steps.
    state = model({k: v[:, :4] for k, v in together.items()}, return_state=True)[1]
    for t in (4, 5):
        y, state = model.step(coarse[:, t], state, timesteps=times[:, t])
    assert relative_error(y, expected) < 1e-5
    model.step_scale = 2.0
    assert relative_error(twos, model.predict(coarse, verbose=0)) < 1e-5
    # Both factors count.
    model.step_scale = 0.5
    both = model.predict({"inputs": coarse, "timesteps": 2 * np.ones((3, 6))}, verbose=0)
    assert relative_error(both, ones) < 1e-5 < relative_error(both, twos)


@pytest.mark.everywhere
@pytest.mark.parametrize("pair", [False, pytest.param(True, marks=pytest.mark.once("torch"))])
def test_irregular_series_train_and_padding_does_not_matter(series, pair):
    import tensorflow as tf

    x, mask = series
    times = np.random.default_rng(1).uniform(0.5, 2.0, (4, 9)).astype("float32")
    y, lengths = np.arange(4) % 2, mask.sum(axis=1)
    x = np.where(mask[..., None], x, 0.0).astype("float32")
    rows = [row[:n] for row, n in zip(x, lengths, strict=True)]
    row_times = [row[:n] for row, n in zip(times, lengths, strict=True)]
    junk = [np.where(mask, times, value) for value in (np.nan, 0.0, -7.0, 1e30)]
    ragged = [tf.ragged.stack([tf.constant(r) for r in part]) for part in (rows, row_times)]
    if pair:
        x, mask, times = (np.stack([a, a[::-1]], 1) for a in (x, mask, times))
        junk = [np.stack([a, a[::-1]], 1) for a in junk]
        rows, row_times = (list(zip(a, a[::-1], strict=True)) for a in (rows, row_times))
    backbone = make_backbone(num_layers=1)
    model = (SSMPairClassifier if pair else SSMClassifier)(backbone, num_classes=2)
    model.compile("sgd", run_eagerly=keras.config.backend() == "tensorflow")
    first = {"inputs": x, "padding_mask": mask, "timesteps": times}
    model.fit(first, y, verbose=0)
    expected = model.predict(first, verbose=0)
    without = model.predict({"inputs": x, "padding_mask": mask}, verbose=0)
    assert np.isfinite(expected).all() and relative_error(without, expected) > 1e-3
    ways = [{**first, "timesteps": other} for other in junk]
    ways.append({"inputs": rows, "timesteps": row_times})
    ways.append(tf.data.Dataset.from_tensor_slices({**first, "timesteps": junk[0]}).batch(4))
    if not pair:
        slices = dict(zip(("inputs", "timesteps"), ragged, strict=True))
        ways.append(tf.data.Dataset.from_tensor_slices(slices).batch(4))
    for data in ways:
        assert relative_error(model.predict(data, verbose=0), expected) < 1e-5
    weights = [to_numpy(w).copy() for w in model.trainable_variables]
    model.fit({**first, "timesteps": junk[0]}, y, verbose=0)
    new = [to_numpy(w) for w in model.trainable_variables]
    assert all(np.isfinite(w).all() for w in new)
    assert any((a != b).any() for a, b in zip(weights, new, strict=True))


def test_timesteps_that_cannot_be_are_refused(series):
    x, mask = series
    times = np.ones((4, 9), "float32")
    for model in (make_classifier(S4D(state_dim=4)), make_backbone(S4D(state_dim=4))):
        with pytest.raises(ValueError, match="mixer S4D"):
            model.predict({"inputs": x, "timesteps": times}, verbose=0)
    model = make_classifier()
    wrong = times.copy()
    wrong[2, 3] = 0.0
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        model.predict({"inputs": x, "timesteps": wrong}, verbose=0)
    with pytest.raises(ValueError, match="timesteps"):
        model.predict({"inputs": x, "timesteps": times[:, :5]}, verbose=0)
    with pytest.raises(ValueError, match="timesteps"):
        model.predict({"inputs": list(x), "timesteps": list(times[:3])}, verbose=0)
    layer = S5(state_dim=4)
    y = layer(x, mask=mask, timesteps=np.where(mask, times, np.nan))
    assert np.isfinite(to_numpy(y)).all() and ops.shape(y) == (4, 9, 2)


def test_the_preprocessor_cuts_timesteps_with_the_sequence(series):
    x = series[0]
    preprocess = make_classifier().preprocessor_cls(sequence_length=6)
    times = np.arange(1.0, 37.0).reshape(4, 9)
    for inputs, steps in ((x, times), (list(x), list(times))):
        cut = preprocess({"inputs": inputs, "timesteps": steps})
        assert (cut["timesteps"] == times[:, :6]).all()
    longer = preprocess({"inputs": [x[0, :3], x[1]], "timesteps": [times[0, :3], times[1]]})
    assert longer["timesteps"].tolist() == [[1, 2, 3, 1, 1, 1], [10, 11, 12, 13, 14, 15]]


@pytest.mark.parametrize("wrong", [np.nan, -1.0])
def test_timesteps_of_tf_data_are_checked(series, wrong):
    import tensorflow as tf

    x, mask = series
    timesteps = np.ones(mask.shape, "float32")
    timesteps[1, 2] = wrong
    model = make_classifier(num_layers=1)
    inputs = {"inputs": x, "timesteps": timesteps, "padding_mask": mask}
    dataset = tf.data.Dataset.from_tensor_slices((inputs, np.arange(4) % 2)).batch(4)
    for run in (model.fit, model.predict):
        with pytest.raises(ValueError, match=r"`timesteps` must be.*\(row, step\) = \(1, 2\)"):
            run(dataset, verbose=0)


@pytest.mark.only("torch")
def test_a_stream_keeps_nothing_for_gradients():
    model = make_classifier()
    _, state = model.step(np.zeros((4, 2), "float32"), model.get_initial_state(4))
    assert not any(x.requires_grad for x in keras.tree.flatten(state))


@pytest.mark.once("torch")
@pytest.mark.parametrize("token", [-1, 5])
def test_a_step_refuses_tokens_past_the_table(token):
    backbone = SSMBackbone(S4D(4), num_layers=1, hidden_dim=4, vocabulary_size=5)
    with pytest.raises(ValueError, match="`token_ids` must lie from 0 to 4"):
        backbone.step(np.array([token]), backbone.get_initial_state(1))


@pytest.mark.parametrize("kind", ["int8", "mixed_bfloat16"])
def test_a_step_leaves_to_keras_what_a_plain_layer_cannot(kind, rng):
    dtype = "mixed_bfloat16" if kind == "mixed_bfloat16" else None
    mixer = Mamba(state_dim=2, expand=1)
    model = make_classifier(mixer, pooling=None, num_layers=1, dtype=dtype)
    x = rng.normal(size=(2, 3, 2)).astype("float32")
    if kind == "int8":
        model.quantize("int8")
    state, outputs = model.get_initial_state(2), []
    for t in range(3):
        y, state = model.step(x[:, t], state)
        outputs.append(to_numpy(ops.cast(y, "float32")))
    whole = to_numpy(ops.cast(model({"inputs": x}), "float32"))
    assert relative_error(np.stack(outputs, axis=1), whole) < 1e-3
