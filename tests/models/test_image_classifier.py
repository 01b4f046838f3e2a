"""Models of images: what they read, how they train, their files, and other resolutions."""

import keras
import numpy as np
import pytest

from keras_ssm.layers import S4D, S4ND, RandomNoise, SSMBlock
from keras_ssm.models import (
    ImagePreprocessor,
    SSMBackbone,
    SSMClassifier,
    SSMImageClassifier,
)
from tests.backend_tools import BACKEND, relative_error, to_numpy

pytestmark = pytest.mark.once("torch")

NAMES = ["level", "upright"]


def make_backbone(mixer=None, **arguments):
    mixer = S4ND(S4D(4), seed=0) if mixer is None else mixer
    return SSMBackbone(mixer, **{"num_layers": 1, "hidden_dim": 4, **arguments})


def stripes(rng, count=16, size=6):
    """Pictures of level and of upright stripes, and which they are."""
    y = np.arange(count) % 2
    waves = 127 + 120 * np.sin(2.2 * np.arange(size) + rng.uniform(0, 6, (count, 1)))
    level = np.repeat(waves[:, :, None], size, axis=2)
    images = np.where(y[:, None, None] == 0, level, level.swapaxes(1, 2))
    return images.astype("uint8"), y


@pytest.mark.everywhere
def test_a_compiled_fit_and_predict(rng):
    x, y = stripes(rng, count=4, size=3)
    model = SSMImageClassifier(make_backbone(), 2)
    before = [to_numpy(w) for w in model.trainable_variables]
    model.fit(x, y, batch_size=4, verbose=0)
    after = [to_numpy(w) for w in model.trainable_variables]
    assert all((a != b).any() for a, b in zip(before, after, strict=True))
    expected = to_numpy(model((x / 255.0).astype("float32")[..., None]))
    assert relative_error(model.predict(x, verbose=0), expected) < 1e-5


def test_it_learns_and_is_saved(rng, tmp_path):
    x, y = stripes(rng)
    model = SSMImageClassifier(make_backbone(), 2, class_names=NAMES)
    names = np.array(NAMES)[y]
    model.compile(keras.optimizers.Adam(0.03), metrics=["accuracy"])
    model.fit(x, names, batch_size=16, epochs=30, verbose=0)
    assert (model.predict_classes(x, verbose=0) == names).all()
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    model.save_to_preset(tmp_path / "preset")
    for again in (
        keras.models.load_model(tmp_path / "model.keras"),
        SSMImageClassifier.from_preset(tmp_path / "preset"),
    ):
        assert relative_error(again.predict(x, verbose=0), expected) < 1e-5
        assert again.predict_classes(x[:2], verbose=0).tolist() == NAMES


def test_every_kind_of_data_gives_the_same(rng):
    import tensorflow as tf

    x, y = stripes(rng, count=4)
    model = SSMImageClassifier(make_backbone(), 2)
    expected = model.predict(x, verbose=0)
    floats = (x / 255.0).astype("float32")
    kinds = {
        "features": x[..., None],
        "list": list(x),
        "floats": floats,
        "dict": {"inputs": x, "padding_mask": np.ones(x.shape, bool)},
        "wide": (x.astype("uint16") * 257),
        "tf.data": tf.data.Dataset.from_tensor_slices(x).batch(2),
    }
    for name, data in kinds.items():
        assert relative_error(model.predict(data, verbose=0), expected) < 1e-5, name
    before = [to_numpy(w) for w in model.trainable_variables]
    model.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(2), epochs=1, verbose=0)
    after = [to_numpy(w) for w in model.trainable_variables]
    assert all((a != b).any() for a, b in zip(before, after, strict=True))


def test_images_of_other_sizes_are_padded_and_read_alone(rng):
    images = [rng.integers(256, size=size).astype("uint8") for size in ((4, 6), (5, 3), (6, 6))]
    for pooling in ("mean", "max", "attention"):
        model = SSMImageClassifier(make_backbone(num_layers=2), 3, pooling=pooling)
        together = model.predict(images, verbose=0)
        alone = [model.predict(one[None], verbose=0)[0] for one in images]
        assert relative_error(together, np.array(alone)) < 1e-5, pooling
    batch = ImagePreprocessor()(images)
    assert batch["inputs"].shape == (3, 6, 6, 1) and batch["padding_mask"].sum() == 24 + 15 + 36


def test_another_resolution(rng, tmp_path):
    """Pixels of half the size, and half a step: nearly the same logits, which a whole step has not.

    Nearly, since a pixel of a picture that is enlarged holds still and the first pixel counts once.
    """
    x = rng.normal(size=(3, 8, 8, 1)).astype("float32").repeat(2, axis=1).repeat(2, axis=2)
    double = x.repeat(2, axis=1).repeat(2, axis=2)
    model = SSMImageClassifier(make_backbone(S4ND(S4D(4, dt_max=0.2), seed=0)), 3)
    expected = model.predict(x, verbose=0)
    off = relative_error(model.predict(double, verbose=0), expected)
    for half in (model.rescaled(0.5), model.rescaled((0.5, 0.5))):
        assert relative_error(half.predict(double, verbose=0), expected) < 0.2 * off
    model.step_scale = 0.5
    assert relative_error(model.predict(double, verbose=0), half.predict(double, verbose=0)) < 1e-6
    model.step_scale = 0.5, 1.0
    one_axis = model.rescaled((1.0, 0.5))
    assert (
        relative_error(one_axis.predict(double, verbose=0), half.predict(double, verbose=0)) < 1e-6
    )
    model.save_to_preset(tmp_path / "preset")
    again = SSMImageClassifier.from_preset(tmp_path / "preset", step_scale=(0.5, 0.5))
    assert relative_error(again.predict(double, verbose=0), half.predict(double, verbose=0)) < 1e-5
    with pytest.raises(ValueError, match="`step_scale` must be one for all axes"):
        model.rescaled((0.5, 0.5, 0.5))


def test_a_backbone_of_videos_reads_frames(rng):
    mixer = S4ND(S4D(4), axes=3, bidirectional=[False, True, True], seed=0)
    backbone = make_backbone(mixer, num_layers=2, input_dim=2)
    x = rng.normal(size=(2, 3, 4, 5, 2)).astype("float32")
    y, final = backbone(x, return_state=True)
    states = backbone.get_initial_state(2, frame_sizes=(4, 5))
    systems = backbone.discretize()
    for t in range(3):
        y_t, states = backbone.step(x[:, t], states, systems)
        assert relative_error(y_t, to_numpy(y)[:, t]) < 1e-5
    for state, expected in zip(states, final, strict=True):
        assert relative_error(state, to_numpy(expected)) < 1e-5
    model = SSMImageClassifier(backbone, 2)
    assert model.predict(x.astype("float32"), verbose=0).shape == (2, 2)
    with pytest.raises(ValueError, match="An image is classified as a whole"):
        model.stream()


@pytest.mark.only("torch", "tensorflow")
def test_files_for_other_programs(rng, tmp_path):
    model = SSMImageClassifier(make_backbone(), 2)
    x = rng.normal(size=(3, 6, 5, 1)).astype("float32")
    expected = to_numpy(model(x))
    spec = keras.InputSpec(shape=(None, 6, 5, 1), dtype="float32")
    if BACKEND == "torch":
        import torch

        path = str(tmp_path / "model.pt2")
        with pytest.raises(ValueError, match="must have a known length for 'torch'"):
            model.export(path, format="torch")
        model.export(path, format="torch", verbose=False, input_signature=spec)
        run = torch.export.load(path).module()
        assert relative_error(run(torch.tensor(x)).detach().numpy(), expected) < 1e-5
        return
    import tensorflow as tf

    model.export(tmp_path / "model", verbose=False)  # for any sizes
    loaded = tf.saved_model.load(tmp_path / "model")
    given = {"inputs": tf.constant(x), "padding_mask": tf.ones((3, 6, 5), tf.bool)}
    assert relative_error(loaded.serve(given).numpy(), expected) < 1e-5


def test_adapters_precision_and_blocks(rng):
    x, y = stripes(rng, count=4)
    model = SSMImageClassifier(make_backbone(dtype="mixed_bfloat16", dropout=0.2), 2)
    model.fit(x, y, verbose=0)
    model = SSMImageClassifier(make_backbone(num_layers=2), 2)
    model.enable_lora(2)
    frozen = [to_numpy(w) for w in model.non_trainable_variables]
    model.fit(x, y, verbose=0)
    assert all(
        (to_numpy(w) == before).all()
        for w, before in zip(model.non_trainable_variables, frozen, strict=True)
    )
    assert isinstance(model.backbone.blocks[0], SSMBlock)
    assert model.evaluate(x, y, verbose=0, return_dict=True)["loss"] > 0


def test_what_is_refused(rng):
    x, y = stripes(rng, count=4)
    model = SSMImageClassifier(make_backbone(), 2)
    refused = {
        "must have shape": lambda: model.predict(x[0, 0], verbose=0),
        "tell their full range": lambda: model.predict(x.astype("int64"), verbose=0),
        r"must be finite .* at": lambda: model.fit(np.full((2, 4, 4), np.nan), y[:2], verbose=0),
        "`pooling` of images must be": lambda: SSMImageClassifier(make_backbone(), 2, pooling=None),
        "`backbone` must read images": lambda: SSMImageClassifier(
            SSMBackbone(S4D(4), 1, hidden_dim=4), 2
        ),
        "`backbone` must read sequences": lambda: SSMClassifier(make_backbone(), 2),
        "`vocabulary_size` goes with": lambda: make_backbone(vocabulary_size=4),
        "`encoder` goes with": lambda: make_backbone(encoder="conv"),
        "`augmentation` goes with": lambda: make_backbone(augmentation=[RandomNoise()]),
        r"`padding_mask` must have shape \(batch, size_1, size_2\)": lambda: model.backbone(
            {"inputs": np.zeros((2, 4, 4, 1), "float32"), "padding_mask": np.ones((2, 4), bool)}
        ),
        "`padding_mask` must have the shape of the images": lambda: model.predict(
            {"inputs": x, "padding_mask": x[:, 0] > 0}, verbose=0
        ),
        "same features": lambda: ImagePreprocessor()([np.zeros((2, 2, 3)), np.zeros((2, 2))]),
    }
    for message, call in refused.items():
        with pytest.raises(ValueError, match=message):
            call()
    assert np.isfinite(model.predict(x, verbose=0)).all()
