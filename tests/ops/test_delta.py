"""The delta rule in chunks against recordings, its definition, and keys that are all the same."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.ops.delta import delta_rule
from keras_ssm.ops.exporting import exporting
from keras_ssm.ops.lower_inverse import unit_lower_inverse
from keras_ssm.ops.naive import naive_delta
from tests.backend_tools import BACKEND, gradients, relative_error, to_numpy
from tests.shared_data import golden

RECORDINGS = [
    "delta_rule_t16",
    "gated_delta_rule_t33",
    "product2_gated_t24",
    "product3_plain_nostate_t20",
]
NAMES = ("q", "k", "v", "beta", "g", "state0")
ONCE = pytest.mark.once("torch")  # the same operations, more or fewer of them


def run(tensors, chunk_size=None, rule=delta_rule, **kwargs):
    """The rule for a dict of tensors."""
    state = {"initial_state": tensors.get("state0"), "g": tensors.get("g"), **kwargs}
    if chunk_size is not None:
        state["chunk_size"] = chunk_size
    return rule(*(tensors[name] for name in NAMES[:4]), **state)


def found(arrays, rule, weights, compile=False):
    """Outputs, last state and gradients of both against `weights`, by the name of the input."""
    names = list(arrays)

    def loss(*tensors):
        y, state = rule(dict(zip(names, tensors, strict=True)))
        total = ops.sum(y * ops.convert_to_tensor(weights[0]))
        both = ops.concatenate([ops.reshape(y, (-1,)), ops.reshape(state, (-1,))])
        return total + ops.sum(state * ops.convert_to_tensor(weights[1])), both

    identity = keras.layers.Identity()
    values, _, slopes = gradients(loss, identity, *arrays.values(), compile=compile)
    return {"values": values} | dict(zip(names, slopes, strict=True))


class Recorded:
    """Inputs of a recording in a dtype, with the corrections of a step on an axis of their own."""

    def __init__(self, name, dtype):
        self.data, self.about = golden(f"relatives/delta/{name}")
        self.n, self.prefix = self.about["config"]["num_householder"], "f64/" * (dtype != "float32")
        self.inputs = {
            name: self.apart(name, self.data[name].astype(dtype))
            for name in NAMES
            if name in self.data
        }
        self.scale = self.data["q"].shape[-1] ** -0.5
        w = self.data["w"]
        state = self.data["w_state"] if "w_state" in self.data else np.zeros(self.state.shape)
        self.weights = w.astype(dtype), state.astype(dtype)

    def apart(self, name, array):
        if name not in ("k", "v", "beta"):
            return array
        return array.reshape(len(array), -1, self.n, *array.shape[2:])

    @property
    def state(self):
        return self.data[f"{self.prefix}state_final"]

    def expected(self):
        values = (self.data[f"{self.prefix}y"], self.state)
        grads = {k: self.apart(k, self.data[f"{self.prefix}grad/{k}"]) for k in self.inputs}
        return {"values": np.concatenate([z.ravel() for z in values])} | grads

    def __call__(self, chunk_size):
        def rule(tensors):
            return run({**tensors, "q": tensors["q"] * self.scale}, chunk_size)

        return found(self.inputs, rule, self.weights, compile="loops")


def check_recording(name, dtype, chunk_size):
    recording = Recorded(name, dtype)
    ours = recording(chunk_size)
    for key, expected in recording.expected().items():
        tolerance = 1e-9 if dtype == "float64" else 1e-5 if key == "values" else 1e-4
        assert relative_error(ours[key], expected) < tolerance, key


@pytest.mark.parametrize("name", RECORDINGS if BACKEND == "torch" else [RECORDINGS[2]])
def test_recordings_in_float32(name):
    check_recording(name, "float32", 12)


@pytest.mark.only("torch")  # the others: test_float64.py
@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("chunk_size", [None, 12])
def test_recordings_in_float64(name, chunk_size):
    check_recording(name, "float64", chunk_size)


def drawn(rng, length, n=1, gated=True, dtype="float64", heads=2, sizes=(4, 3), most=2.0):
    """Inputs with keys of norm 1 and beta up to `most`."""
    arrays = {"q": rng.standard_normal((2, length, heads, sizes[0]))}
    k = rng.standard_normal((2, length, n, heads, sizes[0]))
    arrays["k"] = k / np.linalg.norm(k, axis=-1, keepdims=True)
    arrays["v"] = rng.standard_normal((2, length, n, heads, sizes[1]))
    arrays["beta"] = most * rng.uniform(size=(2, length, n, heads))
    if gated:
        arrays["g"] = -rng.exponential(0.3, size=(2, length, heads))
    arrays["state0"] = rng.standard_normal((2, heads, *sizes))
    return {name: array.astype(dtype) for name, array in arrays.items()}


@ONCE
@pytest.mark.parametrize("length", [1, 2, 3, 63, 64, 65, 257])
@pytest.mark.parametrize("n, gated", [(1, False), (3, True)])
def test_values_and_gradients_are_those_of_the_definition(length, n, gated, rng):
    arrays = drawn(rng, length, n, gated)
    weights = rng.standard_normal((2, length, 2, 3)), rng.standard_normal((2, 2, 4, 3))
    ours = found(arrays, run, weights)
    expected = found(arrays, lambda tensors: run(tensors, rule=naive_delta), weights)
    for name, value in expected.items():
        assert relative_error(ours[name], value) < 1e-12, name


@ONCE
@pytest.mark.parametrize("most", [1.0, 2.0])
def test_equal_keys_cost_no_digits(most):
    """Powers of the matrix of such keys, up to 1e28 in a chunk, would leave none."""
    arrays = drawn(np.random.default_rng(0), 200, gated=False, dtype="float32")
    arrays["k"] = np.broadcast_to(arrays["k"][:, :1], arrays["k"].shape).copy()
    arrays["beta"] = np.full_like(arrays["beta"], most)
    y, state = run({k: ops.convert_to_tensor(v) for k, v in arrays.items()})
    double = {k: ops.convert_to_tensor(v, "float64") for k, v in arrays.items()}
    expected, last = run(double, rule=naive_delta)
    assert relative_error(y, expected) < 1e-5
    assert relative_error(state, last) < 1e-5


@ONCE
@pytest.mark.parametrize("cut", [1, 63, 64, 70])
def test_states_hand_over_at_any_cut(cut, rng):
    tensors = {k: ops.convert_to_tensor(v) for k, v in drawn(rng, 71, 2).items()}
    start = tensors.pop("state0")
    y, last = run(tensors, initial_state=start)
    before = {k: v[:, :cut] for k, v in tensors.items()}
    first, between = run(before, initial_state=start)
    rest, end = run({k: v[:, cut:] for k, v in tensors.items()}, initial_state=between)
    assert relative_error(ops.concatenate([first, rest], axis=1), y) < 1e-12
    assert relative_error(end, last) < 1e-12


@ONCE
def test_nothing_is_corrected_where_beta_is_zero(rng):
    """Not even by a rounding: in the middle of a chunk, and up to its end."""
    arrays = drawn(rng, 100, 2, dtype="float32")
    for kept in (slice(20, 30), slice(90, None)):
        arrays["beta"][:, kept] = 0
        arrays["g"][:, kept] = 0
    tensors = {k: ops.convert_to_tensor(v) for k, v in arrays.items()}
    _, last = run(tensors)
    valid = np.r_[0:20, 30:90]
    cut = {k: v if k == "state0" else v[:, valid] for k, v in arrays.items()}
    _, expected = run({k: ops.convert_to_tensor(v) for k, v in cut.items()})
    assert relative_error(last, expected) < 1e-6
    still = {**arrays, "beta": 0 * arrays["beta"], "g": 0 * arrays["g"]}
    _, last = run({k: ops.convert_to_tensor(v) for k, v in still.items()})
    np.testing.assert_array_equal(to_numpy(last), arrays["state0"])


@ONCE
@pytest.mark.parametrize("n, gated", [(1, True), (2, False)])
def test_a_program_without_loops_computes_the_same(n, gated, rng):
    tensors = {k: ops.convert_to_tensor(v) for k, v in drawn(rng, 90, n, gated).items()}
    with exporting(loops=False):
        ours = run(tensors, chunk_size=4)
    for a, b in zip(ours, run(tensors, rule=naive_delta), strict=True):
        assert relative_error(a, b) < 1e-12


@pytest.mark.only("torch", "jax")
@pytest.mark.parametrize("n, gated", [pytest.param(1, False, marks=ONCE), (3, True)])
def test_a_loop_over_chunks_computes_the_same(n, gated, rng, monkeypatch):
    from keras_ssm.ops import delta

    monkeypatch.setattr(delta.backend, "loops_over_chunks", lambda: True)
    arrays = drawn(rng, 11, n, gated, "float32")
    weights = rng.standard_normal((2, 11, 2, 3)), rng.standard_normal((2, 2, 4, 3))
    weights = [array.astype("float32") for array in weights]
    ours = found(arrays, lambda tensors: run(tensors, chunk_size=4), weights, compile="loops")
    expected = found(arrays, lambda tensors: run(tensors, rule=naive_delta), weights)
    for name, value in expected.items():
        assert relative_error(ours[name], value) < 1e-5, name


@pytest.mark.only("torch")
def test_second_derivatives(rng):
    import torch

    arrays = drawn(rng, 3, 2, heads=1, sizes=(2, 1))
    tensors = [ops.convert_to_tensor(v).requires_grad_() for v in arrays.values()]

    def outputs(*tensors):
        return run(dict(zip(arrays, tensors, strict=True)), chunk_size=4)  # two chunks

    assert torch.autograd.gradgradcheck(outputs, tensors, fast_mode=True)


@pytest.mark.only("torch")
def test_a_tape_keeps_inputs_and_the_states_of_chunks(rng):
    import torch

    arrays = drawn(rng, 1024, gated=False, dtype="float32", sizes=(8, 8))
    tensors = {k: ops.convert_to_tensor(v).requires_grad_() for k, v in arrays.items()}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        run(tensors)
    inputs = sum(v.nelement() for v in tensors.values())
    states = 1024 // 64 * 2 * 2 * 8 * 8
    outputs = tensors["v"].nelement()
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
    assert sum(storages.values()) <= 4 * (2 * inputs + outputs + 2 * states)


@ONCE
@pytest.mark.parametrize("size", [1, 2, 3, 16, 33, 64])
def test_inverses_of_triangular_matrices(size, rng):
    x = 0.3 * np.tril(rng.standard_normal((3, size, size)), -1)
    above = x + np.triu(rng.standard_normal((3, size, size)))
    expected = np.linalg.inv(np.eye(size) + x)
    ours = unit_lower_inverse(ops.convert_to_tensor(above))
    assert relative_error(ours, expected) < 1e-11
