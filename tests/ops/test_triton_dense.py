"""The Triton kernel of dense transitions, which `S4` takes, against definitions."""

import numpy as np
import pytest
import torch
from keras import ops

from keras_ssm import layers
from keras_ssm.ops.backend.torch import bank as torch_bank
from keras_ssm.ops.backend.torch.toeplitz import sum_of_diagonals, toeplitz
from keras_ssm.ops.backend.torch.workspace import GPU_BLOCK_SAMPLES, Workspace
from keras_ssm.ops.dplr import _dplr_bilinear, dplr_bilinear
from tests.backend_tools import gradients, relative_error
from tests.kernel_tools import GPU, import_kernels, use_kernels

triton_dense, triton_dplr, triton_check = import_kernels("dense", "dplr", "check")


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    use_kernels(monkeypatch)
    if GPU:
        device = torch.device("cuda", torch.cuda.current_device())
        assert torch_bank._known_right(device, torch.float32, "dense")


@pytest.fixture
def counted(monkeypatch):
    calls, right = [], triton_dense.dense_states

    def counting(*arguments):
        calls.append(arguments[-1])
        return right(*arguments)

    monkeypatch.setattr(triton_dense, "dense_states", counting)
    return calls


@pytest.mark.parametrize(
    "features, batch, steps, size, reverse, started, shortest",
    [
        (2, 3, 1, 6, False, True, 16),  # a single step
        (1, 20, 5, 16, False, False, 16),  # two programs of rows
        (1, 2, 37, 6, False, True, 4),  # segments, the last of them shorter
        (1, 3, 33, 18, True, True, 4),
        (1, 1, 64, 64, True, False, 8),
    ],
)
def test_states(features, batch, steps, size, reverse, started, shortest, rng, monkeypatch):
    monkeypatch.setattr(triton_dense, "SHORTEST_SEGMENT", shortest)
    draw = lambda *shape: ops.convert_to_tensor(rng.standard_normal(shape).astype("float32"))
    eye = torch.eye(size, device=draw(1).device)
    E = 0.5 / size**0.5 * draw(features, size, size) - 0.5 * eye
    inputs = draw(features, batch, steps, size)
    initial = draw(features, batch, size) if started else None
    states = torch.full_like(inputs, float("nan"))
    last = triton_dense.dense_states(E.mT, inputs, states, initial, reverse)
    x = torch.zeros_like(inputs[:, :, 0]) if initial is None else initial
    exact = triton_check._by_products(E.mT.double(), inputs.double(), x.double(), reverse)
    assert relative_error(states.double(), exact[:, :, :-1]) < 2e-6
    assert relative_error(last.double(), exact[:, :, -1]) < 2e-6


def test_bilinear_rule(rng):
    """By a solver of the dense system in float64, with all gradients; and of other ranks."""
    device = torch.device("cuda" if GPU else "cpu")
    assert triton_check.ERRORS["dplr"](device) < 2e-6
    draw = lambda *shape: ops.convert_to_tensor(rng.standard_normal(shape).astype("float32"))
    A, B, dt = (-ops.exp(draw(2, 3)), draw(2, 3)), (draw(2, 3), draw(2, 3)), ops.exp(draw(2, 1))
    for rank in (1, 2):
        P = draw(rank, 2, 3), draw(rank, 2, 3)
        found = dplr_bilinear(A, P, B, dt)
        for mine, exact in zip(found, _dplr_bilinear(A, P, B, dt), strict=True):
            assert relative_error(mine, exact) < 2e-6


@pytest.mark.parametrize("alone", [False, True])
def test_gradients_of_gradients(alone, rng):
    layer, found = layers.S4(state_dim=4, seed=0, chunk_size=4), []
    x = ops.convert_to_tensor(rng.standard_normal((1, 9, 1)).astype("float32"))
    layer(x)
    weights = [layer.P_real.value, layer.log_dt.value]
    if alone:  # the transition knows nothing of B
        weights = [layer.B_real.value]
        for variable in layer.trainable_variables:
            variable.value.requires_grad_(variable is layer.B_real)
    for switch in ("1", "0"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KERAS_SSM_FAST_PATHS", switch)
            slopes = torch.autograd.grad((layer(x) ** 2).sum(), weights, create_graph=True)
            found.append(torch.autograd.grad(sum((s**2).sum() for s in slopes), weights))
    for mine, exact in zip(*found, strict=True):
        assert relative_error(mine, exact) < 1e-4


@pytest.mark.parametrize("bidirectional", [False, True])
def test_s4(bidirectional, rng, counted, monkeypatch):
    """`S4` takes the kernel by itself, with the values and gradients of the portable form."""
    monkeypatch.setattr(triton_dense, "SHORTEST_SEGMENT", 2)
    layer = layers.S4(state_dim=6, seed=0, chunk_size=4, bidirectional=bidirectional)
    layer.build((None, None, 2))
    made, bilinear = [], triton_dplr.Bilinear.forward
    monkeypatch.setattr(
        triton_dplr.Bilinear,
        "forward",
        staticmethod(lambda *a: made.append(None) or bilinear(*a)),
    )
    x = rng.standard_normal((1, 19, 2)).astype("float32")

    def loss(x):
        if bidirectional:
            y = layer(x)
            return ops.sum(y * y), y
        y, state = layer(x[:, :16], return_state=True)
        z, last = layer(x[:, 16:], initial_state=state, return_state=True)
        return ops.sum(y * y) + ops.sum(z * z) + ops.sum(last * last), y

    found = gradients(loss, layer, x)
    assert made == [None] * (1 if bidirectional else 2)
    assert counted[:2] == ([False, True] if bidirectional else [False, False])
    assert True in counted  # the gradient goes the other way
    calls = len(counted)
    monkeypatch.setenv("KERAS_SSM_FAST_PATHS", "0")
    y, weights, (dx,) = gradients(loss, layer, x)
    assert len(counted) == calls and len(made) < 3
    assert relative_error(found[0], y) < 1e-5 and relative_error(found[2][0], dx) < 1e-5
    for key, value in weights.items():
        assert relative_error(found[1][key], value) < 1e-4, key


def test_out_of_use_for_others(rng, counted, monkeypatch):
    """Float64, states that a program cannot hold, and a CPU without the interpreter."""
    x = rng.standard_normal((1, 9, 1))
    layers.S4(state_dim=4, seed=0, chunk_size=4, dtype="float64")(ops.convert_to_tensor(x))
    x = ops.convert_to_tensor(x.astype("float32"))
    layers.S4(state_dim=72, seed=0, chunk_size=4)(x)
    layer = layers.S4(state_dim=4, seed=0, chunk_size=4)
    if not GPU:
        monkeypatch.delenv("TRITON_INTERPRET")
        layer(x)
    assert counted == []
    use_kernels(monkeypatch)
    layer(x)
    assert counted == [False]


def test_a_wrong_kernel_is_not_used(monkeypatch):
    device = torch.device("cuda" if GPU else "cpu")
    assert triton_check.ERRORS["dense"](device) < 2e-6
    right = triton_check.dense_states
    monkeypatch.setattr(triton_check, "dense_states", lambda *a: 0.9 * right(*a))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a card")
    with pytest.warns(UserWarning, match=r"do not work on a card.* Found: 0\.\d*[1-9]"):
        assert not torch_bank._is_right(device, torch.float32, "dense")


def test_blocks_of_features_on_a_gpu():
    """Where a kernel takes the states, few features at a time keep the memory small."""
    sequence = torch.empty((4, 2**16, 512), device="meta")
    work = Workspace(sequence, 64)
    assert len([*work.blocks()]) == 1
    blocks = [*work.blocks(few_launches=True)]
    assert [b.stop - b.start for b in blocks] == [64] * 8
    assert 64 * sequence[..., 0].numel() == GPU_BLOCK_SAMPLES


@pytest.mark.parametrize("n", [1, 2, 5])
def test_sum_of_diagonals(n, rng):
    upstream = ops.convert_to_tensor(rng.standard_normal((3, 2, n, n)))
    diagonals = torch.zeros_like(upstream[..., :1, :1].expand(3, 2, 1, 2 * n - 1)[..., 0, :])
    diagonals.requires_grad_()
    (exact,) = torch.autograd.grad(toeplitz(diagonals), diagonals, upstream)
    np.testing.assert_allclose(sum_of_diagonals(upstream).cpu(), exact.cpu(), rtol=0, atol=1e-12)
