"""Language models: logits, states and steps, what they refuse, and files."""

import copy
import pickle

import keras
import numpy as np
import pytest

from keras_ssm.layers import S4D, DeltaNet, Mamba
from keras_ssm.models import SSMBackbone, SSMCausalLM
from keras_ssm.tokenizers import ByteTokenizer
from tests.backend_tools import to_numpy
from tests.models.language.small_lm import backbone

DELTA = DeltaNet(2, head_dim=2, householders=2, gated=True, output_gate=True, seed=0)


@pytest.fixture
def ids(rng):
    return rng.integers(7, size=(2, 9)).astype("int32")


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "mixer, dtype",
    [
        (mixer, dtype)
        for mixer in (Mamba(state_dim=2, seed=0), S4D(state_dim=4, seed=0), DELTA)
        for dtype in ("float32", "mixed_bfloat16")
    ],
)
def test_pieces_and_steps_are_the_whole(mixer, dtype, ids):
    model = SSMCausalLM(backbone(mixer, dtype=dtype), tie_embeddings=dtype == "float32")
    mask = np.arange(9) < np.array([[9], [5]])
    whole, end = model({"token_ids": ids, "padding_mask": mask}, return_state=True)
    assert whole.shape == (2, 9, 7) and "float32" in str(whole.dtype)
    tolerance = 1e-5 if dtype == "float32" else 1e-3  # both round at the same places
    states, rows = model.get_initial_state(2), []
    for token in ids[:, :5].T:
        logits, states = model.step(token, states)
        assert "float32" in str(logits.dtype)
        rows.append(to_numpy(logits))
    np.testing.assert_allclose(np.stack(rows, 1), to_numpy(whole)[:, :5], atol=tolerance)
    for piece, half in zip(
        keras.tree.flatten(end), keras.tree.flatten(states), strict=True
    ):  # the state of the short row is that after its last valid token
        np.testing.assert_allclose(to_numpy(piece)[1], to_numpy(half)[1], atol=tolerance)
    rest, _ = model(ids[:, 5:], initial_state=states, return_state=True)
    np.testing.assert_allclose(to_numpy(rest)[0], to_numpy(whole)[0, 5:], atol=tolerance)


@pytest.mark.once("torch")
def test_what_makes_no_language_model_is_refused():
    with pytest.raises(ValueError, match="vocabulary_size=None"):
        SSMCausalLM(backbone(vocabulary_size=None))
    with pytest.raises(ValueError, match="must be causal"):
        SSMCausalLM(backbone(S4D(state_dim=4, bidirectional=True), gate="linear"))
    with pytest.raises(ValueError, match="mask_inputs=False"):
        SSMCausalLM(backbone(mask_inputs=False))
    with pytest.raises(ValueError, match="encoder='one_hot'"):
        SSMCausalLM(backbone(encoder="one_hot"))
    with pytest.raises(ValueError, match="head_dtype=float32"):
        SSMCausalLM(backbone(), head_dtype="float32")
    for wrong in ("bytes", ByteTokenizer()):
        with pytest.raises(ValueError, match="`preprocessor` must be a callable"):
            SSMCausalLM(backbone(), wrong)
    with pytest.raises(ValueError, match="must be an `SSMBackbone`"):
        SSMCausalLM(keras.Sequential())


@pytest.mark.once("torch")
@pytest.mark.parametrize("tied", [True, False])
def test_files_and_copies(tied, ids, tmp_path, recwarn):
    mixer = None if tied else DELTA  # Mamba
    model = SSMCausalLM(backbone(mixer, dtype="mixed_bfloat16"), tie_embeddings=tied)
    expected = to_numpy(model(ids))
    model.save(tmp_path / "model.keras")
    model.save_to_preset(tmp_path / "preset")
    copies = [
        keras.saving.load_model(tmp_path / "model.keras"),
        SSMCausalLM.from_preset(tmp_path / "preset"),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
    ]
    for one in copies:
        np.testing.assert_array_equal(to_numpy(one(ids)), expected)
        assert one.tie_embeddings is tied and (one.head is None) is tied
        assert one.compute_dtype == "bfloat16"
    clone = keras.models.clone_model(model)
    assert clone.count_params() == model.count_params()
    hidden = SSMBackbone.from_preset(tmp_path / "preset")(ids)
    np.testing.assert_array_equal(to_numpy(model.logits(hidden)), expected)
    # The optimizer of a model that has not trained has no state to miss.
    assert not [w for w in recwarn if "Skipping variable loading" in str(w.message)]
