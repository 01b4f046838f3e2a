"""Blocks whose mixer reads a bottleneck, and whose gate is wider than they are."""

import keras
import numpy as np
import pytest

from keras_ssm.layers import S4D, S5, SSMBlock
from keras_ssm.models import SSMBackbone, SSMClassifier
from tests.backend_tools import relative_error, to_numpy

pytestmark = pytest.mark.once("torch")  # the recordings compare values on every backend

WAYS = {
    "wide": {"gate": "wide", "gate_expand": 1.5},
    "gss": {"gate": "wide", "bottleneck": 3, "bottleneck_norm": True, "norm": "rms"},
    "narrow": {"gate": "glu", "bottleneck": 2, "prenorm": False},
}


@pytest.mark.parametrize("name", WAYS)
def test_models_train_stream_and_are_loaded(name, rng, tmp_path):
    options = {"prenorm": True, "dropout": 0.1, **WAYS[name]}
    backbone = SSMBackbone(S4D(4, channels=2, seed=0), 2, 4, input_dim=2, **options)
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
    expected = {"input_dense", "output_dense"}
    expected |= {"bottleneck_dense"} if "bottleneck" in options else set()
    expected |= {"gate_dense", "wide_dense"} if options["gate"] == "wide" else set()
    assert names == expected


def test_a_bottleneck_and_a_wide_gate_are_the_formula(rng, float64):
    block = SSMBlock(S5(4, seed=0), "relu", "wide", norm=None, bottleneck=3, gate_expand=2)
    x = rng.standard_normal((2, 7, 4))
    y = to_numpy(block(x))
    W = {
        name: to_numpy(getattr(block, f"{name}_dense").kernel)
        for name in ("bottleneck", "gate", "wide", "output")
    }
    assert [w.shape for w in W.values()] == [(4, 3), (4, 8), (3, 8), (8, 4)]
    mixed = to_numpy(block.mixer(np.maximum(x @ W["bottleneck"], 0)))
    expected = x + (np.maximum(x @ W["gate"], 0) * (mixed @ W["wide"])) @ W["output"]
    assert relative_error(y, expected) < 1e-12
    symbol = block(keras.Input((None, 4)), return_state=True)
    assert tuple(symbol[0].shape) == (None, None, 4) and tuple(symbol[1].shape) == (None, 4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SSMBlock(S4D(4), bottleneck=0), "`bottleneck` must be a positive integer"),
        (lambda: SSMBlock(S4D(4), gate_expand=0), "`gate_expand` must be positive"),
        (lambda: SSMBlock(S4D(4), bottleneck_norm=True), "`bottleneck_norm` needs a `bottleneck`"),
        (
            lambda: SSMBlock(S4D(4), gate=None, bottleneck=2)(np.zeros((1, 2, 4))),
            r"needs gate='glu', 'linear' or 'wide'.*4 features in and 2 out",
        ),
    ],
)
def test_branches_that_do_not_fit_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_inputs_of_another_width_are_refused():
    block = SSMBlock(S4D(4), bottleneck=2)
    block(np.zeros((1, 2, 4)))
    with pytest.raises(ValueError, match=r"must have 4 features on its last axis.*\(1, 2, 2\)"):
        block(np.zeros((1, 2, 2)))
