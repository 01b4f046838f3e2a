"""Training in the ways people train: backbones alone, streams, frozen parts, other losses."""

import keras
import numpy as np
import pytest

import keras_ssm
from keras_ssm.layers import S4D, SSMBlock
from keras_ssm.models import SSMBackbone, SSMClassifier
from tests.backend_tools import relative_error, to_numpy
from tests.models.test_classifier import LENGTHS, Batches, make_model, predict

pytestmark = [pytest.mark.eager, pytest.mark.once("torch")]


@pytest.fixture
def series(rng):
    return rng.standard_normal((8, 12, 2)).astype("float32"), np.arange(8) % 3


def test_a_backbone_predicts_and_survives_refusals(series):
    model = make_model()
    x = series[0]
    backbone = model.backbone
    expected = to_numpy(backbone(x))
    assert relative_error(backbone.predict(x, verbose=0), expected) < 1e-6
    with pytest.raises(ValueError, match="Received"):
        backbone.predict(x[..., :1], verbose=0)
    assert relative_error(backbone.predict({"inputs": x}, verbose=0), expected) < 1e-6
    assert predict(model, x).shape == (8, 3)
    assert backbone.compute_output_shape((None, 12, 2)) == (None, 12, 8)
    assert model.compute_output_shape((None, 12, 2)) == (None, 3)


@pytest.mark.everywhere
def test_stateless_call_takes_arrays(series):
    model = make_model()
    expected = predict(model, series[0])  # on JAX this moves the weights to new buffers
    parts = model.trainable_variables, model.non_trainable_variables
    weights = [[v.value for v in part] for part in parts]
    for inputs in (series[0], {"inputs": series[0]}):
        outputs, _ = model.stateless_call(*weights, inputs)
        assert relative_error(outputs, expected) < 1e-5


def test_frozen_parts_stay_frozen_in_files(series, tmp_path):
    x, y = series
    model = make_model()
    model.backbone.trainable = False
    model.compile()
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.trainable_variables) == len(model.trainable_variables) == 2
    assert int(to_numpy(loaded.optimizer.iterations)) == 1
    before = to_numpy(loaded.backbone.blocks[0].mixer.C_real)
    loaded.fit(x, y, verbose=0)
    assert (to_numpy(loaded.backbone.blocks[0].mixer.C_real) == before).all()


def test_a_frozen_model_stays_frozen_in_files(series, tmp_path):
    model = make_model()
    model.trainable = False
    model.save(tmp_path / "model.keras")
    model.save_to_preset(tmp_path / "preset")
    for loaded in (
        keras.models.load_model(tmp_path / "model.keras"),
        SSMClassifier.from_preset(tmp_path / "preset"),
    ):
        assert not loaded.trainable and not loaded.trainable_variables
        assert relative_error(predict(loaded, series[0]), predict(model, series[0])) < 1e-6


def test_frozen_layers_stay_frozen_in_files(series, tmp_path):
    model = make_model()
    model.backbone.blocks[0].trainable = False
    model.backbone.encoder_layer.trainable = False
    trained = [v.path.split("/", 1)[1] for v in model.trainable_variables]
    assert len(trained) < len(make_model().trainable_variables)
    model.compile()
    model.fit(*series, verbose=0)
    model.save(tmp_path / "model.keras")
    model.save_to_preset(tmp_path / "preset")
    for loaded in (
        keras.models.load_model(tmp_path / "model.keras"),
        SSMClassifier.from_preset(tmp_path / "preset"),
        keras.models.clone_model(model),
    ):
        assert [v.path.split("/", 1)[1] for v in loaded.trainable_variables] == trained
    model.backbone.trainable = model.head.trainable = False
    config = {**model.get_config(), "trainable": True}
    loaded = SSMClassifier.from_config(config)
    assert not loaded.trainable_variables and not loaded.head.trainable
    with pytest.raises(ValueError, match="no_layer"):
        SSMClassifier.from_config({**config, "frozen": ["no_layer"]})


def test_streams_of_rows_of_different_lengths(series):
    x, y = series
    rows = [row[:n] for row, n in zip(x, LENGTHS, strict=True)]
    model = make_model()

    class Rows(Batches):
        def __getitem__(self, index):
            part = slice(4 * index, 4 * index + 4)
            return rows[part], list(y[part])

    model.fit(Rows(x, y), verbose=0)
    expected = predict(model, rows)
    assert relative_error(predict(model, Rows(x, y)), expected) < 1e-5
    assert relative_error(predict(model, (batch for batch in [(rows,)])), expected) < 1e-6
    assert relative_error(predict(model, (x for x in [x])), predict(model, x)) < 1e-6
    with pytest.raises(ValueError, match="labels from 0 to 2"):
        model.fit(Batches(x, y + 5), verbose=0)


def own_loss(y_true, y_pred):
    return keras.ops.mean((y_pred - 1.0) ** 2)


@pytest.mark.parametrize("adapt", ["lora", "int8"])
def test_adaptation_keeps_what_was_compiled(series, adapt):
    x, y = series
    model = make_model(num_layers=1, hidden_dim=4)
    model.compile("adam", loss=own_loss, metrics=[])
    model.fit(x, y, verbose=0)
    model.enable_lora(2) if adapt == "lora" else model.quantize("int8")
    assert model.loss is own_loss and isinstance(model.optimizer, keras.optimizers.Adam)
    model.fit(x, y, verbose=0)


def test_one_hot_targets_with_their_loss(series):
    x, y = series
    model = make_model()
    model.compile(loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    model.fit(x, np.eye(3)[y], verbose=0)
    accuracy = model.evaluate(x, np.eye(3)[y], verbose=0, return_dict=True)["accuracy"]
    assert abs(accuracy - (predict(model, x).argmax(-1) == y).mean()) < 1e-6


def test_an_uncompiled_model_saves(series, tmp_path):
    backbone = make_model().backbone
    model = SSMClassifier(backbone, num_classes=3, compile=False)
    model.save_to_preset(tmp_path / "preset")
    loaded = SSMClassifier.from_preset(tmp_path / "preset")
    model.compile()
    assert relative_error(predict(loaded, series[0]), predict(model, series[0])) < 1e-6
    backbone.save_to_preset(tmp_path / "backbone")
    with pytest.raises(ValueError, match="num_classes"):
        SSMClassifier.from_preset(tmp_path / "backbone")
    assert SSMClassifier.from_preset(tmp_path / "backbone", num_classes=4).num_classes == 4


def test_a_quantised_preset_gives_its_backbone(series, tmp_path):
    model = make_model()
    model.quantize("int8")
    model.save_to_preset(tmp_path / "preset")
    backbone = SSMBackbone.from_preset(tmp_path / "preset")
    assert relative_error(backbone(series[0]), to_numpy(model.backbone(series[0]))) == 0


def test_token_ids_past_the_vocabulary_are_refused():
    model = make_model(vocabulary_size=10)
    for ids in ([[10, 1]], [[-1, 1]]):
        with pytest.raises(ValueError, match="from 0 to 9"):
            model.fit(np.array(ids), np.zeros(1, "int32"), verbose=0)
    assert np.isfinite(predict(model, np.ones((1, 3), "int32"))).all()


def test_the_global_seed_fixes_a_model(series):
    outputs = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        outputs.append(predict(make_model(mixer=S4D(state_dim=4)), series[0]))
    assert relative_error(outputs[0], outputs[1]) == 0


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="drop_out"):
        SSMBackbone(S4D(), num_layers=1, hidden_dim=4, drop_out=0.1)
    with pytest.raises(TypeError, match="nonsense"):
        SSMClassifier(make_model().backbone, 3, nonsense=1)


@pytest.mark.parametrize("prenorm", [False, True])
def test_steps_through_batch_norm(series, prenorm):
    model = make_model(norm="batch", prenorm=prenorm, final_norm="batch")
    model.fit(*series, verbose=0)
    state = model.get_initial_state(8)
    for t in range(12):
        logits, state = model.step(series[0][:, t], state)
    assert relative_error(logits, predict(model, series[0])) < 1e-5


def test_a_model_without_preprocessor_loads_without(series, tmp_path):
    model = make_model()
    model.preprocessor = None
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").preprocessor is None


def test_symbolic_states_and_masks_are_checked():
    layer, x = S4D(state_dim=8), keras.Input((10, 4))
    with pytest.raises(ValueError, match=r"state.shape=\(None, 4, 9\)"):
        layer(x, initial_state=keras.Input((4, 9)))
    with pytest.raises(ValueError, match=r"mask.shape=\(None, 9\)"):
        layer(x, mask=keras.Input((9,)))
    for call in (
        lambda: S4D().kernel(4),
        lambda: S4D().discretize(),
        lambda: S4D().get_initial_state(1),
    ):
        with pytest.raises(ValueError, match="must be built first"):
            call()
    with pytest.raises(ValueError, match="activation"):
        SSMBlock(S4D(), activation=lambda x: x)
    with pytest.raises(ValueError, match="preset=None"):
        SSMClassifier.from_preset(None)
    assert keras_ssm.plotting


def test_further_arguments_reach_every_group_of_the_optimizer(series):
    x, model = series[0], make_model()
    model.compile(keras_ssm.optimizers.ssm_optimizer(weight_decay=0.0, clipvalue=1e-12))
    before = [to_numpy(weight) for weight in model.trainable_variables]
    model.train_on_batch(x, np.arange(len(x)) % 2)
    for weight, old in zip(model.trainable_variables, before, strict=True):
        assert np.abs(to_numpy(weight) - old).max() < 1e-6, weight.path
