"""The classifier: data of every kind, saving, adaptation, streaming."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_ssm
from keras_ssm.layers import DSS, S4, S4D, S5, SSMBlock
from keras_ssm.models import SequencePreprocessor, SSMBackbone, SSMClassifier
from tests.backend_tools import BACKEND, relative_error, to_numpy

pytestmark = pytest.mark.once("torch")

LENGTHS = np.array([12, 7, 9, 12, 3, 10, 8, 11])


def make_model(pooling="mean", preprocessor=None, mixer=None, head_dtype=None, **arguments):
    arguments = {"input_dim": 2, "num_layers": 2, "hidden_dim": 8, **arguments}
    backbone = SSMBackbone(mixer or S4D(state_dim=4, seed=0), **arguments)
    return SSMClassifier(
        backbone, num_classes=3, preprocessor=preprocessor, pooling=pooling, head_dtype=head_dtype
    )


@pytest.fixture
def series(rng):
    x = rng.standard_normal((8, 12, 2)).astype("float32")
    return x, np.arange(8) % 3


def predict(model, x):
    return model.predict(x, verbose=0)


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y, self.epochs = x, y, 0

    def __len__(self):
        return 2

    def __getitem__(self, index):
        rows = slice(4 * index, 4 * index + 4)
        return self.x[rows], self.y[rows]

    def on_epoch_end(self):
        self.epochs += 1


@pytest.mark.eager
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_lists_of_different_lengths_equal_single_rows(series, pooling):
    model = make_model(pooling)
    rows = [x[:n] for x, n in zip(series[0], LENGTHS, strict=True)]
    together = predict(model, rows)
    single = np.concatenate([predict(model, row[None]) for row in rows])
    assert relative_error(together, single) < 1e-5
    padded = np.where(np.arange(12)[None, :, None] < LENGTHS[:, None, None], series[0], 9.0)
    mask = np.arange(12)[None] < LENGTHS[:, None]
    masked = predict(model, {"inputs": padded, "padding_mask": mask})
    assert relative_error(masked, together) < 1e-5


def test_every_kind_of_data_trains_and_predicts(series):
    x, y = series
    rows = [row[:n] for row, n in zip(x, LENGTHS, strict=True)]
    model = make_model(dropout=0.1)
    expected = predict(model, x)
    assert relative_error(predict(model, {"inputs": x}), expected) == 0
    assert relative_error(predict(model, Batches(x, y)), expected) < 1e-6

    def fit(*data, **settings):
        before = model.get_weights()
        model.fit(*data, verbose=0, **settings)
        moved = [(a != b).any() for a, b in zip(model.get_weights(), before, strict=True)]
        assert sum(moved) == len(model.trainable_variables)

    fit(x, y, epochs=2, validation_split=0.25)
    fit(list(x), list(y), validation_data=(rows, y))
    fit(rows, y, sample_weight=np.ones(8), batch_size=3)
    batches = Batches(x, y)
    fit(batches, epochs=2, validation_data=Batches(x, y))
    assert batches.epochs >= 2
    fit(((x[:4], y[:4]) for _ in range(3)), steps_per_epoch=3)
    logits = predict(model, rows)
    likelihood = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    loss, accuracy = model.evaluate(rows, y, verbose=0)
    assert abs(loss + likelihood[np.arange(8), y].mean()) < 1e-5
    assert abs(accuracy - (logits.argmax(axis=-1) == y).mean()) < 1e-6


@pytest.mark.once("torch", "tensorflow")  # JAX takes it in test_training_mode.py
def test_tf_data(series):
    import tensorflow as tf

    x, y = series
    model = make_model(num_layers=1, hidden_dim=4)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    assert relative_error(predict(model, dataset), model(x)) < 1e-6

    rows = [row[:n] for row, n in zip(x, LENGTHS, strict=True)]
    ragged = tf.ragged.stack([tf.constant(row) for row in rows])
    ragged = tf.data.Dataset.from_tensor_slices((ragged, y)).batch(4)
    masked = model({"inputs": x, "padding_mask": np.arange(12) < LENGTHS[:, None]})
    assert relative_error(predict(model, ragged), masked) < 1e-5
    history = model.fit(ragged, epochs=2, validation_data=ragged, verbose=0)
    assert np.isfinite(history.history["val_loss"]).all()
    with pytest.raises(ValueError, match="pass `x` alone"):
        model.fit(dataset, y, verbose=0)


@pytest.mark.eager
def test_arrays_are_shuffled_every_epoch(series):
    x, y = series
    seen = []

    class Order(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(float(logs["loss"]))

    # With a zero learning rate the mean loss over an incomplete epoch tells which rows came.
    model = make_model()
    model.compile(keras.optimizers.SGD(0.0))
    model.fit(x, y, batch_size=1, steps_per_epoch=3, epochs=6, callbacks=[Order()], verbose=0)
    assert len(set(np.round(seen, 5))) > 1
    seen.clear()
    model.fit(
        x,
        y,
        batch_size=1,
        steps_per_epoch=8,
        epochs=2,
        shuffle=False,
        callbacks=[Order()],
        verbose=0,
    )
    assert abs(seen[0] - seen[1]) < 1e-5


@pytest.mark.eager
def test_tokens_and_bytes(rng):
    ids = rng.integers(0, 256, size=(6, 10))
    y = np.arange(6) % 3
    model = make_model(vocabulary_size=256)
    expected = predict(model, ids)
    assert relative_error(predict(model, {"token_ids": ids}), expected) == 0
    assert relative_error(predict(model, list(ids)), expected) == 0
    model.fit(ids, y, verbose=0)
    texts = ["state space", "models", "né"]
    byte_rows = [np.frombuffer(t.encode(), np.uint8).astype("int32") for t in texts]
    assert relative_error(predict(model, texts), predict(model, byte_rows)) == 0
    assert relative_error(predict(model, np.array(texts)), predict(model, byte_rows)) == 0
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(texts).batch(3)
    assert relative_error(predict(model, dataset), predict(model, byte_rows)) < 1e-6


def test_preprocessor_scales_pads_and_cuts():
    preprocessor = SequencePreprocessor(scale=1 / 16, sequence_length=4)
    batch = preprocessor([np.array([16, 8], "uint8"), np.arange(6, dtype="int16")])
    np.testing.assert_allclose(batch["inputs"][0, :, 0], [1, 0.5, 0, 0])
    assert batch["padding_mask"].tolist() == [[True, True, False, False], [True] * 4]
    assert batch["inputs"].dtype == np.float32
    x, y = preprocessor(np.ones((2, 3)), y=np.zeros(2))
    assert x["inputs"].shape == (2, 4, 1) and y.shape == (2,)
    clone = SequencePreprocessor.from_config(preprocessor.get_config())
    assert clone.get_config() == preprocessor.get_config()


def test_tf_data_is_cut_with_its_mask(series):
    import tensorflow as tf

    x, mask = series[0], np.arange(12) < LENGTHS[:, None]
    model = make_model(preprocessor=SequencePreprocessor(sequence_length=5))
    inputs = {"inputs": x, "padding_mask": mask}
    expected = predict(model, inputs)
    assert relative_error(predict(model, {k: v[:, :5] for k, v in inputs.items()}), expected) < 1e-6
    dataset = tf.data.Dataset.from_tensor_slices(inputs).batch(4)
    assert relative_error(predict(model, dataset), expected) < 1e-6


def test_without_pooling_there_are_logits_at_every_step(series):
    x, _ = series
    model = make_model(pooling=None)
    assert predict(model, x).shape == (8, 12, 3)
    model.fit(x, np.zeros((8, 12), "int32"), verbose=0)


@pytest.mark.eager
@pytest.mark.parametrize(
    ("pooling", "prenorm"), [("mean", False), ("last", True), (None, False), ("mean", True)]
)
def test_streamed_logits_equal_those_of_the_prefix(series, pooling, prenorm):
    x, _ = series
    model = make_model(pooling, prenorm=prenorm, final_norm="layer" if prenorm else None)
    state, systems = model.get_initial_state(8), model.discretize()
    for t in range(12):
        logits, state = model.step(x[:, t], state, systems)
        if t not in (0, 6, 11):
            continue
        expected = predict(model, x[:, : t + 1])
        expected = expected if pooling else expected[:, -1]
        assert relative_error(logits, expected) < 1e-5


@pytest.mark.eager
def test_streamed_tokens(rng):
    ids = rng.integers(0, 50, size=(3, 9)).astype("int32")
    model = make_model(vocabulary_size=50)
    state = model.get_initial_state(3)
    for t in range(9):
        logits, state = model.step(ids[:, t], state)
    assert relative_error(logits, predict(model, ids)) < 1e-5


@pytest.mark.eager
@pytest.mark.parametrize(
    ("gate", "norm"),
    [
        (None, "layer"),
        ("linear", "layer"),
        ("half_glu1", "layer"),
        ("half_glu2", "batch"),
        ("glu", "batch"),
        ("glu", None),
    ],
)
def test_gates_and_norms(series, gate, norm, tmp_path):
    x, y = series
    model = make_model(gate=gate, norm=norm, dropout=0.1, tie_dropout=norm == "layer")
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert relative_error(predict(loaded, x), predict(model, x)) < 1e-6


@pytest.mark.eager
def test_channels_and_bidirectional_mixers(series):
    x, y = series
    model = make_model(mixer=S4D(state_dim=4, channels=2, bidirectional=True))
    model.fit(x, y, verbose=0)
    assert np.isfinite(predict(model, x)).all()


@pytest.mark.eager
def test_keras_file_keeps_the_optimizer(series, tmp_path):
    x, y = series
    model = make_model(num_layers=1, hidden_dim=4)
    model.compile(keras_ssm.optimizers.ssm_optimizer(3e-3, 1e-4))
    model.fit(x, y, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert relative_error(predict(loaded, x), predict(model, x)) < 1e-6
    assert int(to_numpy(loaded.optimizer.iterations)) == int(to_numpy(model.optimizer.iterations))
    for a, b in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), rtol=1e-6)
    for one in (model, loaded):
        one.fit(x, y, shuffle=False, verbose=0)
    assert relative_error(predict(loaded, x), predict(model, x)) < 1e-5


def test_learned_pooling_is_part_of_the_head(series, tmp_path):
    x, y = series
    model = make_model("attention", num_layers=1, hidden_dim=4)
    assert relative_error(model(x), to_numpy(model.head(ops.mean(model.backbone(x), 1)))) < 1e-5
    model.fit(x, y, epochs=2, verbose=0)
    assert np.abs(to_numpy(model.pooler.query)).min() > 0
    model.save(tmp_path / "model.keras")
    model.save_to_preset(tmp_path / "preset")
    for loaded in (
        keras.models.load_model(tmp_path / "model.keras"),
        SSMClassifier.from_preset(tmp_path / "preset"),
    ):
        assert relative_error(predict(loaded, x), predict(model, x)) < 1e-6


@pytest.mark.eager
def test_variable_paths_survive_saving(tmp_path):
    model = make_model()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    paths = [v.path for v in model.variables if "seed" not in v.path]
    assert "ssm_block_1/s4d/log_dt" in paths
    assert [v.path for v in loaded.variables if "seed" not in v.path] == paths


DIAGONAL = {"log_dt", "log_A_real", "A_imag", "B_real", "B_imag"}
MIMO = {"log_dt", "Lambda_real", "Lambda_imag", "B_real", "B_imag"}


@pytest.mark.parametrize(
    ("mixer", "system"),
    [
        (S4D(state_dim=4), DIAGONAL),
        (S4D(state_dim=4, dt_transform="softplus"), DIAGONAL - {"log_dt"} | {"inv_dt"}),
        (S4(state_dim=4), DIAGONAL | {"P_real", "P_imag"}),
        (DSS(state_dim=4), {"log_dt", "A_real", "A_imag"}),
        (DSS(state_dim=4, variant="exp-re-im"), {"log_dt", "log_A_real", "log_A_imag"}),
        (S5(state_dim=4), MIMO),
    ],
)
def test_optimizer_groups(mixer, system):
    optimizer = keras_ssm.optimizers.ssm_optimizer(1e-2, 1e-3, 0.05)
    model = make_model(mixer=mixer)
    model.compile(optimizer)
    optimizer.build(model.trainable_variables)
    groups = {"decayed": set(), "undecayed": set(), "system": set()}
    for v in model.trainable_variables:
        chosen = optimizer._optimizer_map(v)
        small = abs(float(to_numpy(chosen.learning_rate)) - 1e-3) < 1e-9
        kind = "decayed" if chosen.weight_decay else "system" if small else "undecayed"
        groups[kind].add(v.name)
    assert groups == {
        "decayed": {"C_real", "C_imag", "D", "kernel"},
        "undecayed": {"bias", "gamma", "beta"},
        "system": system,
    }


@pytest.mark.eager
def test_lora_trains_projections_and_head_alone(series, tmp_path):
    x, y = series
    model = make_model()
    model.fit(x, y, verbose=0)
    model.enable_lora(2)
    trained = {v.path.split("/")[-2] for v in model.trainable_variables}
    assert trained == {"input_dense", "output_dense", "logits"}
    frozen = [to_numpy(v) for v in model.non_trainable_variables if "s4d" in v.path]
    model.fit(x, y, verbose=0)
    now = [to_numpy(v) for v in model.non_trainable_variables if "s4d" in v.path]
    assert frozen and all((a == b).all() for a, b in zip(frozen, now, strict=True))
    model.save_to_preset(tmp_path / "preset")
    loaded = SSMClassifier.from_preset(tmp_path / "preset")
    assert relative_error(predict(loaded, x), predict(model, x)) < 1e-5


@pytest.mark.eager
@pytest.mark.parametrize("head_dtype", [None, "float32"])
def test_int8_round_trips(series, tmp_path, head_dtype):
    x, y = series
    model = make_model(head_dtype=head_dtype)
    model.fit(x, y, verbose=0)
    floats = predict(model, x)
    system = to_numpy(model.backbone.blocks[0].mixer.C_real)
    model.quantize("int8")
    assert (to_numpy(model.backbone.blocks[0].mixer.C_real) == system).all()
    quantized = predict(model, x)
    assert 0 < relative_error(quantized, floats) < 0.1
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert relative_error(predict(loaded, x), quantized) == 0
    model.save_to_preset(tmp_path / "preset")
    loaded = SSMClassifier.from_preset(tmp_path / "preset")
    assert relative_error(predict(loaded, x), quantized) == 0


@pytest.mark.parametrize(
    "policy",
    [
        # Compiled, a language model trains in it each time.
        pytest.param("mixed_bfloat16", marks=pytest.mark.slow),
        pytest.param("bfloat16", marks=pytest.mark.once("torch")),
        # The optimizer of this policy scales the loss.
        pytest.param("mixed_float16", marks=pytest.mark.once("tensorflow", "torch")),
    ],
)
def test_half_precision_trains(series, policy, tmp_path):
    x, y = series
    shape = {"num_layers": 1, "hidden_dim": 4}
    reference, model = make_model(**shape), make_model(dtype=policy, **shape)
    assert all(w.dtype == "float32" for w in model.weights if "s4d" in w.path)
    model.set_weights(reference.get_weights())
    assert relative_error(predict(model, x), predict(reference, x)) < 5e-2
    history = model.fit(x, y, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    model.save_to_preset(tmp_path / "preset")
    loaded = SSMClassifier.from_preset(tmp_path / "preset", dtype=policy)
    assert loaded.backbone.dtype_policy.name == policy
    assert relative_error(predict(loaded, x), predict(model, x)) < 1e-6


@pytest.mark.once("torch", "tensorflow")  # JAX compiles each time
def test_compiled_training_and_predicting(series):
    x, y = series
    rows = [row[:n] for row, n in zip(x, LENGTHS, strict=True)]
    model, eager = (make_model(num_layers=1, hidden_dim=4) for _ in range(2))
    eager.set_weights(model.get_weights())
    jit = BACKEND != "torch"  # its compiler takes a minute for each shape
    model.compile(keras.optimizers.SGD(0.1), jit_compile=jit)
    eager.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    for one in (model, eager):
        one.fit(rows, y, epochs=2, shuffle=False, verbose=0)
    mask = np.arange(12) < LENGTHS[:, None]
    assert relative_error(predict(model, rows), eager({"inputs": x, "padding_mask": mask})) < 1e-4


@pytest.mark.eager
def test_step_scale_sets_every_layer(series):
    x, _ = series
    model = make_model()
    before = predict(model, x)
    model.backbone.step_scale = 2.0
    assert [float(to_numpy(b.mixer.step_scale)) for b in model.backbone.blocks] == [2.0, 2.0]
    assert relative_error(predict(model, x), before) > 1e-3


def test_blocks_start_apart():
    """Block i has the seed of the mixer plus i."""
    blocks = make_model(mixer=S4D(state_dim=4, seed=5)).backbone.blocks
    for i, block in enumerate(blocks):
        single = S4D(state_dim=4, seed=5 + i)
        single.build((None, None, 8))
        assert (to_numpy(block.mixer.C_real) == to_numpy(single.C_real)).all()
    first, second = (to_numpy(block.mixer.C_real) for block in blocks)
    assert (first != second).all()


@pytest.mark.parametrize("tie", [False, True])
def test_what_dropout_drops(tie):
    """Tied: the same features at every step of a row. Otherwise each step has its own."""
    block = SSMBlock(S4D(state_dim=4, seed=0), norm=None, gate=None, dropout=0.5, tie_dropout=tie)
    x = np.ones((4, 16, 8), "float32")
    dropped = to_numpy(block(x, training=True)) == x
    assert 0 < dropped.mean() < 1
    assert (dropped == dropped[:, :1]).all() == tie


@pytest.mark.eager
def test_backbone_alone(series):
    x, _ = series
    backbone = make_model().backbone
    y = backbone(x)
    assert tuple(y.shape) == (8, 12, 8)
    clone = SSMBackbone.from_config(backbone.get_config())
    clone.set_weights(backbone.get_weights())
    assert relative_error(clone({"inputs": x}), to_numpy(y)) == 0
    symbol = keras.Input((None, 2))
    model = keras.Model(symbol, backbone(symbol))
    assert relative_error(model(x), to_numpy(y)) < 1e-6
