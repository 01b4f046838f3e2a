"""The recurrences of JAX on an accelerator, on whatever device runs."""

import jax
import numpy as np
import pytest
from keras import ops

from keras_ssm import layers
from keras_ssm.ops import backend
from keras_ssm.ops.backend.jax import tree as jax_tree
from tests.backend_tools import BACKEND_MODULE, gradients, relative_error, to_numpy

BATCH, MODES = 2, 3


@pytest.mark.parametrize("varies", [False, True], ids=["same", "varies"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("steps", [1, 2, 11])
def test_states(steps, reverse, varies, rng):
    lead = (BATCH, steps) if varies else (1, 1)
    dA, inputs, initial = (
        scale * (rng.standard_normal((*shape, MODES)) + 1j * rng.standard_normal((*shape, MODES)))
        for scale, shape in ((0.5, lead), (1.0, (BATCH, steps)), (1.0, (BATCH,)))
    )
    expected, state = np.empty_like(inputs), initial
    for t in range(steps)[::-1] if reverse else range(steps):
        state = np.broadcast_to(dA, inputs.shape)[:, t] * state + inputs[:, t]
        expected[:, t] = state
    join = lambda z: np.concatenate([z.real, z.imag], -1).astype("float32")
    # One program: each operation by itself would be compiled as well.
    run = jax.jit(jax_tree.states_after, static_argnums=3)
    found = run(*map(join, (dA, inputs, initial)), reverse)
    assert relative_error(found, join(expected)) < 1e-6


@pytest.mark.parametrize(
    "layer, options",
    [
        (layers.S5(state_dim=4, seed=0), {}),
        (layers.S5(state_dim=4, bidirectional=True, seed=0), {"timesteps": True}),
        (layers.S4D(state_dim=4, bidirectional=True, chunk_size=8, seed=0), {}),
    ],
    ids=["S5", "timesteps", "S4D"],
)
def test_layers_and_gradients(layer, options, rng, monkeypatch):
    """As on a CPU, and in a program without loops over the steps."""
    x = rng.standard_normal((BATCH, 37, 2)).astype("float32")
    if options:
        options = {"timesteps": rng.uniform(0.5, 1.5, (BATCH, 37)).astype("float32")}
    layer.build((None, None, 2))

    def loss(x):
        y = layer(x, **options)
        return ops.sum(y * y), y

    expected = gradients(loss, layer, x, compile=True)
    for module in (backend, BACKEND_MODULE):
        monkeypatch.setattr(module, "runs_in_blocks", lambda: False)
    y, weights, (dx,) = gradients(loss, layer, x, compile=True)
    assert "while" not in str(jax.make_jaxpr(lambda x: layer(x, **options))(x))
    assert relative_error(y, expected[0]) < 1e-5 and relative_error(dx, expected[2][0]) < 1e-5
    for name, slope in expected[1].items():
        assert relative_error(weights[name], to_numpy(slope)) < 2e-5, name
