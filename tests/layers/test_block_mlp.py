"""Blocks with an MLP behind their mixer, and dropout of what the encoder makes."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import S4D, SSMBlock
from keras_ssm.models import SSMBackbone, SSMClassifier
from tests.backend_tools import relative_error, to_numpy

pytestmark = pytest.mark.once("torch")  # dense layers, norms and sums of every backend


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))


def normed(norm, x):
    centered = x - x.mean(axis=-1, keepdims=True)
    scaled = centered / np.sqrt((centered**2).mean(axis=-1, keepdims=True) + norm.epsilon)
    return scaled * to_numpy(norm.gamma) + to_numpy(norm.beta)


@pytest.mark.parametrize("prenorm", [True, False])
def test_the_second_branch_is_the_formula(prenorm, rng, float64):
    options = {"activation": None, "gate": None, "prenorm": prenorm}
    block = SSMBlock(S4D(4, seed=0), intermediate_dim=6, norm_epsilon=1e-3, **options)
    x = rng.standard_normal((2, 7, 4))
    block(x)
    for weight in (w for w in block.weights if "norm" in w.path):
        weight.assign(rng.standard_normal(weight.shape))
    mix = lambda x: to_numpy(block.mixer(x))
    norm, second = block.norm, block.mlp_norm
    (W1, b1), (W2, b2) = (
        (to_numpy(dense.kernel), to_numpy(dense.bias))
        for dense in (block.mlp_dense, block.mlp_output_dense)
    )
    mlp = lambda x: gelu_tanh(x @ W1 + b1) @ W2 + b2
    if prenorm:
        middle = x + mix(normed(norm, x))
        expected = middle + mlp(normed(second, middle))
    else:
        middle = normed(norm, x + mix(x))
        expected = normed(second, middle + mlp(middle))
    assert relative_error(block(x), expected) < 1e-12
    _y, state = block(x[:, :-1], return_state=True)
    assert relative_error(block.step(x[:, -1], state)[0], expected[:, -1]) < 1e-12


def test_models_train_stream_and_are_loaded(rng, tmp_path):
    options = {"intermediate_dim": 6, "encoder_dropout": 0.2, "dropout": 0.1, "prenorm": True}
    backbone = SSMBackbone(S4D(4, seed=0), 2, 4, input_dim=2, residual_dtype="float32", **options)
    model = SSMClassifier(backbone, 3)
    x = rng.standard_normal((4, 9, 2)).astype("float32")
    before = [to_numpy(w) for w in model.trainable_variables]
    model.fit(x, [0, 1, 2, 0], epochs=1, verbose=0)
    for old, weight in zip(before, model.trainable_variables, strict=True):
        assert (old != to_numpy(weight)).any(), weight.path
    y = model.predict(x, verbose=0)
    stream = model.stream()
    for t in range(9):
        last = stream(x[0, t : t + 1])
    assert relative_error(last[:, -1], y[:1]) < 1e-5
    model.save_to_preset(tmp_path / "model")
    loaded = SSMClassifier.from_preset(tmp_path / "model")
    assert relative_error(loaded.predict(x, verbose=0), y) == 0
    for key, value in options.items():
        assert loaded.backbone.get_config()[key] == value
    loaded.enable_lora(2)
    names = {layer.name for layer in loaded._flatten_layers() if getattr(layer, "lora_enabled", 0)}
    assert names == {"input_dense", "output_dense", "mlp_dense", "mlp_output_dense"}


def test_what_is_dropped_in_training(rng):
    x = rng.standard_normal((64, 25, 2)).astype("float32")
    kept = {"norm": None, "prenorm": True, "activation": None, "gate": None, "tie_dropout": False}
    backbone = SSMBackbone(S4D(4, seed=0), 1, 8, input_dim=2, encoder_dropout=0.25, **kept)
    block = backbone.blocks[0]
    for weight in (block.mixer.C_real, block.mixer.C_imag, block.mixer.D):
        weight.assign(0.0 * weight)  # what comes out is what the encoder left
    share = (to_numpy(backbone(x, training=True)) == 0).mean()
    assert abs(share - 0.25) < 0.03
    assert (to_numpy(backbone(x)) != 0).all()
    # Each branch drops once, at the rate that was asked for.
    block = SSMBlock(S4D(4, seed=0), intermediate_dim=6, dropout=0.25, **kept)
    y = np.ones((64, 25, 8), "float32")
    block(y)
    block.mlp_output_dense.kernel.assign(0.0 * block.mlp_output_dense.kernel)
    mixed = to_numpy(block(y, training=True)) - 1
    assert abs((mixed == 0).mean() - 0.25) < 0.03
    block.mlp_output_dense.bias.assign(ops.ones(8))
    block.mixer.D.assign(0.0 * block.mixer.D)
    for weight in (block.mixer.C_real, block.mixer.C_imag):
        weight.assign(0.0 * weight)
    assert abs((to_numpy(block(y, training=True)) == 1).mean() - 0.25) < 0.03


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SSMBlock(S4D(4), intermediate_dim=0), "`intermediate_dim` must be a positive"),
        (lambda: SSMBackbone(S4D(4), 1, 4, encoder_dropout=1.0), "`encoder_dropout` must lie in"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_graph_without_them_is_as_before():
    plain = SSMBackbone(S4D(4, seed=0), 1, 4)
    assert not any("mlp" in w.path or "encoder_dropout" in w.path for w in plain.variables)
    symbol = SSMBlock(S4D(4), intermediate_dim=3)(keras.Input((None, 4)))
    assert tuple(symbol.shape) == (None, None, 4)
