"""The state of a stream: rows, copies, arrays, files, policies; and what cannot stream."""

import keras
import numpy as np
import pytest

from keras_ssm.layers import DSS, S4D
from keras_ssm.models import SequencePreprocessor, SSMBackbone, SSMClassifier, SSMPairClassifier
from tests.backend_tools import relative_error
from tests.models.streaming.small import LENGTH, MIXERS, X, make_model, shared_model
from tests.models.streaming.test_stream import one_pass
from tests.unreadable import unreadable_arrays

pytestmark = pytest.mark.once("torch")


@pytest.mark.everywhere
def test_rows_that_begin_anew_and_copies():
    model = shared_model()
    stream = model.stream(2)
    stream(X[:, :9])
    for t in range(9, 12):  # on JAX the state goes from step to step in its place
        stream(X[:, t : t + 1])
    kept, other = stream.state, stream.copy()
    stream(X[:, 12:13])
    stream.state = kept
    stream.reset(rows=1)
    outputs = stream(X[:, 12:13])
    assert stream.steps.tolist() == [13, 1]
    assert relative_error(outputs[:1], one_pass(model, X[:1], (13,))) < 1e-5
    assert relative_error(outputs[1:], one_pass(model, X[1:, 12:13], (1,))) < 1e-5
    # The copy and the arrays have not moved on.
    assert relative_error(other(X[:, 12:13]), one_pass(model, X, (13,))) < 1e-5
    stream.state = kept
    assert relative_error(stream(X[:, 12:13]), one_pass(model, X, (13,))) < 1e-5
    stream.reset(np.array([True, False]))
    assert stream.steps.tolist() == [0, 13]
    stream.reset([0, 1])
    assert relative_error(stream(X[:, :3])[:, -1:], one_pass(model, X, (3,))) < 1e-5
    for rows in (2, [-1], [True], 0.5):
        with pytest.raises(ValueError, match="`rows` must be"):
            stream.reset(rows)


def test_a_state_in_a_file(tmp_path):
    model = make_model("mamba")
    stream = model.stream(2)
    stream(X[:, :9])
    np.savez(tmp_path / "own.npz", **stream.state)
    stream.save(tmp_path / "state.npz")
    expected = stream(X[:, 9:])
    restored = model.stream(2)
    restored.load(tmp_path / "state.npz")
    np.testing.assert_array_equal(restored(X[:, 9:]), expected)
    with np.load(tmp_path / "own.npz") as file:
        restored.state = file
    np.testing.assert_array_equal(restored(X[:, 9:]), expected)
    assert restored.steps.tolist() == [LENGTH, LENGTH]
    for content in unreadable_arrays(tmp_path):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(ValueError, match="file that `SequenceStream"):
            restored.load(tmp_path / "bad.npz")


def test_states_of_others_are_refused():
    model = make_model()
    stream = model.stream(2)
    stream(X[:, :3])
    state = stream.state
    expected = stream.copy()(X[:, 3:5])
    wrong = {
        "layers/0": {**state, "layers/0": state["layers/0"][:1]},
        "layers": {name: part for name, part in state.items() if name != "layers/0"},
        "facts": {name: part for name, part in state.items() if "facts" not in name},
        "dtype": {**state, "layers/0": state["layers/0"].astype("int32")},
        "dict of arrays": [1, 2],
        "shape": model.stream(1).state,
        "other weights": make_model().stream(2).state,
    }
    model.backbone.step_scale = 2.0
    wrong["the weights that it has now"] = model.stream(2).state
    model.backbone.step_scale = 1.0
    for match, arrays in wrong.items():
        with pytest.raises(ValueError, match=match):
            stream.state = arrays
    np.testing.assert_array_equal(stream(X[:, 3:5]), expected)  # as before


def test_other_policies_go_on(float64):
    """A state of float64 in float32, and in a model of half precision."""
    wide = make_model()
    stream = wide.stream(2)
    stream(X[:, :9])
    state = stream.state
    assert state["layers/0"].dtype == "float64"
    expected = stream(X[:, 9:12])
    keras.config.set_floatx("float32")
    for policy, tolerance in (("float32", 1e-5), ("mixed_bfloat16", 0.05)):
        keras.config.set_dtype_policy(policy)
        model = make_model()
        model.set_weights(wide.get_weights())
        stream = model.stream(2)
        stream.state = state
        outputs = stream(X[:, 9:12])
        assert relative_error(outputs.astype("float64"), expected) < tolerance
        assert stream.state["layers/0"].dtype == "float32"


@pytest.mark.parametrize(
    ("mixer", "reason"),
    [
        (S4D(4, bidirectional=True), "is bidirectional and has no state"),
        (DSS(4), "normalises its kernel by the length"),
        (S4D(4, max_kernel_length=8), "truncated kernel"),
    ],
)
def test_models_that_cannot_stream_say_why(mixer, reason):
    backbone = SSMBackbone(mixer, num_layers=1, hidden_dim=4)
    with pytest.raises(ValueError, match=reason):
        SSMClassifier(backbone, 2).stream()


def test_other_refusals():
    backbone = SSMBackbone(MIXERS["s4d"], num_layers=1, hidden_dim=4, input_dim=2)
    with pytest.raises(ValueError, match="SSMPairClassifier"):
        SSMPairClassifier(backbone, 2).stream()
    model = SSMClassifier(backbone, 2, SequencePreprocessor(sequence_length=9))
    with pytest.raises(ValueError, match="sequence_length=9"):
        model.stream()
    model = make_model()
    with pytest.raises(ValueError, match="batch_size"):
        model.stream(0)
    stream = model.stream(2)
    stream(X[:, :5])
    nan = np.where(np.arange(2)[:, None, None] == 1, np.nan, X[:, :1])
    hole = {"inputs": X[:, :3], "padding_mask": np.array([[1, 0, 1], [1, 1, 1]], bool)}
    for chunk, match in (
        (X[0], "must have shape"),
        (X[:1], "must have shape"),
        (X[..., :1], "must have shape"),
        ([*X.tolist(), []], "must have shape"),
        (1.0, "must have shape"),
        ({"token_ids": X}, "'inputs'"),
        (nan, "row 1, step 0"),
        (hole, "pad on the right"),
        ({"inputs": X[:, :3], "padding_mask": np.ones((2, 2))}, "padding_mask"),
        ({"inputs": X, "timesteps": np.ones((2, LENGTH))}, "mixer S4D"),
        (X[:, :1].astype("complex64"), "real numbers"),
    ):
        with pytest.raises(ValueError, match=match):
            stream(chunk)
    assert relative_error(stream(X[:, 5:6]), one_pass(model, X, (6,))) < 1e-5  # as before


def test_a_softmax_over_a_given_length_ends_there():
    stream = make_model("dss_fixed").stream(2)
    stream(X)
    with pytest.raises(ValueError, match=f"softmax_length={LENGTH}"):
        stream(X[:, :1])
    stream.reset()
    stream(X[:, :1])
