"""The published language models: the same logits on every backend, and texts from them."""

from pathlib import Path

import numpy as np
import pytest

import keras_ssm
from keras_ssm.models import SSMCausalLM
from keras_ssm.recipes import run
from tests.backend_tools import relative_error
from tests.shared_data import SHARED

RECORDED = Path(__file__).parents[1] / "golden" / "presets"
NAMES = sorted(name for name in keras_ssm.list_presets() if name.endswith("_tinyshakespeare"))
TEXT = "MARIANA:\nWhat news of the duke?"


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if "mamba" in n else pytest.mark.once("torch")) for n in NAMES],
)
def test_logits_and_text(name):
    model = SSMCausalLM.from_preset(name)
    logits = model.predict(model.preprocessor.tokenizer([TEXT]), verbose=0)
    # Within 1e-5 of the float64 logits: any two backends agree within 2e-5.
    assert relative_error(logits, np.load(RECORDED / f"{name}.npy")) < 1e-5
    model.compile(sampler="greedy")
    story = model.generate(TEXT, max_new_tokens=12)
    assert story.startswith(TEXT) and len(story) == len(TEXT) + 12
    ids = model.preprocessor.tokenizer(story)
    best = model.predict(np.array([ids]), verbose=0)[0].argmax(axis=-1)
    assert best[len(TEXT) - 1 : -1].tolist() == ids[len(TEXT) :]


@pytest.mark.slow
@pytest.mark.once("torch")
@pytest.mark.parametrize("name", NAMES)
def test_scores_repeat(name):
    if not (SHARED / "data" / "tinyshakespeare").is_dir():
        pytest.skip("no data: set KERAS_SSM_SHARED to the folder that holds data/")
    for _, recorded, found in run.evaluate(name, SHARED / "data"):
        assert found == pytest.approx(recorded, abs=2e-4)
