"""Pooling of whole sequences, of pieces, and after each step."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import SequencePooling
from tests.backend_tools import relative_error, to_numpy

KINDS = ["mean", "last", "max", "attention"]
# The other backends take one of them, and the mean in streams of models: test_stream.py.
ONCE = pytest.mark.once("torch")
# Also a row that ends early, one with gaps, one that begins late, and one without a valid step.
MASK = np.array([[1] * 11, [1] * 4 + [0] * 7, [0, 1, 1, 0, 0, 1] + [0] * 5, [0] * 6 + [1] * 5])
MASK = np.concatenate([MASK, np.zeros((1, 11))]).astype(bool)


@pytest.fixture
def x(rng):
    return rng.standard_normal((5, 11, 3)).astype("float32")


def make(kind, x, **arguments):
    pooling = SequencePooling(kind, **arguments)
    pooling.build(x.shape)
    if kind == "attention":
        rng = np.random.default_rng(1)
        pooling.query.assign(5 * rng.standard_normal((3, 1)))
    return pooling


def definition(kind, x, mask, pooling):
    """What the docstring says, row by row, of each row's valid steps up to each step."""
    x = x.astype("float64")
    y = np.zeros(x.shape)
    for row in range(len(x)):
        for t in range(x.shape[1]):
            valid = x[row, : t + 1][mask[row, : t + 1]]
            if not len(valid):
                continue
            if kind == "attention":
                kernel, query = to_numpy(pooling.kernel), to_numpy(pooling.query)
                weights = np.exp(np.tanh(valid @ kernel) @ query)
                valid = valid * weights / weights.mean()
            ways = {"last": valid[-1], "max": valid.max(axis=0)}
            y[row, t] = ways.get(kind, valid.mean(axis=0))
    return y


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[] if k == "max" else ONCE) for k in KINDS])
def test_whole_sequences_pieces_and_every_step_follow_the_definition(x, kind):
    x[~MASK] = np.nan  # covered steps may hold anything
    pooling = make(kind, x)
    expected = definition(kind, x, MASK, pooling)
    assert relative_error(pooling(x, mask=MASK), expected[:, -1]) < 1e-5
    every, final = pooling.pool(x, MASK, pooling.get_initial_state(5, 3), every_step=True)
    assert relative_error(every, expected) < 1e-5
    state, found = pooling.get_initial_state(5, 3), []
    for part in (slice(0, 1), slice(1, 4), slice(4, 11)):
        y, after = pooling.pool(x[:, part], MASK[:, part], state)
        found.append(to_numpy(y))
        state = pooling.pool(x[:, part], MASK[:, part], state, every_step=True)[1]
        for key in set(after) - {"rest"}:  # of rounding
            assert relative_error(state[key], to_numpy(after[key])) < 1e-5
    assert relative_error(np.stack(found, 1), expected[:, [0, 3, 10]]) < 1e-5
    for key in set(state) - {"rest"}:
        assert relative_error(state[key], to_numpy(final[key])) < 1e-5
    full = definition(kind, np.nan_to_num(x), np.ones_like(MASK), pooling)
    assert relative_error(pooling(np.nan_to_num(x)), full[:, -1]) < 1e-5


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=ONCE if k in ("mean", "last") else []) for k in KINDS]
)
def test_gradients_are_finite_and_pass_covered_steps(x, kind):
    x[~MASK] = np.nan
    inputs, mask = keras.Input((None, 3)), keras.Input((None,), dtype="bool")
    dense = keras.layers.Dense(3)
    y = ops.where(ops.expand_dims(mask, -1), inputs, 0.0)
    y = SequencePooling(kind)(dense(y), mask=mask)
    model = keras.Model([inputs, mask], keras.layers.Dense(1)(y))
    model.compile("sgd", "mse")
    before = model.get_weights()
    model.fit([x, MASK], np.ones((5, 1)), epochs=2, verbose=0)
    after = model.get_weights()
    assert all(np.isfinite(part).all() for part in after)
    assert all((a != b).any() for a, b in zip(after, before, strict=True) if a.size > 1)


def test_an_endless_mean_keeps_its_digits_and_does_not_overflow():
    pooling, one = SequencePooling(), np.ones((1, 1, 1), "float32")
    state = {**pooling.get_initial_state(1, 1), "total": 2.0**24 * np.ones((1, 1), "float32")}
    state["count"] = np.full((1, 1), 2**23, "int32")
    step = pooling.pool
    if keras.config.backend() == "jax":  # no compiler may take the sum apart
        import jax

        step = jax.jit(step)
    for _ in range(64):
        y, state = step(one, None, state)
    expected = (2**24 + 64) / (2**23 + 64)
    assert 2 - expected > 5e-6 and abs(float(y[0, 0]) - expected) < 5e-7
    state["count"] = np.full((1, 1), 2**31 - 3, "int32")
    y, state = pooling.pool(np.ones((1, 9, 1), "float32"), None, state)
    assert int(state["count"][0, 0]) == 2**31 - 1 and 0 < float(y[0, 0]) < 1


@pytest.mark.once("torch")
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_counts_thousands_of_steps(kind):
    x = np.ones((1, 5000, 3), "float16")
    y = make(kind, x, dtype="float16")(x)
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    assert relative_error(y, np.ones((1, 3))) < 1e-6


@pytest.mark.only("torch", "tensorflow")
@pytest.mark.parametrize("kind", KINDS)
def test_float64_keeps_its_digits(kind):
    x, mask = np.random.default_rng(0).standard_normal((2, 7, 3)), np.ones((2, 7), bool)
    double = make(kind, x, dtype="float64")
    expected = definition(kind, x, mask, double)
    y, _ = double.pool(x, mask, double.get_initial_state(2, 3), every_step=True)
    assert relative_error(y, expected) < 1e-14
    assert relative_error(double(x, mask=mask), expected[:, -1]) < 1e-14


@pytest.mark.once("torch")
def test_states_of_another_pooling_are_refused(x):
    pooling = SequencePooling("max")
    with pytest.raises(ValueError, match=r"'max'.*\['count', 'max'\]. Received: \['count', 'last'"):
        pooling.pool(x, None, SequencePooling("last").get_initial_state(5, 3))
    with pytest.raises(ValueError, match="Received: list"):
        pooling.pool(x, None, [])
    y, state = SequencePooling(None).pool(x, MASK, {})
    assert state == {} and (to_numpy(y) == x).all()
