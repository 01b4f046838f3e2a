"""The Triton kernels against definitions: in Triton's interpreter where there is no GPU."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from keras import ops

from keras_ssm import layers
from keras_ssm.ops import DiagonalBank, backend
from keras_ssm.ops.backend import walk_plan
from keras_ssm.ops.backend.torch import bank as torch_bank
from keras_ssm.ops.chunked import chunked
from keras_ssm.ops.naive import naive
from tests.backend_tools import BY_KERNELS, gradients, relative_error
from tests.kernel_tools import (
    GPU,
    SCANS,
    WRONG_SCANS,
    check_scan,
    import_kernels,
    scan_operands,
    use_kernels,
)

KERNELS = ("ends", "moments", "outputs", "slopes")

# Of outputs, and of gradients, whose sums cancel. The interpreter cuts off what a card rounds.
CLOSE = BY_KERNELS if GPU else 1e-4
CLOSE_SUMS = 1e-4

import_kernels("scan", "functions", "check")


@pytest.fixture(autouse=True)
def interpreter(monkeypatch):
    use_kernels(monkeypatch)
    monkeypatch.setattr(walk_plan, "SHORTEST_SEGMENT", 16)
    if not GPU:  # small tiles: the interpreter takes its time
        tiles = dict.fromkeys(KERNELS, (16, 2, 4)) | {"ends": (32, 2, 4)}
        monkeypatch.setattr(walk_plan, "TILES", dict.fromkeys((2, 4), tiles))
        monkeypatch.setattr(walk_plan, "WIDTH", 2)


@pytest.fixture
def counted(monkeypatch):
    """What the kernels were asked for, after the comparisons of the first call."""
    from keras_ssm.ops.backend.torch.triton import discretize as triton_discretize
    from keras_ssm.ops.backend.torch.triton import functions as triton_functions
    from keras_ssm.ops.backend.torch.triton import scan as triton_scan

    if GPU:
        device = torch.device("cuda", torch.cuda.current_device())
        for dtype, modes in [(torch.float32, n) for n in (4, 20, 70)] + [(torch.bfloat16, 4)]:
            assert torch_bank.ready(device, dtype, modes)
        assert torch_bank._known_right(device, torch.float32, "zoh")
        assert torch_bank._known_right(device, torch.float32, "scan")
    calls = []
    for module, name in [
        (triton_functions, "Outputs"),
        (triton_functions, "LastState"),
        (triton_scan, "DiagonalScan"),
        (triton_discretize, "Hold"),
    ]:
        function = getattr(module, name)
        forward = function.forward

        def counting(*arguments, name=name, forward=forward):
            calls.append(name)
            return forward(*arguments)

        monkeypatch.setattr(function, "forward", staticmethod(counting))
    return calls


BANKS = {
    # batch, length, features, modes, then arguments; several segments from 32 steps on
    "odd": ((2, 19, 3, 5), {}),
    "segments": ((1, 75, 1, 3), {"dB": False}),
    "states": ((2, 40, 2, 4), {"initial": True, "return_state": True}),
    "lengths": ((3, 37, 1, 3), {"return_state": True, "lengths": [0, 37, 18], "D": False}),
    "two_ways": ((1, 18, 1, 3), {"bidirectional": True, "channels": 2}),
    "many_modes": ((1, 18, 1, 70), {"initial": True}),
}


def make_bank(rng, batch, length, features, modes, channels=1, **options):
    """Arguments of `chunked` by name, float32, all of them perhaps `None`."""
    draw = lambda *shape: rng.standard_normal(shape).astype("float32")
    pace = np.exp(rng.uniform(-4.0, -1.0, (features, 1)))
    log_dA = -0.5 * pace + 0 * np.arange(modes), 3.0 * pace * np.arange(modes)
    directions = 2 if options.get("bidirectional") else 1
    return {
        "u": draw(batch, length, features),
        "re": log_dA[0].astype("float32"),
        "im": log_dA[1].astype("float32"),
        "C_re": draw(directions * channels, features, modes),
        "C_im": draw(directions * channels, features, modes),
        "dB_re": draw(features, modes) if options.get("dB", True) else None,
        "dB_im": draw(features, modes) if options.get("dB", True) else None,
        "D": draw(channels, features) if options.get("D", True) else None,
        "initial": draw(batch, features, 2 * modes) if options.get("initial") else None,
    }


def by_kernels(t, lengths=None, bidirectional=False, return_state=False):
    dB = None if t["dB_re"] is None else (t["dB_re"], t["dB_im"])
    bank = DiagonalBank((t["re"], t["im"]), dB, (t["C_re"], t["C_im"]))
    options = {"bidirectional": bidirectional, "return_state": return_state, "D": t["D"]}
    return chunked(t["u"], bank, t["initial"], lengths, **options)


def by_definition(t, lengths=None, bidirectional=False, return_state=False):
    """In float64."""
    t = {name: None if x is None else x.double() for name, x in t.items()}
    number = lambda name: torch.complex(t[f"{name}_re"], t[f"{name}_im"])
    dA = torch.exp(torch.complex(t["re"], t["im"]))
    dB = torch.ones_like(dA) if t["dB_re"] is None else number("dB")
    state = t["initial"]
    state = None if state is None else torch.complex(*state.chunk(2, -1))
    C, u = number("C"), t["u"]
    y, last = naive(u, dA, dB, C, state, bidirectional)
    if t["D"] is not None:
        y = y + (t["D"][:, None, None] * u).permute(1, 2, 0, 3).flatten(2)
    if lengths is not None:
        rows = []
        for row, steps in enumerate(lengths.tolist()):
            one = u[row : row + 1, :steps]
            rows.append(naive(one, dA, dB, C)[1] if steps else torch.zeros_like(last[:1]))
        last = torch.cat(rows)
    return y, torch.cat([last.real, last.imag], -1) if return_state else None


@pytest.mark.parametrize("case", BANKS.values(), ids=BANKS)
def test_bank(case, rng, counted):
    """Outputs, last states and all gradients."""
    sizes, options = case
    arrays = make_bank(rng, *sizes, **options)
    requested = {k: options[k] for k in ("bidirectional", "return_state") if k in options}
    if "lengths" in options:
        requested["lengths"] = ops.convert_to_tensor(options["lengths"], "int32")
        rest = np.arange(sizes[1])[None] >= np.array(options["lengths"])[:, None]
        arrays["u"][rest] = 0.0
    tensors = {k: None if x is None else ops.convert_to_tensor(x) for k, x in arrays.items()}
    tensors = {k: None if x is None else x.requires_grad_() for k, x in tensors.items()}
    results = []
    for function in (by_kernels, by_definition):
        outputs = [x for x in function(tensors, **requested) if x is not None]
        weights = [torch.cos(torch.arange(x.numel(), device=x.device) * 1.3) for x in outputs]
        loss = sum((x.flatten() * w).sum() for x, w in zip(outputs, weights, strict=True))
        leaves = [x for x in tensors.values() if x is not None]
        results.append([*outputs, *torch.autograd.grad(loss, leaves)])
        last = len(outputs)
    assert counted == ["Outputs", *(["LastState"] if options.get("return_state") else [])]
    for number, (mine, exact) in enumerate(zip(*results, strict=True)):
        close = CLOSE if number < last else CLOSE_SUMS
        assert relative_error(mine.detach(), exact.detach()) < close, number


def test_short_sequences_in_bfloat16(rng, counted):
    """Sequences are read and written in bfloat16, and all else is float32."""
    arrays = make_bank(rng, 2, 40, 2, 4)
    tensors = {k: None if x is None else ops.convert_to_tensor(x) for k, x in arrays.items()}
    tensors["u"] = tensors["u"].to(torch.bfloat16)
    y, _ = by_kernels(tensors)
    assert y.dtype == torch.bfloat16 and counted == ["Outputs"]
    exact, _ = by_definition(tensors)
    assert relative_error(y.double(), exact) < 2e-2
    assert float((y.double() - exact).norm() / exact.norm()) < 4e-3 * (1 if GPU else 2)


LAYERS = {
    "S4D": (layers.S4D(state_dim=4, seed=0), ["Hold", "Outputs", "LastState"]),
    "own_steps": (layers.S4D(state_dim=4, dt_tie=False, seed=0), ["Hold", "Outputs", "LastState"]),
    "DSS": (layers.DSS(state_dim=3, variant="exp", seed=0), ["Outputs", "LastState"]),
    "S5": (layers.S5(state_dim=4, seed=0), ["DiagonalScan"]),
}


def test_transforms_take_the_portable_form(rng, counted):
    """A kernel has no rules for `torch.func`, nor for a batch of gradients."""
    layer = layers.S4D(state_dim=4, seed=0)
    layer.build((None, None, 2))
    x, many = (ops.convert_to_tensor(rng.standard_normal(s), "float32") for s in ((1, 9, 2),) * 2)
    loss = lambda x: (layer(x) ** 2).sum()
    slope = torch.func.grad(loss)(x)
    each = torch.func.vmap(torch.func.grad(loss))(x[None])[0]
    assert counted == []
    leaf = x.clone().requires_grad_()
    y = layer(leaf)
    batch = torch.stack([2 * y, many]).detach()
    found = torch.autograd.grad(y, leaf, batch, is_grads_batched=True, retain_graph=True)[0]
    assert "Outputs" in counted
    wanted = [torch.autograd.grad(y, leaf, row, retain_graph=True)[0] for row in batch]
    for mine, exact in ((slope, wanted[0]), (each, wanted[0]), *zip(found, wanted, strict=True)):
        assert relative_error(mine.detach(), exact) < CLOSE_SUMS


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, rng, counted, monkeypatch):
    """Layers run on the kernels by themselves, unless they are switched off."""
    layer, expected = LAYERS[name]
    x = rng.standard_normal((1, 21, 2)).astype("float32")

    def loss(x):
        y, state = layer(x, return_state=True)
        return ops.sum(y * y) + ops.sum(state * state), y

    layer.build((None, None, 2))
    y, weights, (dx,) = gradients(loss, layer, x)
    assert counted == expected
    monkeypatch.setenv("KERAS_SSM_FAST_PATHS", "0")
    plain, slopes, (slope,) = gradients(loss, layer, x)
    assert counted == expected
    assert relative_error(y, plain) < CLOSE and relative_error(dx, slope) < CLOSE_SUMS
    for key, value in slopes.items():
        assert relative_error(weights[key], value) < 5 * CLOSE_SUMS, key


def test_a_mixed_policy_reads_and_writes_bfloat16(rng, monkeypatch):
    from keras_ssm.ops.backend.torch.triton import functions as triton_functions

    x = ops.convert_to_tensor(rng.standard_normal((1, 21, 2)).astype("float32"))
    dtypes, forward = [], triton_functions.Outputs.forward

    def watched(ctx, settings, u, *tensors):
        y = forward(ctx, settings, u, *tensors)
        dtypes.extend([u.dtype, tensors[0].dtype, y.dtype])
        return y

    exact = layers.S4D(state_dim=4, seed=0)(x)
    monkeypatch.setattr(triton_functions.Outputs, "forward", staticmethod(watched))
    x = ops.cast(x, "bfloat16")
    for switch in ("1", "0"):
        monkeypatch.setenv("KERAS_SSM_FAST_PATHS", switch)
        y = layers.S4D(state_dim=4, seed=0, dtype="mixed_bfloat16")(x)
        assert y.dtype == torch.bfloat16 and relative_error(y.float(), exact) < 2e-2
        assert dtypes == [torch.bfloat16, torch.float32, torch.bfloat16]
    monkeypatch.delenv("KERAS_SSM_FAST_PATHS")
    layers.DSS(state_dim=3, variant="softmax", seed=0, dtype="mixed_bfloat16")(x)
    assert dtypes[3:] == [torch.float32] * 3


def test_gradients_of_gradients(rng):
    layer = layers.S4D(state_dim=4, seed=0)
    x = ops.convert_to_tensor(rng.standard_normal((1, 20, 2)).astype("float32"))
    found = []
    for switch in ("1", "0"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KERAS_SSM_FAST_PATHS", switch)
            leaf = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad((layer(leaf) ** 2).sum(), leaf, create_graph=True)
            found.append(torch.autograd.grad((slope**2).sum(), leaf)[0])
    assert relative_error(*found) < CLOSE


def test_no_constants_come_from_the_host(rng, monkeypatch):
    """A copy to the card would forbid to capture a graph."""
    made = []
    for name in ("tensor", "as_tensor", "from_numpy"):
        function = getattr(torch, name)

        def watched(data, *arguments, function=function, **options):
            if not torch.is_tensor(data):
                made.append(data)
            return function(data, *arguments, **options)

        monkeypatch.setattr(torch, name, watched)
    more = [layers.S4D(state_dim=4, discretization="bilinear", bandlimit=1.0, bidirectional=True)]
    more.append(layers.DSS(state_dim=3, variant="clip", init="randn"))
    for layer in (*(layer for layer, _ in LAYERS.values()), *more):
        x = ops.convert_to_tensor(rng.standard_normal((1, 20, 2)).astype("float32"))
        layer(x)
        made.clear()
        layer(x)
        assert made == [], layer.name


def test_what_a_wrong_card_computes_is_not_used(rng, counted, monkeypatch):
    """The comparison of the first call sees a wrong kernel, and the layer says so and runs."""
    from keras_ssm.ops.backend.torch.triton import bank as triton_bank
    from keras_ssm.ops.backend.torch.triton import check as triton_check

    device = torch.device("cuda" if GPU else "cpu")
    monkeypatch.setattr(triton_check, "LENGTH", 36)
    assert triton_check.error_of_bank(device, torch.float32, 16) < CLOSE
    right = triton_bank.Walk.starts
    monkeypatch.setattr(
        triton_bank.Walk, "starts", lambda *a, **k: [0.9 * x for x in right(*a, **k)]
    )
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a card")
    with pytest.warns(UserWarning, match=r"do not work on a card.* Found: 0\.\d*[1-9]"):
        assert not torch_bank._is_right(device, torch.float32, 16)


@pytest.mark.parametrize("lead, steps, modes, varies, reverse, block", SCANS)
def test_diagonal_scan(lead, steps, modes, varies, reverse, block, rng, monkeypatch):
    from keras_ssm.ops.backend.torch.triton import kernels as triton_kernels
    from keras_ssm.ops.backend.torch.triton import scan as triton_scan

    monkeypatch.setattr(triton_scan, "BLOCK_STEPS", block or 16)
    monkeypatch.setattr(triton_scan, "SHORTEST_SEGMENT", 8)  # so that there are several
    kernel = lambda *arrays: triton_kernels.diagonal_scan(*arrays, reverse)
    check_scan(kernel, lead, steps, modes, varies, reverse, rng)


@pytest.mark.parametrize("number, shape, name", WRONG_SCANS)
def test_errors(number, shape, name):
    from keras_ssm.ops.backend.torch.triton import kernels as triton_kernels

    arrays = scan_operands()
    arrays[number] = ops.zeros(shape)
    with pytest.raises(ValueError, match=rf"`{name}`.*Received: .*{shape[-1]}"):
        triton_kernels.diagonal_scan(*arrays)


def test_out_of_use_elsewhere(rng, counted, monkeypatch):
    """Other data types, and a CPU without the interpreter."""
    layer = layers.S4D(state_dim=4, seed=0)
    x = ops.convert_to_tensor(rng.standard_normal((1, 20, 2)).astype("float32"))
    layer(x)
    assert counted == ["Hold", "Outputs"]
    layers.S4D(state_dim=4, seed=0, dtype="float64")(x)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    layer(x)
    assert counted == ["Hold", "Outputs"] * (2 if GPU else 1)
    assert backend.fused_bank is torch_bank.fused_bank


COMPILE_FOR_A_GPU = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from keras_ssm.ops.backend import walk_plan
from keras_ssm.ops.backend.torch.triton import dense as triton_dense, dplr as triton_dplr
from keras_ssm.ops.backend.torch.triton import parts as triton_parts
from keras_ssm.ops.backend.torch.triton import scan as triton_scan
from keras_ssm.ops.backend.torch.triton import selective as triton_selective
from keras_ssm.ops.backend.torch.triton import selective_slopes as triton_selective_slopes
from keras_ssm.ops.backend.torch.triton import slopes as triton_slopes, walk as triton_walk

NUMBERS = ("length", "features", "lanes", "G", "S", "rows", "origin", "way", "lag", "modes")
NUMBERS += ("first", "batch", "size", "programs", "steps", "x_row", "y_row", "u_row", "dy_row")
NUMBERS += ("du_row", "states", "E_feature", "E_row", "E_column", "in_feature", "in_batch")
NUMBERS += ("in_step", "out_feature", "out_batch", "out_step")

# Where `states` are a sequence, and not a number.
OF_STATES = triton_dense._dense_kernel, triton_scan._scan_kernel

def assemble(kernel, constants, num_warps):
    constants = {n: v for n, v in constants.items() if n in kernel.arg_names}
    numbers = set(NUMBERS) - ({"states"} if kernel in OF_STATES else set())
    signature = {n: "i32" if n in numbers else "*fp32" for n in kernel.arg_names}
    types = {"dA_rows": "*i64", "lengths": "*i32", "mask": "*i8"}
    signature |= {n: t for n, t in types.items() if n in signature}
    signature |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, signature=signature, constexprs=constants)
    return compile(source, target=GPUTarget("cuda", 80, 32), options={"num_warps": num_warps})

for kernel, (size, features, lanes) in walk_plan.TILES[4].items():
    parts = 32 // size
    features = min(features, lanes // parts)
    constants = {"T": 16, "NM": size, "PARTS": parts, "BH": features, "M": 16, "EXACT": True}
    constants |= {"LONG": False, "SIZE": 16, "MOMENT": kernel == "moments", "ADD": True}
    constants |= {"BY_ROW": False, "INPUT": True}
    code = {"outputs": triton_walk.outputs, "slopes": triton_slopes.slopes}
    code = code.get(kernel, triton_walk.ends)
    found = assemble(code, constants, features * parts)
    assert "mma.sync" in found.asm["ptx"] and len(found.asm["cubin"])
constants = {"T": 16, "NM": 16, "PARTS": 2, "DRIVEN": True, "NORMAL": True, "DIRECT": True}
constants |= dict.fromkeys(("MOMENT", "ENDS", "INITIAL", "LAST", "ADD"), True) | {"BLOCK": 256}
for name in ("matrices", "starts", "gather"):
    assemble(getattr(triton_parts, name), constants, 4)
for code in range(8):
    flags = {"VARIES": code > 3, "REVERSE": code % 2 == 1, "ADJOINT": code % 4 > 1}
    flags |= {"STARTED": True, "ENDS": code % 3 == 0, "BLOCK": 64, "TILE_MODES": 16}
    assemble(triton_scan._scan_kernel, flags, 4)
for ends in (False, True):
    constants = {"M": 16, "N": 64, "REVERSE": ends, "STARTED": True, "ENDS": ends}
    assert "mma.sync" in assemble(triton_dense._dense_kernel, constants, 4).asm["ptx"]
for kernel in (triton_dplr.bilinear, triton_dplr.slopes_of_bilinear):
    assemble(kernel, {"N": 32}, 4)
constants = {"T": 4, "EVERY": 8, "NM": 16, "BH": 32, "PROJECTED": True, "MASKED": True}
constants |= {"DIRECT": True, "STARTED": True, "KEEP": True, "INITIAL": True, "REVERSE": True}
for adjoint in (False, True):
    assemble(triton_selective.ends, constants | {"ADJOINT": adjoint}, 1)
for kernel in (triton_selective.starts, triton_selective.outputs, triton_selective_slopes.slopes):
    assemble(kernel, constants, 1)
"""


@pytest.mark.slow
def test_compiles_for_a_gpu():
    """The interpreter takes more than the compiler of a GPU does; none is needed to compile."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", COMPILE_FOR_A_GPU]
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stderr[-2000:]
