"""The Triton kernels of Mamba's recurrence against its definition in float64."""

import pytest
import torch
from keras import ops, tree

from keras_ssm import layers
from keras_ssm.ops.backend import scan_plan
from keras_ssm.ops.backend.torch import bank as torch_bank
from keras_ssm.ops.backend.torch import selective_gpu
from keras_ssm.ops.naive import naive_selective
from keras_ssm.ops.selective_scan import projected_scan, selective_scan
from tests.backend_tools import gradients, relative_error
from tests.kernel_tools import GPU, import_kernels, use_kernels
from tests.scan_operands import scan_operands

triton_mamba, triton_check = import_kernels("mamba", "check")


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    use_kernels(monkeypatch)
    if GPU:
        device = torch.device("cuda", torch.cuda.current_device())
        assert torch_bank._known_right(device, torch.float32, "selective")
    else:  # the interpreter takes its time
        monkeypatch.setattr(scan_plan, "T", 2)
        monkeypatch.setattr(scan_plan, "EVERY", 2)
    monkeypatch.setattr(scan_plan, "SHORTEST_SEGMENT", 8)


@pytest.fixture
def counted(monkeypatch):
    calls, forward = [], triton_mamba.SelectiveScan.forward

    def counting(ctx, plain, x, low, kernel, bias, mask, *system):
        calls.append((x.dtype, bias is not None, mask is not None))
        return forward(ctx, plain, x, low, kernel, bias, mask, *system)

    monkeypatch.setattr(triton_mamba.SelectiveScan, "forward", staticmethod(counting))
    return calls


def operands(rng, batch, length, features, states, rank=None):
    drawn = scan_operands(rng, batch, length, features, states, rank)
    return {name: ops.convert_to_tensor(t) for name, t in drawn.items()}


def by_definition(x, A, B, C, D=None, initial_state=None, dt=None, mask=None, **projection):
    """In float64."""
    given = {"x": x, "A": A, "B": B, "C": C, "D": D, "initial_state": initial_state}
    t = {name: value.double() for name, value in given.items() if value is not None}
    if dt is None:
        low, kernel, bias = (projection[name].double() for name in ("low", "kernel", "bias"))
        dt = torch.nn.functional.softplus(low @ kernel + bias)
    dt = dt.double() if mask is None else dt.double() * mask[..., None]
    y, last = naive_selective(t["x"], dt, t["A"], t["B"], t["C"], t.get("initial_state"))
    return (y + t["x"] * t["D"] if "D" in t else y), last


def compared(function, tensors, mask=None):
    """The largest errors of outputs, last state and each gradient."""
    tensors = {name: t.requires_grad_() for name, t in tensors.items()}
    options = {} if mask is None else {"mask": mask}
    results = []
    for form in (function, by_definition):
        outputs = form(**tensors, **options)
        weights = [torch.cos(torch.arange(y.numel(), device=y.device) * 1.3) for y in outputs]
        loss = sum((y.double().flatten() * w).sum() for y, w in zip(outputs, weights, strict=True))
        results.append([*outputs, *torch.autograd.grad(loss, tensors.values())])
    names = "y", "last", *tensors
    pairs = zip(names, *results, strict=True)
    return {n: relative_error(a.detach().double(), b.detach().double()) for n, a, b in pairs}


LONG = [pytest.param(n, marks=pytest.mark.slow) for n in (63, 64, 65, 257)]


@pytest.mark.parametrize("length", [1, 2, 21, *LONG])
def test_values_and_gradients(length, rng, counted):
    """Of one program or several segments, with all arguments."""
    errors = compared(selective_scan, operands(rng, 1, length, 3, 5))
    assert counted == [(torch.float32, False, False)]
    assert max(errors.values()) < 3e-6, errors


def test_projected_step_sizes_with_a_mask(rng, counted):
    """Two rows, and holes in them: there the state stays."""
    tensors = operands(rng, 2, 17, 2, 16, rank=2)
    tensors["bias"] = tensors["bias"] - 6.0  # where softplus cancels
    mask = ops.convert_to_tensor(rng.random((2, 17)) < 0.8)
    errors = compared(projected_scan, tensors, mask)
    assert counted == [(torch.float32, True, True)]
    assert max(errors.values()) < 1e-5, errors


def test_sequences_in_bfloat16(rng, counted):
    """What is read and written is rounded, and nothing between."""
    tensors = operands(rng, 1, 9, 3, 4)
    del tensors["initial_state"], tensors["D"]
    for name in ("x", "dt", "B", "C"):
        tensors[name] = tensors[name].to(torch.bfloat16)
    y, last = selective_scan(**tensors)
    assert y.dtype == torch.bfloat16 and last.dtype == torch.float32
    errors = compared(selective_scan, tensors)
    assert counted == [(torch.bfloat16, False, False)] * 2
    assert errors.pop("last") < 3e-6 and errors.pop("A") < 1e-2
    # The last of 8 bits on both sides, of which the interpreter cuts off what a card rounds.
    assert max(errors.values()) < 2**-7 * (1.0 if GPU else 1.5), errors


def test_mamba(rng, counted, monkeypatch):
    """The layer takes the kernels by itself, unless they are switched off."""
    layer = layers.Mamba(state_dim=3, seed=0)
    layer.build((None, None, 4))
    x = rng.standard_normal((1, 7, 4)).astype("float32")

    def loss(x):
        y, state = layer(x, return_state=True)
        return ops.sum(y * y) + sum(ops.sum(part * part) for part in tree.flatten(state)), y

    y, weights, (dx,) = gradients(loss, layer, x)
    assert counted == [(torch.float32, True, False)]
    monkeypatch.setenv("KERAS_SSM_FAST_PATHS", "0")
    plain, slopes, (slope,) = gradients(loss, layer, x)
    assert len(counted) == 1
    assert relative_error(y, plain) < 1e-5 and relative_error(dx, slope) < 1e-5
    for key, value in slopes.items():
        assert relative_error(weights[key], value) < 1e-4, key


def test_gradients_of_gradients(rng):
    tensors = operands(rng, 1, 3, 2, 2, rank=1)
    x, found = tensors["x"].requires_grad_(), []
    for form in (projected_scan, by_definition):
        (slope,) = torch.autograd.grad((form(**tensors)[0] ** 2).sum(), x, create_graph=True)
        found.append(torch.autograd.grad((slope**2).sum(), x)[0].double())
    assert relative_error(*found) < 1e-5


def test_out_of_use_for_others(rng, counted, monkeypatch):
    """Float64, states that a thread cannot hold, and a CPU without the interpreter."""
    tensors = operands(rng, 1, 2, 2, 3)
    selective_scan(**{name: t.double() for name, t in tensors.items()})
    selective_scan(**operands(rng, 1, 2, 2, 17))
    if not GPU:
        monkeypatch.delenv("TRITON_INTERPRET")
        selective_scan(**tensors)
    assert counted == []
    use_kernels(monkeypatch)
    selective_scan(**tensors)
    assert len(counted) == 1


@pytest.mark.parametrize("length", [1, 100, 10**6])
def test_a_launch_has_as_many_programs_as_it_may(length):
    """Of each number of rows that the kernels take."""
    for rows in (1, 2, 33, 1000, 1056, 5000, selective_gpu.MOST_ROWS):
        assert rows * scan_plan.segments(rows, length) <= 65535


def test_many_short_rows(rng, counted):
    rows = 1030 if GPU else 5  # the interpreter takes a tenth of a second for each
    errors = compared(selective_scan, operands(rng, rows, 1, 1, 1))
    assert len(counted) == 1 and max(errors.values()) < 3e-6, errors


def test_as_many_rows_as_a_launch_may_have(rng, monkeypatch):
    grids = []
    monkeypatch.setattr(triton_mamba._Walk, "launch", lambda walk, *a, **k: grids.append(walk.grid))
    for rows in (65535, 65536):
        selective_scan(**operands(rng, rows, 1, 1, 1))
    assert grids == [(1, 65535)]


def test_a_wrong_kernel_is_not_used(monkeypatch):
    device = torch.device("cuda" if GPU else "cpu")
    monkeypatch.setattr(triton_check, "LENGTH", 10)
    assert triton_check.ERRORS["selective"](device) < 1e-5
    right = triton_mamba._Walk.starts
    monkeypatch.setattr(scan_plan, "SHORTEST_SEGMENT", 4)
    monkeypatch.setattr(triton_mamba._Walk, "starts", lambda *a, **k: 0.5 * right(*a, **k))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a card")
    with pytest.warns(UserWarning, match=r"do not work on a card.* Found: 0\.\d*[1-9]"):
        assert not torch_bank._is_right(device, torch.float32, "selective")
