"""The pair classifier: one backbone for both, data of every kind, saving."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import S4D
from keras_ssm.layers.activations import get_activation
from keras_ssm.models import SSMBackbone, SSMClassifier, SSMPairClassifier
from tests.backend_tools import relative_error, to_numpy

pytestmark = pytest.mark.once("torch")

WORDS = [("state", "space"), ("a", "longer text"), ("one", "and another"), ("four", "4")]
LABELS = np.array([0, 1, 1, 0])


def make_model(tokens=True, **arguments):
    shape = {"vocabulary_size": 256} if tokens else {"input_dim": 3}
    backbone = SSMBackbone(S4D(state_dim=4, seed=0), num_layers=1, hidden_dim=4, **shape)
    return SSMPairClassifier(backbone, num_classes=2, **arguments)


def by_hand(model, a, b):
    """Logits from the backbone's outputs for each sequence alone."""
    a, b = (ops.mean(model.backbone(x[None]), axis=1) for x in (a, b))
    features = ops.concatenate([a, b, a - b, a * b], axis=-1)
    return model.head(get_activation("gelu")(model.pair_dense(features)))


@pytest.mark.eager
def test_pairs_equal_two_passes(rng):
    model = make_model(tokens=False)
    x = rng.standard_normal((2, 2, 9, 3)).astype("float32")
    expected = np.concatenate([to_numpy(by_hand(model, *pair)) for pair in x])
    assert relative_error(model(x), expected) < 1e-5
    assert relative_error(model.predict(x, verbose=0), expected) < 1e-5
    padded = np.pad(x, [(0, 0), (0, 0), (0, 4), (0, 0)], constant_values=7.0)
    mask = np.broadcast_to(np.arange(13) < 9, (2, 2, 13))
    masked = model({"inputs": padded, "padding_mask": mask})
    assert relative_error(masked, expected) < 1e-5
    # Each sequence of a pair has a length of its own.
    lengths = np.array([[9, 4], [2, 7]])
    pairs = [
        [row[:n] for row, n in zip(*pair, strict=True)] for pair in zip(x, lengths, strict=True)
    ]
    expected = np.concatenate([to_numpy(by_hand(model, *pair)) for pair in pairs])
    masked = model({"inputs": x, "padding_mask": np.arange(9) < lengths[..., None]})
    assert relative_error(masked, expected) < 1e-5


def test_text_of_different_lengths_trains(tmp_path):
    import tensorflow as tf

    model = make_model()
    together = model.predict(WORDS, verbose=0)
    single = np.concatenate([model.predict([pair], verbose=0) for pair in WORDS])
    assert relative_error(together, single) < 1e-5
    dataset = tf.data.Dataset.from_tensor_slices((WORDS, LABELS)).batch(2)
    assert relative_error(model.predict(dataset, verbose=0), together) < 1e-5
    history = model.fit(WORDS, LABELS, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    together = model.predict(WORDS, verbose=0)
    model.save_to_preset(tmp_path / "preset")
    loaded = SSMPairClassifier.from_preset(tmp_path / "preset")
    assert relative_error(loaded.predict(WORDS, verbose=0), together) < 1e-6
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert relative_error(loaded.predict(WORDS, verbose=0), together) < 1e-6


@pytest.mark.eager
def test_mask_inputs_reads_padding():
    mixer = S4D(state_dim=4, seed=0, bidirectional=True)
    x = np.random.default_rng(0).standard_normal((2, 8, 3)).astype("float32")
    mask = np.broadcast_to(np.arange(8) < 5, (2, 8))
    keras.utils.set_random_seed(0)
    backbone = SSMBackbone(mixer, 1, 4, input_dim=3, mask_inputs=False)
    assert SSMBackbone.from_config(backbone.get_config()).mask_inputs is False
    given = to_numpy(backbone({"inputs": x, "padding_mask": mask}))
    assert relative_error(given, backbone(x)) == 0
    model = SSMClassifier(backbone, 2)
    pooled = to_numpy(model({"inputs": x, "padding_mask": mask}))
    head = to_numpy(model.head(given[:, :5].mean(axis=1)))
    assert relative_error(pooled, head) < 1e-5


@pytest.mark.eager
@pytest.mark.parametrize(
    "x", [np.zeros((2, 9), "int32"), np.zeros((2, 3, 9), "int32"), ["a", "b"], [("a",)]]
)
def test_what_is_no_pair_is_refused(x):
    with pytest.raises(ValueError, match="Received"):
        make_model().predict(x, verbose=0)
    with pytest.raises(ValueError, match="Received"):
        make_model(pooling=None)
