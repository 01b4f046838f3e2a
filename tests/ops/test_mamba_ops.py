import ctypes
import importlib

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.benchmark import memory
from keras_ssm.layers import Mamba
from keras_ssm.ops import backend
from keras_ssm.ops.causal_conv import causal_conv
from keras_ssm.ops.exporting import exporting
from keras_ssm.ops.naive import naive_selective
from keras_ssm.ops.selective_scan import projected_scan, selective_scan
from keras_ssm.ops.ssd import pass_states, ssd
from tests.backend_tools import BACKEND, gradients, relative_error, to_numpy
from tests.recordings import slow_but

# The package has the function under the name of its module.
selective_module = importlib.import_module("keras_ssm.ops.selective_scan")

BATCH, STATES = 2, 3
QUICK = [1, 2, 33, 65] if BACKEND == "torch" else [33]


def selective_inputs(rng, length, features=3):
    """x, dt, A, B, C and an initial state."""
    shapes = {"x": (BATCH, length, features), "dt": (BATCH, length, features)}
    shapes |= {"A": (features, STATES), "B": (BATCH, length, STATES), "C": (BATCH, length, STATES)}
    shapes |= {"initial": (BATCH, features, STATES)}
    drawn = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    drawn["dt"] = np.log1p(np.exp(drawn["dt"] - 1))
    drawn["A"] = -np.exp(drawn["A"])
    return [value.astype("float32") for value in drawn.values()]


def projected_inputs(rng, length, features=3, rank=2):
    """x, low, kernel, bias, A, B, C, D and an initial state."""
    x, _, A, B, C, initial = selective_inputs(rng, length, features)
    drawn = (BATCH, length, rank), (rank, features), (features,), (features,)
    low, kernel, bias, D = (rng.standard_normal(s).astype("float32") for s in drawn)
    return [x, low, kernel, bias - 1, A, B, C, D, initial]


def by_definition(x, low, kernel, bias, A, B, C, D, initial, mask=None):
    """What `projected_scan` computes."""
    dt = ops.softplus(backend.matmul(low, kernel) + bias)
    if mask is not None:
        dt = ops.where(mask[..., None], dt, 0.0 * dt)
    y, state = naive_selective(x, dt, A, B, C, initial)
    return y + x * D, state


def by_heads(x, dt, A, B, C, initial):
    """What `naive_selective` computes for the arguments of `ssd`."""
    batch, length, heads, head_dim = x.shape
    each = heads // B.shape[2]
    wide = lambda z, axis, n: ops.repeat(z, n, axis=axis)
    features = heads * head_dim
    B, C = (wide(wide(z, 2, each), 2, head_dim) for z in (B, C))
    A = wide(wide(A, 0, head_dim)[:, None], 1, B.shape[-1])
    initial = ops.reshape(initial, (batch, features, -1))
    x = ops.reshape(x, (batch, length, features))
    y, state = naive_selective(x, wide(dt, 2, head_dim), A, B, C, initial)
    shape = (batch, heads, head_dim, B.shape[-1])
    return ops.reshape(y, (batch, length, heads, head_dim)), ops.reshape(state, shape)


def ssd_inputs(rng, length, heads=4, groups=2, head_dim=2):
    shapes = {"x": (BATCH, length, heads, head_dim), "dt": (BATCH, length, heads), "A": (heads,)}
    shapes |= dict.fromkeys("BC", (BATCH, length, groups, STATES))
    shapes |= {"initial": (BATCH, heads, head_dim, STATES)}
    drawn = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    drawn["dt"] = np.log1p(np.exp(drawn["dt"] - 1))
    drawn["A"] = -np.exp(drawn["A"])
    return [value.astype("float32") for value in drawn.values()]


def selective(*tensors):
    return selective_scan(*tensors[:5], initial_state=tensors[5])


def projected(*tensors, mask=None):
    return projected_scan(*tensors[:8], mask=mask, initial_state=tensors[8])


@pytest.fixture(autouse=True)
def segments_of_any_size(monkeypatch):
    if keras.config.backend() == "jax":
        from keras_ssm.ops.backend.jax import dual as jax_dual

        monkeypatch.setattr(jax_dual, "FEWEST", 0)


def dual(chunk_size):
    return lambda *tensors: ssd(*tensors[:5], initial_state=tensors[5], chunk_size=chunk_size)


CASES = {
    "selective": (selective_inputs, selective, naive_selective),
    "projected": (projected_inputs, projected, by_definition),
    "ssd": (ssd_inputs, dual(None), by_heads),
    "ssd in chunks of 4": (ssd_inputs, dual(4), by_heads),
}


@pytest.mark.parametrize("length", slow_but(QUICK, [1, 2, 3, 33, 63, 64, 65, 257]))
@pytest.mark.parametrize(
    # A single chunk is among several.
    "form",
    # And step sizes that are given are those of a projection without it.
    [
        "projected",
        "ssd in chunks of 4",
        *(pytest.param(form, marks=pytest.mark.once("torch")) for form in ("ssd", "selective")),
    ],
)
def test_outputs_states_and_gradients_are_those_of_the_definition(form, length, rng):
    make, function, naive = CASES[form]
    inputs = make(rng, length)
    tensors = [ops.convert_to_tensor(x) for x in inputs]
    expected, state = naive(*tensors)
    weights = [rng.standard_normal(z.shape).astype("float32") for z in (expected, state)]

    weights = [ops.convert_to_tensor(weight) for weight in weights]

    def loss(form):
        def total(*tensors):
            y, state = form(*tensors)
            return ops.sum(y * weights[0]) + ops.sum(state * weights[1])

        return total

    y, last = function(*tensors)
    assert relative_error(to_numpy(y), to_numpy(expected)) < 1e-5
    assert relative_error(to_numpy(last), to_numpy(state)) < 1e-5
    identity = keras.layers.Identity()
    _, _, found = gradients(loss(function), identity, *inputs, compile="loops")
    _, _, wanted = gradients(loss(naive), identity, *inputs)
    for i, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        assert relative_error(ours, theirs) < 1e-5, i


@pytest.mark.only("torch")
@pytest.mark.parametrize("length", [1, 2, 3, 63, 64, 65, 257])
@pytest.mark.parametrize("form", ["row by row", "two chunks at once", "portable", "compiled"])
def test_heads_in_chunks_are_exact_at_any_cut(form, length, rng, monkeypatch):
    import torch

    from keras_ssm.ops.backend.torch import dual as torch_dual

    if form in ("portable", "compiled"):
        monkeypatch.setattr(backend, "fused_dual", lambda *arguments: None)
        monkeypatch.setattr(backend, "compiles_gradients", lambda: form == "compiled")
    else:
        chunk = 4 * 64 * 64
        monkeypatch.setattr(torch_dual, "TOGETHER", chunk if form == "row by row" else 4 * chunk)
    inputs = [ops.convert_to_tensor(x, "float64") for x in ssd_inputs(rng, length)]
    x, dt, *others = inputs
    strong = x, torch.cat([dt[:, :1], 100 * dt[:, 1:]], 1), *others  # nothing is left of a step
    for ours, wanted in zip(dual(None)(*strong), by_heads(*strong), strict=True):
        assert relative_error(to_numpy(ours), to_numpy(wanted)) < 1e-12
    inputs = [x.requires_grad_() for x in inputs]
    ours, wanted = dual(None)(*inputs), by_heads(*inputs)
    weights = [ops.convert_to_tensor(rng.standard_normal(z.shape)) for z in ours]
    found, expected = (z + torch.autograd.grad(z, inputs, weights) for z in (ours, wanted))
    for a, b in zip(found, expected, strict=True):
        assert relative_error(to_numpy(a), to_numpy(b)) < 1e-12
    x, dt, A, B, C, state = (z.detach() for z in inputs)
    for cut in {1, length // 2, length - 1} - {0}:
        y, last = [], state
        for part in (slice(0, cut), slice(cut, length)):
            if part.start < part.stop:
                piece = x[:, part], dt[:, part], A, B[:, part], C[:, part]
                found, last = ssd(*piece, initial_state=last)
                y.append(found)
        assert relative_error(to_numpy(torch.cat(y, 1)), to_numpy(wanted[0])) < 1e-12
        assert relative_error(to_numpy(last), to_numpy(wanted[1])) < 1e-12


@pytest.mark.only("jax")
# Of three chunks of 4 two make a segment, and of five three.
@pytest.mark.parametrize("length", slow_but([9], [9, 17]))
def test_heads_in_segments_are_exact(length, rng, monkeypatch):
    import jax

    from keras_ssm.ops.backend.jax import dual as jax_dual

    together = 2 if length == 9 else 3
    monkeypatch.setattr(jax_dual, "TOGETHER", together * 4 * BATCH * 8)
    inputs = ssd_inputs(rng, length)
    weights = [rng.standard_normal(z.shape).astype("float32") for z in by_heads(*inputs)]

    def loss(form):
        return lambda *tensors: sum(
            (y * w).sum() for y, w in zip(form(*tensors), weights, strict=True)
        )

    def both(form):
        slopes = jax.grad(loss(form), range(6))
        ahead = lambda *tensors: sum((z * z).sum() for z in slopes(*tensors))
        return jax.jit(lambda *tensors: (*form(*tensors), *jax.grad(ahead, range(6))(*tensors)))

    for i, (a, b) in enumerate(zip(both(dual(4))(*inputs), both(by_heads)(*inputs), strict=True)):
        assert relative_error(to_numpy(a), to_numpy(b)) < 3e-5, i


@pytest.mark.only("torch")
def test_heads_in_chunks_have_second_derivatives_and_work_without_gradients(rng):
    import torch

    inputs = [ops.convert_to_tensor(x, "float64") for x in ssd_inputs(rng, 5)]
    with torch.inference_mode():
        y, _ = dual(None)(*inputs)
    np.testing.assert_allclose(to_numpy(y), to_numpy(by_heads(*inputs)[0]), atol=1e-12)
    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradgradcheck(dual(2), inputs, fast_mode=True)
    frozen = [x.detach() for x in inputs[:2]] + inputs[2:]
    again = torch.autograd.grad(dual(2)(*frozen)[0].sum(), frozen[2])[0]
    expected = torch.autograd.grad(by_heads(*frozen)[0].sum(), frozen[2])[0]
    torch.testing.assert_close(again, expected)


@pytest.mark.only("torch")
def test_heads_in_chunks_have_gradients_under_autocast(rng):
    import torch

    inputs = [ops.convert_to_tensor(x, "float32").requires_grad_() for x in ssd_inputs(rng, 5)]
    wanted = torch.autograd.grad(dual(2)(*inputs)[0].sum(), inputs[:-1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.autograd.grad(dual(2)(*inputs)[0].sum(), inputs[:-1])
    for a, b in zip(found, wanted, strict=True):
        assert relative_error(to_numpy(a), to_numpy(b)) < 5e-2


@pytest.mark.cpu
@pytest.mark.only("torch")
@pytest.mark.parametrize("length", [1, 2, 3, 63, 64, 65, 257])
def test_the_scan_in_place_is_exact(length, rng, monkeypatch):
    """Blocks of features that do not divide them, and steps that end within a segment."""
    import torch

    from keras_ssm.ops.backend.torch import selective as torch_selective

    monkeypatch.setattr(torch_selective, "TOGETHER", 16 * BATCH * STATES)
    inputs = [ops.convert_to_tensor(x, "float64") for x in selective_inputs(rng, length, 43)]
    inputs.append(ops.convert_to_tensor(rng.standard_normal(43), "float64"))
    inputs = [x.requires_grad_() for x in inputs]
    assert torch_selective.selective_outputs(*inputs[:5], None, None, None) is not None

    def ours(*tensors):
        return selective_scan(*tensors[:5], D=tensors[6], initial_state=tensors[5])

    def definition(*tensors):
        y, state = naive_selective(*tensors[:6])
        return y + tensors[0] * tensors[6], state

    weights = [ops.convert_to_tensor(rng.standard_normal(z.shape)) for z in ours(*inputs)]
    found, wanted = (form(*inputs) for form in (ours, definition))
    found += torch.autograd.grad(found, inputs, weights)
    wanted += torch.autograd.grad(wanted, inputs, weights)
    names = "y", "last", "x", "dt", "A", "B", "C", "state", "D"
    for name, a, b in zip(names, found, wanted, strict=True):
        assert relative_error(to_numpy(a), to_numpy(b)) < 1e-12, name


@pytest.mark.only("torch")
def test_the_scan_in_place_has_second_derivatives_and_works_without_gradients(rng):
    import torch

    inputs = [ops.convert_to_tensor(x, "float64") for x in selective_inputs(rng, 3, 43)]
    with torch.inference_mode():
        y, _ = selective(*inputs)
    np.testing.assert_allclose(to_numpy(y), to_numpy(naive_selective(*inputs)[0]), atol=1e-12)
    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradgradcheck(selective, inputs, fast_mode=True)
    wide = [ops.convert_to_tensor(x, "float64") for x in projected_inputs(rng, 3, 43)]
    assert torch.autograd.gradgradcheck(
        projected, [x.requires_grad_() for x in wide], fast_mode=True
    )
    frozen = [x.detach() for x in inputs[:2]] + inputs[2:]
    again = torch.autograd.grad(selective(*frozen)[0].sum(), frozen[2])[0]
    expected = torch.autograd.grad(naive_selective(*frozen)[0].sum(), frozen[2])[0]
    torch.testing.assert_close(again, expected)


@pytest.mark.cpu
@pytest.mark.only("torch")
@pytest.mark.parametrize("length", [1, 33, 70])
def test_the_scan_in_place_with_projected_step_sizes_is_exact(length, rng, monkeypatch):
    import torch

    from keras_ssm.ops.backend.torch import selective as torch_selective

    monkeypatch.setattr(torch_selective, "TOGETHER", 16 * BATCH * STATES)
    monkeypatch.setattr(selective_module, "_projected", None)  # the fused form alone
    inputs = [ops.convert_to_tensor(x, "float64") for x in projected_inputs(rng, length, 43)]
    inputs = [x.requires_grad_() for x in inputs]
    mask = torch.from_numpy(rng.random((BATCH, length)) > 0.3)
    forms = projected, by_definition
    found, wanted = (form(*inputs, mask=mask) for form in forms)
    weights = [ops.convert_to_tensor(rng.standard_normal(z.shape)) for z in found]
    found += torch.autograd.grad(found, inputs, weights)
    wanted += torch.autograd.grad(wanted, inputs, weights)
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert relative_error(to_numpy(a), to_numpy(b)) < 1e-12, i


@pytest.mark.cpu
@pytest.mark.only("torch")
def test_a_training_pass_of_the_scan_takes_ten_activations_at_most(rng):
    import torch

    x, dt, _, _, _, _ = selective_inputs(rng, 1024, 256)
    others = rng.standard_normal((256, 16)), rng.standard_normal((BATCH, 1024, 16))
    inputs = [ops.convert_to_tensor(z, "float32") for z in (x, dt, -np.exp(others[0]), others[1])]
    inputs = [z.requires_grad_() for z in inputs]

    def training():
        return torch.autograd.grad(selective_scan(*inputs, inputs[-1])[0].sum(), inputs)

    training()
    assert memory.peak_memory(training) < 10 * 4 * BATCH * 1024 * 256


@pytest.fixture
def freed_at_once():
    """Memory goes back to the system when it is freed, as in `memory.ENVIRONMENT`."""
    libc, threshold = ctypes.CDLL("libc.so.6"), -3
    libc.mallopt(threshold, 2**16)
    yield
    libc.mallopt(threshold, 2**25)  # about what it grows to by itself


@pytest.mark.cpu
@pytest.mark.only("torch")
@pytest.mark.usefixtures("freed_at_once")
def test_a_training_pass_of_the_whole_layer_takes_ten_activations_at_most(rng):
    import torch

    layer = Mamba(state_dim=16, seed=0)
    layer.build((None, None, 128))
    x = ops.convert_to_tensor(rng.standard_normal((BATCH, 4096, 128)), "float32").requires_grad_()
    leaves = [x, *(v.value for v in layer.trainable_variables)]

    def training():
        return torch.autograd.grad(layer(x).sum(), leaves)

    training()
    assert memory.peak_memory(training) < 10 * 4 * BATCH * 4096 * 256


@pytest.mark.only("torch")
@pytest.mark.parametrize("width", [1, 2, 3])
def test_second_derivatives_of_the_selective_scan(width, rng, monkeypatch):
    import torch

    monkeypatch.setattr(selective_module, "STEPS", 8)  # three blocks, the last one short
    monkeypatch.setattr(backend, "blocks_side_by_side", lambda count, size: width)
    inputs = [ops.convert_to_tensor(x, "float64") for x in selective_inputs(rng, 18, features=1)]
    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradgradcheck(selective, inputs, fast_mode=True)


@pytest.mark.once("torch")
@pytest.mark.parametrize("length", [1, 16, 17, 70])
def test_a_program_without_loops_computes_the_same(length, rng):
    tensors = [ops.convert_to_tensor(x) for x in selective_inputs(rng, length)]
    with exporting(loops=False):
        found = selective(*tensors)
    for a, b in zip(found, naive_selective(*tensors), strict=True):
        assert relative_error(to_numpy(a), to_numpy(b)) < 1e-5


@pytest.mark.once("torch", "tensorflow")
@pytest.mark.parametrize("chunks", [1, 4, 5, 21])
def test_states_pass_through_blocks_of_blocks(chunks, rng):
    log_a = -rng.exponential(size=(2, chunks, 1, 2)).astype("float32")
    added = rng.standard_normal((2, chunks, 1, 2, 2, 3)).astype("float32")
    state = rng.standard_normal((2, 1, 2, 2, 3)).astype("float32")
    before, last = pass_states(*map(ops.convert_to_tensor, (log_a, added, state)), block=4)
    for m in range(chunks):
        assert relative_error(to_numpy(before[:, m]), state) < 1e-5
        state = np.exp(log_a[:, m])[..., None, None] * state + added[:, m]
    assert relative_error(to_numpy(last), state) < 1e-5


@pytest.mark.once("torch", "tensorflow")
def test_a_step_of_zero_leaves_the_state_and_decay_may_be_large(rng):
    x, dt, A, B, C, initial = selective_inputs(rng, 70)
    dt[:, 5:] = 0
    *_, state = selective(*map(ops.convert_to_tensor, (x, dt, A, B, C, initial)))
    *_, sooner = selective(
        *map(ops.convert_to_tensor, (x[:, :5], dt[:, :5], A, B[:, :5], C[:, :5], initial))
    )
    assert relative_error(to_numpy(state), to_numpy(sooner)) < 1e-6
    x, dt, A, B, C, initial = ssd_inputs(rng, 70)
    tensors = [ops.convert_to_tensor(z) for z in (x, 1e3 * dt, A, B, C, initial)]
    y, _ = dual(None)(*tensors)
    assert np.isfinite(to_numpy(y)).all()


@pytest.mark.cpu
@pytest.mark.only("torch")
@pytest.mark.parametrize(("length", "given"), [(9, True), (2, True), (9, False)])
def test_a_convolution_with_its_silu_is_exact(length, given, rng, monkeypatch):
    """In parts of three steps."""
    import torch

    from keras_ssm.ops.backend.torch import short_conv

    monkeypatch.setattr(short_conv, "TOGETHER", 1)
    shapes = (2, length, 3), (4, 3), (3,), (2, 3, 3)
    inputs = [torch.from_numpy(rng.standard_normal(s)).requires_grad_() for s in shapes]
    inputs = inputs[: 4 if given else 2]

    def fused(*tensors):
        return causal_conv(*tensors, activation="silu")[0]

    def plain(*tensors):
        return torch.nn.functional.silu(causal_conv(*tensors)[0])

    weight = torch.from_numpy(rng.standard_normal((2, length, 3)))
    found, wanted = ([f(*inputs), *_slopes(f, inputs, weight)] for f in (fused, plain))
    for a, b in zip(found, wanted, strict=True):
        assert relative_error(to_numpy(a), to_numpy(b)) < 1e-12
    assert torch.autograd.gradgradcheck(fused, inputs, fast_mode=True)


@pytest.mark.only("torch")
def test_a_convolution_in_bfloat16_sums_its_gradients_in_float32(rng, monkeypatch):
    """In 1,000 parts, of which each moves the sum by less than bfloat16 tells."""
    import torch

    from keras_ssm.ops.backend.torch import short_conv

    monkeypatch.setattr(short_conv, "TOGETHER", 1)
    x = torch.ones((1, 1000, 1), dtype=torch.bfloat16)
    kernel = torch.full((2, 1), 8, dtype=torch.bfloat16, requires_grad=True)
    y, _ = causal_conv(x, kernel, activation="silu")  # which is the identity here
    (slope,) = torch.autograd.grad(y.sum(), kernel)
    assert slope.flatten().tolist() == [1000, 1000]


@pytest.mark.only("torch")
def test_a_gate_is_exact(rng):
    import torch

    y, gate, weight = (torch.from_numpy(rng.standard_normal((2, 9, 3))) for _ in range(3))
    inputs = [y.requires_grad_(), gate.requires_grad_()]
    forms = backend.gated, lambda y, gate: y * torch.nn.functional.silu(gate)
    found, wanted = ([f(*inputs), *_slopes(f, inputs, weight)] for f in forms)
    for a, b in zip(found, wanted, strict=True):
        assert relative_error(to_numpy(a), to_numpy(b)) < 1e-12
    assert torch.autograd.gradgradcheck(backend.gated, inputs, fast_mode=True)


def _slopes(function, inputs, weight):
    import torch

    return torch.autograd.grad(function(*inputs), inputs, weight)


@pytest.mark.parametrize("width", [2, 4])
def test_a_convolution_sees_the_valid_samples_alone(width, rng):
    x = rng.standard_normal((1, 9, 2)).astype("float32")
    kernel = rng.standard_normal((width, 2)).astype("float32")
    before = rng.standard_normal((1, width - 1, 2)).astype("float32")
    mask = np.array([[False, True, True, False, True, False, True, True, False]])
    y, last = causal_conv(*map(ops.convert_to_tensor, (x, kernel)), None, before, mask)
    trimmed = np.concatenate([before, x[:, mask[0]]], axis=1)
    for i, t in enumerate(np.flatnonzero(mask[0])):
        expected = np.sum(trimmed[0, i : i + width] * kernel, axis=0)
        np.testing.assert_allclose(to_numpy(y)[0, t], expected, atol=1e-6)
    np.testing.assert_array_equal(to_numpy(last), trimmed[:, -(width - 1) :])
