"""Data of every kind takes one road: covered values, loaders, per-step targets and weights."""

import importlib.util

import keras
import numpy as np
import pytest

from keras_ssm.layers import DSS, S4, S4D, S4PTD, S5, S5PTD, ScalarNormalization, SSMBlock
from keras_ssm.models import (
    SequencePreprocessor,
    SSMBackbone,
    SSMClassifier,
    SSMPairClassifier,
)
from tests.backend_tools import BACKEND, gradients, relative_error, to_numpy

ONCE = pytestmark = pytest.mark.once("torch")

LENGTHS = np.array([8, 5, 1, 7])
MASK = np.arange(8) < LENGTHS[:, None]
SYSTEMS = {"S4D": S4D, "S4": S4, "DSS": DSS, "S5": S5, "S4PTD": S4PTD, "S5PTD": S5PTD}
WEIGHTS = {0: 1.0, 1: 5.0, 2: 0.5}


@pytest.fixture
def series(rng):
    return rng.standard_normal((4, 8, 2)).astype("float32"), rng.integers(3, size=(4, 8))


def make_model(pooling="mean", preprocessor=None, task=SSMClassifier, mixer=None, **arguments):
    keras.utils.set_random_seed(0)
    arguments = {"num_layers": 1, "hidden_dim": 4, "input_dim": 2, **arguments}
    backbone = SSMBackbone(mixer or S4D(state_dim=4, seed=0), **arguments)
    model = task(backbone, 3, preprocessor=preprocessor, pooling=pooling)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=BACKEND == "tensorflow")
    return model


def padded_with(x, mask, value):
    return np.where(mask.reshape(*mask.shape, *[1] * (x.ndim - mask.ndim)), x, value).astype(
        x.dtype
    )


def trained(model, x, y, **kwargs):
    """Loss and weights after a step of `fit`; the model is left as it was."""
    before = model.get_weights()
    loss = model.fit(x, y, shuffle=False, verbose=0, **kwargs).history["loss"][0]
    after = model.get_weights()
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
    model.set_weights(before)
    return [np.array(loss), *after]


def assert_equal(found, expected, tolerance=1e-6):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# Steps that a mask covers


@pytest.mark.everywhere
@pytest.mark.parametrize(
    ("system", "bidirectional"),
    [
        ("S4D", False),
        *(pytest.param(*pair, marks=ONCE) for pair in [("S4", False), ("DSS", True), ("S5", True)]),
    ],
)
def test_gradients_of_a_block_do_not_see_what_a_mask_covers(series, system, bidirectional):
    x = np.concatenate([series[0]] * 2, -1)
    mixer = SYSTEMS[system](state_dim=8, seed=0, bidirectional=bidirectional)
    prenorm = "scalar" if bidirectional else "layer"
    block = SSMBlock(mixer, norm=prenorm, prenorm=bidirectional)
    block.build(x.shape)

    def loss(x):
        y = keras.ops.where(MASK[..., None], block(x, mask=keras.ops.convert_to_tensor(MASK)), 0.0)
        return keras.ops.sum(y * y)

    covered = np.array([np.nan, np.inf, 1e38, -1e38])
    expected, found = (
        gradients(loss, block, padded_with(x, MASK, value), compile="loops")
        for value in (0.0, covered)
    )
    assert np.isfinite(found[0]) and (found[2][0] == expected[2][0]).all()
    assert all((found[1][name] == expected[1][name]).all() for name in expected[1])


@pytest.mark.everywhere
@pytest.mark.parametrize(
    "arguments",
    [
        {"prenorm": True, "norm": "batch", "final_norm": "scalar"},
        pytest.param(
            {"prenorm": True, "norm": "scalar", "pooling": "last", "mixer": S5(state_dim=4)},
            marks=ONCE,
        ),
        pytest.param({"norm": None, "pooling": None}, marks=ONCE),
        pytest.param({"task": SSMPairClassifier, "norm": "batch"}, marks=ONCE),
    ],
    ids=["batch", "scalar", "steps", "pair"],
)
def test_fit_does_not_see_what_a_mask_covers(series, arguments):
    x, y = series
    mask = MASK
    if "task" in arguments:
        x, mask = np.stack([x, x[:, ::-1]], 1), np.stack([MASK, MASK[::-1]], 1)
    y = y if arguments.get("pooling", "mean") is None else y[:, 0]
    model = make_model(**arguments)
    results = [
        trained(model, {"inputs": padded_with(x, mask, value), "padding_mask": mask}, y)
        for value in (0.0, np.nan, np.inf, 1e38)
    ]
    assert all(np.isfinite(part).all() for part in results[0])
    for found in results[1:]:
        assert_equal(found, results[0], 0)


def test_a_backbone_and_streams_do_not_see_what_a_mask_covers(series):
    import tensorflow as tf

    x, target = series[0], np.random.default_rng(1).standard_normal((4, 8, 4)).astype("float32")
    backbone = make_model().backbone
    backbone.compile("sgd", "mse", run_eagerly=BACKEND == "tensorflow")
    results = []
    for inputs, labels in ((0.0, 0.0), (np.nan, np.inf)):
        data = {"inputs": padded_with(x, MASK, inputs), "padding_mask": MASK}
        given = (data, padded_with(target, MASK, labels))
        results.append(trained(backbone, *given))
        results.append(trained(backbone, tf.data.Dataset.from_tensor_slices(given).batch(4), None))
    predicted = to_numpy(backbone({"inputs": x, "padding_mask": MASK}))
    by_hand = (((predicted - target) ** 2).mean(-1) * MASK).sum() / MASK.sum()
    assert abs(results[0][0] - by_hand) < 1e-5
    for found in results[1:]:
        assert_equal(found, results[0])


def test_token_ids_under_a_mask_may_be_anything(rng):
    ids = rng.integers(10, size=(4, 8))
    model = make_model(vocabulary_size=10, encoder="one_hot")
    for covered in (0, -1, 10, 2**40 + 3):
        data = {"token_ids": padded_with(ids, MASK, covered), "padding_mask": MASK}
        found = trained(model, data, ids[:, 0] % 3)
        if covered == 0:
            expected = found
        else:
            assert_equal(found, expected, 0)
            with pytest.raises(ValueError, match="from 0 to 9"):  # not under the mask
                model.predict(data["token_ids"], verbose=0)


def test_timesteps_under_a_mask_may_be_anything(series):
    layer, steps = S5(state_dim=4, seed=0), np.ones((4, 8), "float32")
    layer.build((None, None, 2))
    mask = keras.ops.convert_to_tensor(MASK)

    def loss(x, timesteps):
        return keras.ops.sum(layer(x, mask=mask, timesteps=timesteps) ** 2)

    expected = gradients(loss, layer, series[0], steps)
    found = gradients(loss, layer, series[0], padded_with(steps, MASK, np.nan))
    assert found[0] == expected[0]
    assert all((found[1][name] == expected[1][name]).all() for name in expected[1])


@pytest.mark.everywhere
def test_what_the_model_reads_must_be_finite(series):
    import tensorflow as tf

    x, y = series[0].copy(), series[1][:, 0]
    x[3, 7] = np.nan  # covered
    x[1, 2, 1] = np.inf
    model = make_model()
    before = [to_numpy(v) for v in model.trainable_variables]
    data = {"inputs": x, "padding_mask": MASK}
    rows = [row[:n] for row, n in zip(x, LENGTHS, strict=True)]
    place = "inf at row 1, step 2, feature 1, and 1 such value in all"
    stream = tf.data.Dataset.from_tensor_slices((data, y)).batch(2)
    for given in ((data, y), (rows, y), (stream,), (((data, y) for _ in range(2)),)):
        with pytest.raises(ValueError, match=place):
            model.fit(*given, verbose=0)
    with pytest.raises(ValueError, match=place):
        model.fit(series[0], y, validation_data=(data, y), verbose=0)
    with pytest.raises(ValueError, match=place):
        model.evaluate(data, y, verbose=0)
    assert_equal([to_numpy(v) for v in model.trainable_variables], before, 0)
    x[1, 2, 1] = np.nan
    predicted = model.predict(data, verbose=0)
    assert np.isnan(predicted).any(-1).tolist() == [False, True, False, False]

    reads = make_model(mask_inputs=False)
    x[1, 2, 1] = 0.0
    model.fit(data, y, verbose=0)
    with pytest.raises(ValueError, match="row 3, step 7, feature 0, and 2"):
        reads.fit(data, y, verbose=0)


def test_allow_nan_reads_missing_values_as_zero(series):
    import tensorflow as tf

    x, y = series[0].copy(), series[1][:, 0]
    x[1, 2, 1], filled = np.nan, x.copy()
    filled[1, 2, 1] = 0.0
    preprocessor = SequencePreprocessor(scale=0.5, allow_nan=True)
    preprocessor = SequencePreprocessor.from_config(preprocessor.get_config())
    model = make_model(preprocessor=preprocessor)
    expected = trained(model, filled, y)
    assert_equal(trained(model, x, y), expected, 0)
    stream = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    assert_equal(trained(model, stream, None), expected)
    x[1, 2, 1] = np.inf
    with pytest.raises(ValueError, match="must be finite"):
        model.fit(x, y, verbose=0)


# Streams


class Rows(keras.utils.PyDataset):
    """Two batches of two rows each, of different lengths."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


class Loader:
    """An iterable of another library: no length, read anew every epoch."""

    def __init__(self, batches):
        self.batches, self.epochs = batches, 0

    def __iter__(self):
        self.epochs += 1
        return iter(self.batches)


def streams(batches):
    """The same batches of every kind that is no array."""
    yield Rows(batches)
    yield Loader(batches)
    yield (batch for batch in batches)
    yield map(tuple, batches)
    if BACKEND == "torch":
        import torch

        rows = [(x, y) for xs, ys in batches for x, y in zip(xs, ys, strict=True)]
        yield torch.utils.data.DataLoader(
            rows, batch_size=1, collate_fn=lambda batch: tuple(map(list, zip(*batch, strict=True)))
        )


def test_every_stream_is_preprocessed_and_checked(series):
    x, y = series[0] * 16, series[1][:, 0]
    rows = [row[:n] for row, n in zip(x, [8, 8, 5, 5], strict=True)]
    batches = [(rows[i : i + 1], list(y[i : i + 1])) for i in range(4)]
    model = make_model(preprocessor=SequencePreprocessor(scale=1 / 16))
    scores = model.evaluate(rows, y, batch_size=1, verbose=0)
    assert (
        relative_error(model.predict(Loader(batches), verbose=0), model.predict(rows, verbose=0))
        < 1e-5
    )
    for stream in streams(batches):
        assert_equal(model.evaluate(stream, verbose=0), scores, 1e-5)
    wrong = [*batches[:3], (rows[3:], [3])]
    for stream in streams(wrong):
        with pytest.raises(ValueError, match="labels from 0 to 2"):
            model.evaluate(stream, verbose=0)
    loader = Loader(batches)
    history = model.fit(loader, epochs=2, validation_data=loader, verbose=0).history
    assert np.isfinite(history["val_loss"]).all() and len(history["loss"]) == 2
    assert history["loss"][1] != history["loss"][0]


if importlib.util.find_spec("grain") is not None:

    def test_loaders_of_grain_are_preprocessed(series):
        import grain

        x, y = np.round(series[0] * 16).astype("int16"), series[1][:, 0].astype("int32")
        model, other = (make_model(preprocessor=SequencePreprocessor(scale=1 / 16)) for _ in "ab")
        rows = grain.MapDataset.source([*zip(x, y, strict=True)])
        for loader in (rows.batch(2), rows.batch(2).to_iter_dataset()):
            scores = [
                model.evaluate(loader, verbose=0),
                other.evaluate(x, y, batch_size=2, verbose=0),
            ]
            assert_equal(*scores, 1e-5)
            found = model.predict(loader, verbose=0)
            assert relative_error(found, other.predict(x, verbose=0)) < 1e-5
            model.fit(loader, epochs=2, verbose=0)
            other.fit(x, y, batch_size=2, epochs=2, shuffle=False, verbose=0)
            assert relative_error(model.head.kernel, to_numpy(other.head.kernel)) < 1e-5


def test_what_is_no_data_is_refused(series):
    model = make_model()
    rows = list(series[0])
    for given, match in (
        ((7, series[1]), "iterable of batches"),
        ((iter([]),), "at least one batch"),
        ((Loader([rows]),), "4 entries"),
        ((Loader([(series[0],)]),), r"must be \(x, y\)"),
        ((Loader([series]), series[1]), "pass `x` alone"),
        (([series],), "targets of `x`"),
    ):
        with pytest.raises(ValueError, match=match):
            model.fit(*given, verbose=0)
    with pytest.raises(ValueError, match=r"sample_weight.shape=\(4, 2\)"):
        model.fit(series[0], series[1][:, 0], sample_weight=np.ones((4, 2)), verbose=0)


def test_tf_data_without_rank_or_batches_is_refused(series):
    import tensorflow as tf

    x, y = series[0], series[1][:, 0]
    rows = tf.data.Dataset.from_tensor_slices((x, y))
    unknown = tf.data.Dataset.from_generator(
        lambda: zip(x, y, strict=True), output_types=(tf.float32, tf.int64)
    )
    model = make_model()
    for dataset, advice in (
        (unknown.batch(4), "output_signature"),
        (rows, ".batch"),
        (rows.map(lambda x, y: x), ".batch"),
        (rows.map(lambda x, y: ({"inputs": x}, y)), ".batch"),
    ):
        with pytest.raises(ValueError, match=advice):
            model.evaluate(dataset, verbose=0)
    tokens = make_model(vocabulary_size=256)
    with pytest.raises(ValueError, match=r"\.batch"):
        tokens.predict(tf.data.Dataset.from_tensor_slices(["a", "b"]), verbose=0)


# Targets and weights for every step


def by_hand(logits, y, weights, valid):
    """Mean over the valid steps of the weighted cross-entropies, and their accuracy."""
    logits = logits.astype("float64")
    log_sum = np.log(np.exp(logits).sum(-1))
    losses = log_sum - np.take_along_axis(logits, np.where(valid, y, 0)[..., None], -1)[..., 0]
    accuracy = ((logits.argmax(-1) == y) & valid).sum() / valid.sum()
    return (losses * weights * valid).sum() / valid.sum(), accuracy


def kinds(x, y, weights):
    """The same ragged rows with labels and weights for every step, in every kind of data."""
    cut = lambda a: [row[:n] for row, n in zip(a, LENGTHS, strict=True)]
    parts = (y,) if weights is None else (y, weights)
    arrays = ({"inputs": padded_with(x, MASK, np.nan), "padding_mask": MASK}, *parts)
    lists = (cut(x), *(a if a.ndim == 1 else cut(a) for a in parts))
    yield "arrays", arrays
    yield "lists", lists
    yield "generator", (batch for batch in [lists])
    yield "loader", Loader([lists])
    yield "PyDataset", Rows([arrays])
    if importlib.util.find_spec("tensorflow") is None:  # as on a GPU machine
        return
    import tensorflow as tf

    ragged = tuple(
        tf.ragged.constant([r.tolist() for r in cut(a)], ragged_rank=1) if a.ndim > 1 else a
        for a in (x.astype("float64"), *parts)
    )
    yield "tf.data", tf.data.Dataset.from_tensor_slices(arrays).batch(4)
    yield "ragged tf.data", tf.data.Dataset.from_tensor_slices(ragged).batch(4)


@pytest.mark.everywhere
def test_steps_are_weighed_and_padding_counts_for_nothing(series, rng):
    x, y = series
    y = np.where(MASK, y, -1)
    rows = np.array([1.0, 0.0, 3.0, 0.5], "float32")
    steps = rng.random((4, 8)).astype("float32")
    classes = np.vectorize(WEIGHTS.get)(np.where(MASK, y, 0))
    model = make_model(pooling=None)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=BACKEND == "tensorflow")
    logits = model.predict({"inputs": x, "padding_mask": MASK}, verbose=0)
    for given, weights in ((None, 1.0), (WEIGHTS, classes), (rows, rows[:, None]), (steps, steps)):
        loss, accuracy = by_hand(logits, y, weights, MASK)
        weighs = isinstance(given, np.ndarray)
        for kind, data in kinds(x, y, given if weighs else None):
            arguments = {} if weighs else {"class_weight": given}
            data = data if isinstance(data, tuple) else (data,)
            if len(data) == 3:
                arguments["sample_weight"], data = data[2], data[:2]
            history = model.fit(*data, batch_size=4, shuffle=False, verbose=0, **arguments).history
            assert abs(history["loss"][0] - loss) < 1e-5, kind
            assert abs(history["accuracy"][0] - accuracy) < 1e-6, kind


def test_an_ignored_class_counts_for_nothing(series):
    x, y = series
    y = np.where(np.arange(8) % 2, y, -100)
    model = make_model(pooling=None)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100)
    model.compile(keras.optimizers.SGD(0.0), loss, run_eagerly=BACKEND == "tensorflow")
    rows = [row[:n] for row, n in zip(x, LENGTHS, strict=True)]
    labels = [row[:n] for row, n in zip(y, LENGTHS, strict=True)]
    logits = model.predict(rows, verbose=0)
    valid = MASK & (y != -100)
    expected = by_hand(logits, y, 1.0, valid)
    assert_equal(model.evaluate(rows, labels, verbose=0), expected, 1e-5)
    weights = np.vectorize(lambda label: WEIGHTS.get(label, 1.0))(y)
    found = model.fit(rows, labels, class_weight=WEIGHTS, verbose=0).history["loss"][0]
    assert abs(found - by_hand(logits, y, weights, valid)[0]) < 1e-5


def share_of_ones(y, outputs):
    return keras.ops.cast(keras.ops.reshape(y, (-1, outputs.shape[1])) == 1, "float32")


@pytest.mark.everywhere
def test_metrics_of_every_kind_leave_out_padding_and_what_is_ignored(series):
    """Some of Keras' know no masks, and 4 rows of 4 steps could be taken for each other."""
    from sklearn.metrics import f1_score, precision_score, roc_auc_score

    x, mask = series[0][:, :4], MASK[:, :4]
    y = np.array([[0, 1, 1, -1], [1, 1, 0, 0], [1, -1, 0, 9], [0, 0, 1, 1]])
    inputs, weights = {"inputs": x, "padding_mask": mask}, np.arange(1.0, 17).reshape(4, 4)
    sparse = make_model(pooling=None)
    sparse.compile(
        "sgd",
        metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top")],
        weighted_metrics=[keras.metrics.MeanIoU(3, sparse_y_pred=False, name="iou")],
        ignore_class=-1,
        run_eagerly=BACKEND == "tensorflow",
    )
    y9 = np.where(y == 9, 2, y)
    logits = sparse.predict(inputs, verbose=0)
    kept = mask & (y9 >= 0)
    found = sparse.evaluate(inputs, y9, sample_weight=weights, verbose=0, return_dict=True)
    order = logits.argsort(-1)[kept]
    assert abs(found["accuracy"] - (order[:, -1] == y9[kept]).mean()) < 1e-6
    assert abs(found["top"] - (order[:, 1:] == y9[kept][:, None]).any(-1).mean()) < 1e-6
    table = np.zeros((3, 3))
    np.add.at(table, (y9[kept], order[:, -1]), weights[kept])
    sums = table.sum(0) + table.sum(1)
    iou = (table.diagonal() / np.maximum(sums - table.diagonal(), 1e-9))[sums > 0].mean()
    assert abs(found["iou"] - iou) < 1e-6
    assert abs(found["loss"] - by_hand(logits, y9, weights, kept)[0]) < 1e-4

    keras.utils.set_random_seed(0)
    backbone = SSMBackbone(S4D(state_dim=4, seed=0), 1, hidden_dim=4, input_dim=2)
    binary = SSMClassifier(backbone, 1, pooling=None)
    metrics = [
        "accuracy",
        keras.metrics.Precision(thresholds=0.0, name="precision"),
        keras.metrics.AUC(from_logits=True, num_thresholds=2000, name="auc"),
        keras.metrics.F1Score(threshold=1e-6, name="f1"),
        share_of_ones,
    ]
    binary.compile("sgd", "bce", metrics=metrics, run_eagerly=BACKEND == "tensorflow")
    y = np.where(y == 1, 1, 0)
    score = binary.predict(inputs, verbose=0)[..., 0]
    guess, truth = score[mask] > 0, y[mask]
    loss = np.log1p(np.exp(-np.where(truth == 1, 1, -1) * score[mask])).mean()
    expected = {
        "loss": loss,
        "accuracy": (guess == truth).mean(),
        "precision": precision_score(truth, guess, zero_division=0),
        "auc": roc_auc_score(truth, score[mask]),
        "f1": f1_score(truth, guess),
        "share_of_ones": truth.mean(),
    }
    for labels in (y, y[..., None]):
        found = binary.evaluate(inputs, labels, verbose=0, return_dict=True)
        for name, value in expected.items():
            assert abs(found[name] - value) < (2e-3 if name == "auc" else 1e-5), name
            padded = binary.evaluate(
                {"inputs": padded_with(x, mask, np.nan), "padding_mask": mask},
                np.where(mask, labels.reshape(4, 4), 1),
                verbose=0,
                return_dict=True,
            )
            assert padded == found


@pytest.mark.once("torch")
def test_classes_that_are_ignored_or_weighed_must_be_some(series):
    x = series[0]
    model = make_model()
    model.compile("sgd", ignore_class=-1)
    rows = np.array([0, -1, 2, -1])
    found = model.evaluate(x, rows, verbose=0)
    np.testing.assert_allclose(found, model.evaluate(x[::2], rows[::2], verbose=0), rtol=1e-5)
    assert all(np.isfinite(model.evaluate(x, np.full(4, -1), verbose=0)))
    for arguments, match in (
        ({"loss": "categorical_crossentropy", "ignore_class": 0}, "goes with the loss 'sparse"),
        ({"loss": keras.losses.MeanSquaredError(), "ignore_class": 0}, "goes with the loss"),
        ({"ignore_class": 1.5}, "whole number. Received: ignore_class=1.5"),
    ):
        with pytest.raises(ValueError, match=match):
            model.compile("sgd", **arguments)
    model.compile("sgd", "binary_crossentropy")
    several = np.array([[1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match="no one-hot rows"):
        model.fit(x, several, class_weight={0: 2.0}, verbose=0)
    with pytest.raises(ValueError, match=r"classes of numbers as keys. Received: 'rest'"):
        model.fit(x, np.eye(3)[[0, 1, 2, 1]], class_weight={"rest": 2.0}, verbose=0)


def test_labels_follow_what_the_preprocessor_cuts_and_pads(series):
    x, y = series
    for length in (6, 11):
        preprocessor = SequencePreprocessor(sequence_length=length)
        model = make_model(pooling=None, preprocessor=preprocessor)
        logits = model.predict(x, verbose=0)[:, : min(length, 8)]
        expected = by_hand(logits, y[:, :length], 1.0, np.ones(logits.shape[:2], bool))
        assert_equal(model.evaluate(x, y, verbose=0), expected, 1e-5)
        assert_equal(model.evaluate(list(x), list(y), verbose=0), expected, 1e-5)


def test_class_weights_leave_the_validation_part_alone(series):
    x, y = series
    model = make_model(pooling=None)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=BACKEND == "tensorflow")
    history = model.fit(x, y, validation_split=0.5, class_weight=WEIGHTS, verbose=0).history
    assert abs(history["val_loss"][0] - model.evaluate(x[2:], y[2:], verbose=0)[0]) < 1e-6
    right = model.evaluate(x[:2], y[:2], sample_weight=np.vectorize(WEIGHTS.get)(y[:2]), verbose=0)
    assert abs(history["loss"][0] - right[0]) < 1e-6


def test_class_weights_read_rows_of_ones_and_zeros(series):
    x, y = series[0], np.array([0, 1, 2, 1])
    model = make_model()
    expected = trained(model, x, y, class_weight=WEIGHTS)
    model.compile(
        keras.optimizers.SGD(0.1), "categorical_crossentropy", run_eagerly=BACKEND == "tensorflow"
    )
    assert_equal(trained(model, x, np.eye(3)[y], class_weight=WEIGHTS), expected)


def test_weights_of_rows_have_one_meaning(series):
    """A class that is not named weighs 1, as in Keras, and a column is a row of weights."""
    x, y = series[0], np.array([0, 1, 2, 1])
    rows = np.array([1.0, 5.0, 1.0, 5.0], "float32")
    model = make_model()
    expected = trained(model, x, y, sample_weight=rows)
    assert_equal(trained(model, x, y, sample_weight=rows[:, None]), expected)
    assert_equal(trained(model, x, y, class_weight={1: 5.0}), expected)


@pytest.mark.once("torch")
def test_errors_name_the_row_and_leave_the_data_out(rng):
    """Keras would print the arguments of a call, of lists every number."""
    model = make_model()
    rows = [rng.normal(size=(9, 2)) for _ in range(50)]
    for change, received in (
        (rng.normal(size=(9, 3)), "2 features in row 0, 3 in row 7"),
        (np.zeros((0, 2)), "no step in row 7"),
        (np.array(["a"] * 9), "shape (9,), dtype <U1"),
    ):
        x = [*rows[:7], change, *rows[8:]]
        for run in (lambda x: model.fit(x, np.zeros(50, int), verbose=0), model.preprocessor):
            with pytest.raises(ValueError) as refused:
                run(x)
            assert str(refused.value).endswith(f"Received: {received}")
            assert len(str(refused.value)) < 300


@pytest.mark.once("torch")
def test_errors_of_labels_say_what_helps(series):
    x, y = series[0], np.array(["no", "yes", "no", "no"])
    with pytest.raises(ValueError, match=r"np.unique.*Received: y.dtype=<U3"):
        make_model().fit(x, y, verbose=0)
    with pytest.raises(ValueError, match=r"loss such as 'mse'.*Received: 0.5 among them"):
        make_model().fit(x, np.array([0.0, 0.5, 1.0, 2.0]), verbose=0)


def test_targets_that_do_not_fit_are_refused(series):
    x, y = series
    model = make_model(pooling=None)
    rows = [row[:n] for row, n in zip(x, LENGTHS, strict=True)]
    labels = [row[:n] for row, n in zip(y, LENGTHS, strict=True)]
    for arguments, match in (
        ((rows, [*labels[:3], labels[3][:-1]]), "Row 3 of `y`"),
        ((rows, labels[:3]), "each of the 4 rows"),
        ((x, y[:, :7]), "8 steps"),
        ((x, y[:, 0]), "8 steps"),
        ((x, y, np.ones((4, 7))), "sample_weight.shape"),
        ((x, y, np.full(4, np.nan)), "finite"),
    ):
        weights = arguments[2] if len(arguments) == 3 else None
        with pytest.raises(ValueError, match=match):
            model.fit(*arguments[:2], sample_weight=weights, verbose=0)
    with pytest.raises(ValueError, match="not both"):
        model.fit(x, y, sample_weight=np.ones(4), class_weight=WEIGHTS, verbose=0)


# Steps, and time


def test_steps_refuse_what_the_preprocessor_would_scale():
    model = make_model(input_dim=1)
    state = model.get_initial_state(2)
    with pytest.raises(ValueError, match="scaled as the preprocessor"):
        model.step(np.zeros((2, 1), "int16"), state)
    tokens = make_model(vocabulary_size=10)
    with pytest.raises(ValueError, match="must be integers"):
        tokens.step(np.zeros(2, "float32"), tokens.get_initial_state(2))
    block = SSMBlock(S4D(state_dim=4))
    block.build((None, None, 2))
    with pytest.raises(ValueError, match="floating point"):
        block.step(np.zeros((2, 2), "int32"), block.get_initial_state(2))
    with pytest.raises(ValueError, match="floating point"):
        block(np.zeros((2, 3, 2), "int32"))


@pytest.mark.everywhere
@pytest.mark.parametrize(
    "system", ["S4D", pytest.param("S4", marks=ONCE), pytest.param("S5", marks=ONCE)]
)
def test_nan_stays_in_its_row_and_out_of_earlier_chunks(rng, system):
    """Chunks have 4 steps, and 16 in GPU kernels: step 16 begins one of either."""
    x = rng.standard_normal((2, 24, 2)).astype("float32")
    layer = SYSTEMS[system](state_dim=4, seed=0, chunk_size=4)
    expected = to_numpy(layer(x))
    x[0, 18, 0] = np.nan
    y = to_numpy(layer(x))
    assert (y[1] == expected[1]).all()
    first = 18 if system == "S5" else 16
    np.testing.assert_allclose(y[0, :first], expected[0, :first], rtol=1e-5, atol=1e-6)
    assert np.isnan(y[0, 18:]).any(-1).all()
    if system != "S5":
        assert np.isfinite(y[0, :, 1]).all()


@pytest.mark.everywhere
def test_a_constant_step_has_a_scalar_norm():
    norm = ScalarNormalization()
    norm.build((None, None, 4))
    x = np.zeros((1, 2, 4), "float32")
    value, weights, inputs = gradients(lambda x: keras.ops.sum(norm(x) ** 2), norm, x)
    assert np.isfinite([value, *weights["gamma"], *weights["beta"]]).all()
    assert np.isfinite(inputs[0]).all()


def test_masks_of_lists_are_lists_and_never_reach_past_a_row(series):
    x, _ = series
    rows = [row[:length] for row, length in zip(x, LENGTHS, strict=True)]
    model = make_model()
    expected = model.predict(rows, verbose=0)
    every = [np.ones(length, bool) for length in LENGTHS]
    for mask in (every, np.ones_like(MASK)):
        found = model.predict({"inputs": rows, "padding_mask": mask}, verbose=0)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"Row 0 of `padding_mask`.*Received"):
        model.predict({"inputs": rows, "padding_mask": [m[:3] for m in every]}, verbose=0)


def test_what_is_no_plain_array_is_refused(series):
    x, y = series[0], np.arange(4) % 3
    model = make_model()
    model.predict(np.ma.array(x, mask=np.zeros(x.shape, bool)), verbose=0)  # nothing is masked
    covered = np.ma.array(x, mask=np.repeat(~MASK[..., None], 2, axis=-1))
    for data in (covered, [(x, y), (x, y)], [{"inputs": x}]):
        with pytest.raises(ValueError, match="Received"):
            model.predict(data, verbose=0)
    with pytest.raises(ValueError, match=r"lists of numbers of one length.*Received"):
        model.backbone.predict([row[:n] for row, n in zip(x, LENGTHS, strict=True)], verbose=0)
    with pytest.raises(ValueError, match=r"`validation_data`.*Received"):
        model.fit(x, y, validation_data=[(x, y)] * 4, verbose=0)


class Noted(keras.utils.PyDataset):
    """Batches of one row, and the order in which they were read."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y, self.read = x, y, []

    @property
    def num_batches(self):
        return 12

    def __getitem__(self, index):
        self.read.append(index)
        return self.x[index % 4 :][:1], self.y[index % 4 :][:1, 0]


def test_a_dataset_of_keras_is_shuffled_as_asked(series):
    model, in_order = make_model(), list(range(12))
    for shuffle in (False, True):
        data = Noted(*series)
        model.fit(data, epochs=2, shuffle=shuffle, verbose=0)
        last = data.read[-12:]
        assert sorted(last) == in_order and (last == in_order) != shuffle


@pytest.mark.everywhere
def test_an_error_inside_training_leaves_a_working_model(series):
    """Also its compiled functions: a graph whose first trace failed does not run again."""
    model, mistakes = make_model(), ["a loss with a mistake"]

    def loss(y_true, y_pred):
        if mistakes:
            raise RuntimeError(mistakes[0])
        return keras.ops.mean(y_pred**2, axis=-1)

    model.compile(loss=loss)  # traced
    with pytest.raises(RuntimeError, match="a loss with a mistake"):
        model.fit(series[0], np.zeros(4), verbose=0)
    mistakes.clear()
    model.fit(series[0], np.zeros(4), verbose=0)  # not compiled anew
    assert np.isfinite(model.predict(series[0], verbose=0)).all()
