"""Low-rank adaptation: what trains, what its files hold, and where they load."""

import copy
import pickle

import h5py
import keras
import numpy as np
import pytest

from keras_ssm.models import SSMClassifier
from tests.backend_tools import relative_error, to_numpy
from tests.small_preset import X, make_model

pytestmark = pytest.mark.once("torch")

Y = np.arange(3)


@pytest.fixture
def adapted(preset):
    model = SSMClassifier.from_preset(preset)
    model.compile("adam", run_eagerly=True)
    model.enable_lora(2)
    model.compile("adam", run_eagerly=True)
    model.optimizer.learning_rate = 0.1
    model.fit(X, Y, epochs=2, verbose=0)
    return model


def test_only_the_updates_and_the_head_train(preset, adapted):
    trained = {weight.path for weight in adapted.trainable_variables}
    layers = ("input_dense", "ssm_block_0/output_dense")
    updates = {f"{layer}/lora_kernel_{x}" for layer in layers for x in "ab"}
    assert trained == {*updates, "logits/kernel", "logits/bias"}
    before = {weight.path: to_numpy(weight) for weight in SSMClassifier.from_preset(preset).weights}
    for weight in adapted.weights:
        moved = weight.path not in before or (to_numpy(weight) != before[weight.path]).any()
        assert moved == (weight.path in trained)


def test_an_adapter_loads_into_a_fresh_model(preset, adapted, tmp_path):
    path = tmp_path / "digits.lora.h5"
    adapted.save_lora_weights(path)
    model = SSMClassifier.from_preset(preset)
    assert relative_error(model(X), adapted(X)) > 1e-2
    for _ in range(2):  # a second call, with the updates already enabled
        model.load_lora_weights(path)
        assert relative_error(model(X), adapted(X)) < 1e-6
    assert len(model.optimizer.variables) > len(model.trainable_variables) == 6
    backbone = SSMClassifier.from_preset(preset).backbone
    adapted.backbone.save_lora_weights(path)
    backbone.load_lora_weights(path)
    assert relative_error(backbone(X), adapted.backbone(X)) < 1e-6


def test_statistics_of_layers_that_train_are_in_the_file(tmp_path):
    from keras_ssm.layers import S4D
    from keras_ssm.models import SSMBackbone

    def made():
        mixer = S4D(state_dim=4, seed=0)
        backbone = SSMBackbone(mixer, 1, 4, input_dim=2, norm="batch")
        return SSMClassifier(backbone, 3)

    model, other = made(), made()
    other.set_weights(model.get_weights())
    model.enable_lora(1)
    model.backbone.blocks[0].norm.trainable = True
    model.compile("adam", run_eagerly=True)
    model.fit(X, Y, verbose=0)
    model.save_lora_weights(tmp_path / "a.lora.h5")
    other.load_lora_weights(tmp_path / "a.lora.h5")
    assert relative_error(other(X), model(X)) < 1e-6


def test_copies_keep_the_updates_apart(adapted):
    adapted.backbone.blocks[0].norm.trainable = True  # a person's own choice
    adapted.compile("adam", run_eagerly=True)
    adapted.fit(X, Y, verbose=0)
    kernel = adapted.backbone.encoder_layer._kernel
    copies = [copy.deepcopy(adapted), pickle.loads(pickle.dumps(adapted))]
    for model in copies:
        assert [w.path for w in model.trainable_variables] == [
            w.path for w in adapted.trainable_variables
        ]
        assert (to_numpy(model.backbone.encoder_layer._kernel) == to_numpy(kernel)).all()
        assert relative_error(model(X), adapted(X)) < 1e-6
    copies[0].train_on_batch(X, Y)
    copies[1].train_on_batch(X, Y)
    assert relative_error(copies[0](X), copies[1](X)) < 1e-5
    assert relative_error(copies[0](X), adapted(X)) > 1e-4
    assert (to_numpy(copies[0].backbone.encoder_layer._kernel) == to_numpy(kernel)).all()
    backbone = pickle.loads(pickle.dumps(adapted.backbone))
    assert relative_error(backbone(X), adapted.backbone(X)) < 1e-6
    for model in (adapted, adapted.backbone):
        clone = keras.models.clone_model(model)
        paths = [[w.path for w in part.trainable_variables] for part in (clone, model)]
        assert type(clone) is type(model) and paths[0] == paths[1]
        assert any("lora" in path for path in paths[0])


def test_a_file_of_keras_trains_on_as_it_was(adapted, tmp_path):
    adapted.backbone.blocks[0].norm.trainable = True  # a person's own choice
    adapted.compile("adam", run_eagerly=True)
    adapted.fit(X, Y, verbose=0)
    adapted.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    paths = [weight.path for weight in adapted.trainable_variables]
    assert [weight.path for weight in loaded.trainable_variables] == paths
    for ours, theirs in zip(loaded.weights, adapted.weights, strict=True):
        assert (to_numpy(ours) == to_numpy(theirs)).all()
    for model in (loaded, adapted):
        model.train_on_batch(X, Y)
    for ours, theirs in zip(loaded.weights, adapted.weights, strict=True):
        assert relative_error(ours, theirs) < 1e-5
    adapted.save_to_preset(tmp_path / "preset")
    merged = SSMClassifier.from_preset(tmp_path / "preset")
    assert len(merged.trainable_variables) > len(paths) and "lora" not in str(merged.get_config())
    assert relative_error(merged(X), adapted(X)) < 1e-5


def test_merged_weights_in_an_adapted_model_train_on(adapted, tmp_path):
    """Keras sets both factors of the updates to zero, of which none has a gradient."""
    expected = to_numpy(adapted(X))
    adapted.save_weights(tmp_path / "a.weights.h5")
    adapted.load_weights(tmp_path / "a.weights.h5")
    assert relative_error(adapted(X), expected) < 1e-5
    adapted.compile("adam", run_eagerly=True)
    adapted.train_on_batch(X, Y)
    kernel = adapted.backbone.encoder_layer.lora_kernel_b
    assert (to_numpy(kernel) != 0).any()


def test_what_was_frozen_for_the_updates_stays_so(adapted, tmp_path):
    paths = [weight.path for weight in adapted.trainable_variables]
    adapted.trainable = False
    adapted.save(tmp_path / "a.keras")
    for model in (adapted, keras.models.load_model(tmp_path / "a.keras")):
        assert model.trainable_variables == []
        model.trainable = True
        assert [weight.path for weight in model.trainable_variables] == paths


def test_updates_of_embeddings(tmp_path):
    from keras_ssm.layers import S4D
    from keras_ssm.models import SSMBackbone

    for encoder in ("embedding", "one_hot"):
        backbone = SSMBackbone(S4D(4, seed=0), 1, 4, vocabulary_size=9, encoder=encoder)
        model, fresh = SSMClassifier(backbone, 3), keras.models.clone_model(backbone)
        if encoder == "one_hot":
            backbone.encoder_layer.bias.assign(np.arange(4.0))  # files hold it too
        model.save_weights(tmp_path / "before.weights.h5")
        model.enable_lora(2, ["token_embedding"])
        model.compile("adam", run_eagerly=True)
        ids = np.arange(12).reshape(3, 4) % 9
        model.fit(ids, Y, epochs=2, verbose=0)
        updates = [w for w in backbone.trainable_variables if "embeddings_" in w.path]
        assert len(updates) == 2 and all((to_numpy(w) != 0).any() for w in updates)
        model.save_lora_weights(tmp_path / "a.lora.h5")
        fresh = SSMClassifier(fresh, 3)
        fresh.load_weights(tmp_path / "before.weights.h5")
        fresh.load_lora_weights(tmp_path / "a.lora.h5")
        assert relative_error(fresh(ids), model(ids)) < 1e-6


def unchanged(model, load, match):
    before = [to_numpy(weight) for weight in model.weights]
    with pytest.raises(ValueError, match=rf"{match}.*Received"):
        load()
    after = [to_numpy(weight) for weight in model.weights if "lora" not in weight.path]
    assert len(before) == len(after)
    assert all((a == b).all() for a, b in zip(before, after, strict=True))


def test_adapters_of_other_models_are_refused(preset, adapted, tmp_path):
    path = tmp_path / "a.lora.h5"
    adapted.save_lora_weights(path)
    other = make_model()  # another head and other weights beneath
    unchanged(other, lambda: other.load_lora_weights(path), "must belong to this model")
    wider = SSMClassifier.from_preset(preset, num_classes=5)
    unchanged(wider, lambda: wider.load_lora_weights(path), "logits/bias")
    ranked = SSMClassifier.from_preset(preset)
    ranked.enable_lora(3)
    with pytest.raises(ValueError, match=r"rank=3 of .*Received: rank=2"):
        ranked.load_lora_weights(path)
    with pytest.raises(ValueError, match=r"model='SSMBackbone'.*Received"):
        SSMClassifier.from_preset(preset).backbone.load_lora_weights(path)
    with h5py.File(path, "r+") as file:
        file["weights/logits/bias"][0] = np.nan
    unchanged(wider, lambda: wider.load_lora_weights(path), "finite")
    path.write_bytes(path.read_bytes()[:3000])
    unchanged(wider, lambda: wider.load_lora_weights(path), "a.lora.h5")


def test_wrong_use_is_refused(adapted, tmp_path):
    model = make_model()
    for call in (
        lambda: model.save_lora_weights(tmp_path / "a.lora.h5"),
        lambda: model.load_lora_weights(tmp_path / "none.lora.h5"),
        lambda: adapted.save_lora_weights(tmp_path / "a.h5"),
        lambda: adapted.enable_lora(2),
        lambda: model.enable_lora(0),
        lambda: model.enable_lora(2, ["query"]),
    ):
        with pytest.raises(ValueError, match="Received"):
            call()
    assert len(model.trainable_variables) > 6
