"""What the layers that hold their kernel do beside what `test_layers.py` asks of every layer."""

import keras
import numpy as np
import pytest

from keras_ssm.layers import LongConv, SGConv, SSMBlock
from keras_ssm.models import SSMBackbone, SSMClassifier
from keras_ssm.training import make_mixer
from tests.backend_tools import relative_error, to_numpy

pytestmark = pytest.mark.once("torch")


def classifier(mixer):
    return SSMClassifier(SSMBackbone(mixer, num_layers=1, hidden_dim=4), num_classes=2)


def test_entries_drop_in_training_alone():
    layer = LongConv(max_length=30, squash=0.0, kernel_dropout=0.5, seed=0)
    layer.build((None, None, 4))
    layer.D.assign(np.zeros((1, 4)))
    impulse = np.zeros((1, 30, 4), "float32")
    impulse[:, 0] = 1.0
    K = to_numpy(layer.kernel(30)).T
    for _ in range(2):
        dropped = to_numpy(layer(impulse, training=True))[0]
        kept = np.abs(dropped) > 0.5 * np.abs(K)
        assert 0.3 < kept.mean() < 0.7
        np.testing.assert_allclose(dropped, np.where(kept, 2.0 * K, 0.0), atol=1e-7)
    repeated = to_numpy(layer(impulse, training=True))[0]
    assert (repeated != dropped).any()  # other entries each time
    np.testing.assert_allclose(to_numpy(layer(impulse))[0], K, atol=1e-7)
    copy = layer.from_config(layer.get_config())
    whole = keras.Sequential([keras.Input((30, 4)), SSMBlock(copy)])
    assert relative_error(whole(impulse), to_numpy(whole(impulse, training=False))) == 0
    assert relative_error(whole(impulse, training=True), to_numpy(whole(impulse))) > 1e-6


@pytest.mark.everywhere
@pytest.mark.eager
def test_the_seed_of_the_dropout_is_a_state_that_the_trainer_keeps(rng):
    model = classifier(LongConv(max_length=6, seed=0))
    generator = model.backbone.blocks[0].mixer.seed_generator
    before = to_numpy(generator.state).copy()
    x = rng.standard_normal((8, 9, 1)).astype("float32")
    model.fit(x, np.arange(8) % 2, batch_size=4, epochs=1, verbose=0)
    assert (to_numpy(generator.state) != before).any()


def test_a_stream_of_pieces(rng):
    model = classifier(LongConv(max_length=6, init="double_exp", seed=0))
    x = rng.standard_normal((8, 9, 1)).astype("float32")
    y = model.predict(x, verbose=0)
    stream = model.stream(batch_size=8)
    pieces = [stream(x[:, a:b]) for a, b in ((0, 4), (4, 5), (5, 9))]
    assert relative_error(np.asarray(pieces[-1])[:, -1], y) < 1e-5


def test_the_norm_does_not_train(rng):
    model = classifier(SGConv(max_length=8, kernel_dim=4, seed=0))
    mixer = model.backbone.blocks[0].mixer
    norm, pieces = to_numpy(mixer.kernel_norm), to_numpy(mixer.pieces)
    x = rng.standard_normal((8, 9, 1)).astype("float32")
    model.fit(x, np.arange(8) % 2, epochs=1, verbose=0)
    assert (to_numpy(mixer.kernel_norm) == norm).all() and (to_numpy(mixer.pieces) != pieces).any()


@pytest.mark.parametrize("mixer", [SGConv(8, kernel_dim=4), LongConv(8)])
def test_there_is_no_step(mixer):
    model = classifier(mixer)
    assert float(model.step_scale) == 1.0
    model.step_scale = 1.0
    with pytest.raises(ValueError, match=r"`step_scale` of .* must be 1.*Received: step_scale=2"):
        model.step_scale = 2.0
    with pytest.raises(ValueError, match=r"does not read in chunks.*Received: chunk_size=4"):
        model.backbone.blocks[0].mixer.chunk_size = 4


@pytest.mark.parametrize(
    ("cls", "arguments", "named"),
    [
        (LongConv, {"max_length": 0}, "max_length=0"),
        (LongConv, {"max_length": 8, "squash": 0.01}, "squash=0.01"),
        (LongConv, {"max_length": 8, "squash": -1.0}, "squash=-1.0"),
        (LongConv, {"max_length": 8, "kernel_dropout": 1.0}, "kernel_dropout=1.0"),
        (LongConv, {"max_length": 8, "smoothing": 4}, "smoothing=4"),
        (LongConv, {"max_length": 8, "init": "zeros"}, "init='zeros'"),
        (LongConv, {"max_length": 8, "method": "chunked"}, "method='chunked'"),
        (SGConv, {"max_length": 32}, "max_length=32, kernel_dim=64"),
        (SGConv, {"max_length": 128, "num_scales": 3}, "num_scales=3"),
        (SGConv, {"max_length": 64, "decay_min": 0.0}, "decay_min=0.0"),
        (SGConv, {"max_length": 64, "decay_min": 3.0}, "decay_min=3.0"),
        (SGConv, {"max_length": 64, "interpolation": "cubic"}, "interpolation='cubic'"),
        (SGConv, {"max_length": 64, "composition": "product"}, "composition='product'"),
    ],
)
def test_constructors(cls, arguments, named):
    with pytest.raises(ValueError, match="Received") as error:
        cls(**arguments)
    assert named in str(error.value)


def test_mixers_by_name():
    assert isinstance(make_mixer("sgconv", max_length=64, kernel_dim=8), SGConv)
    assert isinstance(make_mixer("longconv", max_length=64, seed=0), LongConv)
    with pytest.raises(ValueError, match=r"`LongConv` needs `max_length`.*Received: \['seed'\]"):
        make_mixer("longconv", seed=0)
