"""SpaceTime as the mixer of models: trained, streamed, saved, adapted, and of tokens."""

import numpy as np
import pytest

from keras_ssm.layers import SpaceTime
from keras_ssm.models import SSMBackbone, SSMCausalLM, SSMClassifier
from tests.backend_tools import relative_error

pytestmark = pytest.mark.once("torch")


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_classifier_learns_streams_and_is_loaded(rng, tmp_path, policy):
    backbone = SSMBackbone(SpaceTime(4, num_ssm=2, seed=0), 1, 8, input_dim=1, dtype=policy)
    model = SSMClassifier(backbone, 2, pooling="last")
    x = rng.standard_normal((16, 12, 1)).astype("float32")
    history = model.fit(x, (x[:, -1, 0] > 0).astype(int), epochs=8, batch_size=4, verbose=0)
    assert history.history["loss"][-1] < 0.8 * history.history["loss"][0]
    expected = model.predict(x, verbose=0)
    if policy != "float32":
        return
    stream = model.stream(batch_size=16)
    stream(x[:, :5])
    assert relative_error(stream(x[:, 5:])[:, -1], expected) < 1e-5
    model.save_to_preset(tmp_path)
    loaded = SSMClassifier.from_preset(tmp_path)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6)
    model.enable_lora(2)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6)


def test_a_language_model_generates_what_one_pass_says(rng):
    backbone = SSMBackbone(SpaceTime(4, seed=0), 2, 8, vocabulary_size=11, prenorm=True)
    model = SSMCausalLM(backbone)
    model.compile(sampler="greedy")
    prompt = np.array([[1, 2, 3, 4]])
    found = np.asarray(model.generate(prompt, max_length=9))[0]
    row = prompt[0]
    while len(row) < 9:
        logits = model.predict(row[None], verbose=0)
        row = np.append(row, logits[0, -1].argmax())
    np.testing.assert_array_equal(found[:9], row)
