"""SpaceTime beyond the recordings: its consistent closed loop, its norms, and what it refuses."""

import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import SpaceTime
from tests.backend_tools import gradients, relative_error, to_numpy, with_cheap_loops

ONCE = pytest.mark.once("torch")


def built(**arguments):
    layer = SpaceTime(**{"state_dim": 4, "skip": False, "seed": 0, **arguments})
    layer.build((None, None, 4))
    return layer


def series(rng, length=9):
    return rng.standard_normal((2, length, 4)).astype("float32")


@pytest.mark.parametrize("norm_order", [1, *(pytest.param(p, marks=ONCE) for p in (0, 2))])
def test_a_forecast_is_that_of_steps_that_read_its_inputs(norm_order, rng):
    layer = built(closed_loop=True, norm_order=norm_order, num_ssm=2)

    def run(x):
        y, state = layer(x, return_state=True)
        outputs, inputs = layer.forecast(state, 4)
        system, by_steps = layer.discretize(), [y[:, -1]]
        for h in range(3):
            y_next, state = layer.step(inputs[:, h], state, system)
            by_steps.append(y_next)
        return (outputs, ops.stack(by_steps, axis=1)), (layer.next_inputs(x)[:, -1], inputs[:, 0])

    for found, expected in with_cheap_loops(run)(ops.convert_to_tensor(series(rng))):
        assert relative_error(found, expected) < 1e-5


def norm(x, order):
    return np.sum(np.abs(x) ** order, axis=-1, keepdims=True) ** (1 / order)


@ONCE
def test_a_row_predicts_divided_by_its_norm_and_that_of_the_inputs(rng):
    layer, x = built(closed_loop=True), series(rng)
    a, B, K = (to_numpy(w).astype("float64") for w in (layer.a, layer.B, layer.K))
    a, K = a / norm(a, 1), K / norm(K, 1) / norm(B, 1)
    state, expected = np.zeros((2, 4, 4)), []
    for u in np.moveaxis(x, 1, 0):
        moved = np.pad(state[..., :-1], [(0, 0), (0, 0), (1, 0)]) + a * state[..., -1:]
        state = moved + B * u[..., None]
        expected.append(np.sum(K * state, axis=-1))
    assert relative_error(layer.next_inputs(x), np.stack(expected, axis=1)) < 1e-5
    groups = {w.name: getattr(w, "optimizer_group", None) for w in layer.weights}
    assert groups == {"a": "undecayed", "B": "undecayed", "K": "undecayed", "C": None}


@pytest.mark.parametrize("norm_order", [10, pytest.param(2, marks=ONCE)])
def test_the_length_of_a_does_not_count(norm_order, rng):
    layer, x = built(norm_order=norm_order), series(rng)
    a, y = to_numpy(layer.a), to_numpy(layer(x))
    for factor in (1e-3, 1e10, 1e30):
        layer.a.assign(a * factor)
        assert relative_error(layer(x), y) < 1e-5, factor
    layer.a.assign(np.zeros_like(a))  # a norm of 0 divides nothing
    assert np.isfinite(to_numpy(layer(x))).all()


@ONCE
def test_gradients_of_high_norms_are_finite(rng):
    layer, x = built(norm_order=200, closed_loop=True), series(rng)
    layer.a.assign(to_numpy(layer.a) * np.array([[0.0], [1e-20], [1.0], [1.0]]))

    def loss(x):
        _, state = layer(x, return_state=True)
        return ops.sum(layer.forecast(state, 3)[0] ** 2)

    _, weights, inputs = gradients(loss, layer, x)
    assert all(np.isfinite(to_numpy(g)).all() for g in (*weights.values(), *inputs))


@ONCE
def test_what_it_refuses(rng):
    layer, x = built(closed_loop=True), series(rng, length=4)
    with pytest.raises(ValueError, match=r"`mask` of .* must have shape .*Received: mask.shape"):
        layer.next_inputs(x, mask=np.ones((2, 3), bool))
    for state in (None, 1.0, np.zeros((2, 3, 4), "float32")):
        with pytest.raises(ValueError, match=r"A state of .* must .*Received"):
            layer.forecast(state, 4)
    with pytest.raises(ValueError, match=r"no row K.*Received"):
        built().next_inputs(x)
    for arguments, words in (
        ({"closed_loop": True, "skip": True}, "`closed_loop` needs a layer without skip"),
        ({"closed_loop": True, "bidirectional": True}, "`closed_loop` needs a layer without skip"),
        ({"closed_loop": True, "norm_order": 0, "normalization": "published"}, "`norm_order`"),
        ({"norm_order": 0.5}, "`norm_order` must be 0 or at least 1"),
        ({"num_ssm": 3}, "`num_ssm` must divide"),
    ):
        with pytest.raises(ValueError, match=f"{words}.*Received"):
            built(**arguments)


@ONCE
def test_a_configuration_holds_every_argument():
    arguments = {"norm_order": 2, "closed_loop": True, "normalization": "published", "num_ssm": 2}
    config = built(**arguments, channels=2, chunk_size=8).get_config()
    assert SpaceTime.from_config(config).get_config() == config
    assert arguments.items() <= config.items()
