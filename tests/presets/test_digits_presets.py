"""The published presets: the same logits and the promised score on every backend."""

from pathlib import Path

import numpy as np
import pytest

import keras_ssm
from keras_ssm.models import SSMClassifier, SSMImageClassifier
from keras_ssm.models.saving.preset_loading import load_model
from tests.backend_tools import BACKEND, relative_error

RECORDED = Path(__file__).parents[1] / "golden" / "presets"


# The others differ in their weights, or compile for seconds.
EVERYWHERE = ("s4d_digits", "s5_digits")


@pytest.fixture(scope="module")
def test_digits():
    pytest.importorskip("sklearn")
    return keras_ssm.datasets.digits()[1]


@pytest.mark.eager
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in EVERYWHERE else pytest.mark.once("torch"))
        for name, info in sorted(keras_ssm.list_presets().items())
        if info["recipe"]["recipe"] == "digits"
    ],
)
def test_score_and_logits(name, test_digits):
    # All 500 images on PyTorch. The other backends compare the logits of a few.
    x, y = test_digits if BACKEND == "torch" else (part[:50] for part in test_digits)
    model = load_model(name)
    x = x.reshape(len(x), 8, 8) if isinstance(model, SSMImageClassifier) else x
    logits = model.predict(x, batch_size=250, verbose=0)
    # Within 1e-5 of the float64 logits: any two backends agree within 2e-5.
    assert relative_error(logits, np.load(RECORDED / f"{name}.npy")[: len(x)]) < 1e-5
    if BACKEND != "torch":
        return
    promised = keras_ssm.list_presets()[name]["scores"][0]["value"]
    assert (logits.argmax(axis=-1) == y).mean() == pytest.approx(promised, abs=1e-4)


@pytest.mark.once("torch")
def test_streamed_digits_equal_parallel_ones(test_digits):
    x = test_digits[0][:4]
    model = SSMClassifier.from_preset("s4d_digits")
    samples = model.preprocessor(x)["inputs"]
    state, systems = model.get_initial_state(4), model.discretize()
    for t in range(64):
        logits, state = model.step(samples[:, t], state, systems)
    assert relative_error(logits, model.predict(x, verbose=0)) < 1e-5


@pytest.mark.once("torch")
def test_digits_split():
    pytest.importorskip("sklearn")
    (x, y), (x_test, y_test) = keras_ssm.datasets.digits()
    assert x.shape == (1297, 64) and x_test.shape == (500, 64)
    assert x.max() == 16 and len(np.unique(y)) == len(np.unique(y_test)) == 10
    (inner, _), (held_out, _) = keras_ssm.datasets.digits(validation=True)
    assert len(inner) + len(held_out) == 1297 and len(held_out) == 130
    assert not {row.tobytes() for row in held_out} - {row.tobytes() for row in x}
