"""JAX's GPU kernels of Mamba's recurrence: in Pallas' interpreter where there is no GPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, PartitionSpec
from keras import ops

from keras_ssm import layers
from keras_ssm.ops.backend import scan_plan
from keras_ssm.ops.backend.jax import bank as jax_bank
from keras_ssm.ops.naive import naive_selective
from keras_ssm.ops.selective_scan import projected_scan, selective_scan
from tests.backend_tools import gradients, relative_error
from tests.pallas_tools import forgetting
from tests.scan_operands import scan_operands

pytestmark = pytest.mark.only("jax")

GPU = jax.default_backend() == "gpu"

# Batch, length, features, states and rank, and what is left out. Segments have at least 8 steps.
CASE = (2, 17, 3, 5, 2), ()
MORE = {
    "given_steps": ((1, 21, 3, 5, None), ()),
    "1": ((1, 1, 1, 1, None), ("D",)),
    "2": ((2, 2, 3, 16, 1), ("mask",)),
    "15": ((3, 15, 2, 2, None), ("initial_state",)),
    "16": ((1, 16, 5, 16, 3), ("D", "initial_state")),
    "65": ((1, 65, 33, 7, 1), ()),
}


@pytest.fixture
def traced_anew():
    from keras_ssm.ops.backend.jax.pallas import mamba

    yield from forgetting(mamba.outputs, mamba.slopes)


@pytest.fixture
def kernels(monkeypatch, traced_anew):
    """The kernels of small tiles and segments, in the interpreter unless there is a GPU."""
    monkeypatch.delenv("KERAS_SSM_FAST_PATHS", raising=False)
    monkeypatch.setattr(scan_plan, "SHORTEST_SEGMENT", 8)
    if not GPU:
        monkeypatch.setattr(jax_bank, "INTERPRETED", True)
        for name in ("FEATURES", "T", "EVERY"):
            monkeypatch.setattr(scan_plan, name, 2)


@pytest.fixture
def card(monkeypatch, traced_anew):
    """What an NVIDIA GPU would be asked for, without one: programs are made, and not run."""
    monkeypatch.delenv("KERAS_SSM_FAST_PATHS", raising=False)
    monkeypatch.setattr(jax_bank, "_found_card", lambda: True)
    monkeypatch.setattr(scan_plan, "SHORTEST_SEGMENT", 8)
    sizes = (1, 2, 4, 8, 16, 32)
    right = {("error_of_selective_scan", "float32", size): True for size in sizes}
    monkeypatch.setattr(jax_bank, "_right", right)


@pytest.fixture
def counted(monkeypatch):
    used, right = [], jax_bank.with_kernels
    monkeypatch.setattr(jax_bank, "with_kernels", lambda *a: used.append(a) or right(*a))
    return used


def by_definition(x, A, B, C, D=None, initial_state=None, dt=None, mask=None, **projection):
    if dt is None:
        low, kernel, bias = (projection[name] for name in ("low", "kernel", "bias"))
        dt = jax.nn.softplus(low @ kernel + bias)
    dt = dt if mask is None else dt * mask[..., None]
    y, last = naive_selective(x, dt, A, B, C, initial_state)
    return (y if D is None else y + x * D), last


def compared(function, tensors, **options):
    """The largest errors of outputs, last state and each gradient."""

    def both(form, tensors):
        y, pull = jax.vjp(lambda t: form(**t, **options), tensors)
        noise = [np.random.default_rng(i).standard_normal(z.shape) for i, z in enumerate(y)]
        upstream = tuple(jnp.asarray(z, a.dtype) for z, a in zip(noise, y, strict=True))
        return [*y, *jax.tree.leaves(pull(upstream)[0])]

    found = jax.jit(lambda t: both(function, t))(tensors)
    wide = lambda z: np.asarray(z, "float64")
    with jax.enable_x64(True):
        exact = jax.jit(lambda t: both(by_definition, t))(jax.tree.map(wide, tensors))
    pairs = zip(["y", "last", *sorted(tensors)], found, exact, strict=True)
    return {name: relative_error(wide(a), b) for name, a, b in pairs}


def arguments(rng, sizes, without):
    tensors = scan_operands(rng, *sizes)
    tensors = {name: z for name, z in tensors.items() if name not in without}
    if sizes[-1] is None:
        return selective_scan, tensors, {}
    seen = None if "mask" in without else rng.random(sizes[:2]) < 0.8
    tensors["bias"] = tensors["bias"] - 4.0  # where softplus cancels
    return projected_scan, tensors, {"mask": seen}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(CASE, id="17"),
        *(pytest.param(case, id=name, marks=pytest.mark.slow) for name, case in MORE.items()),
    ],
)
def test_outputs_states_and_gradients(case, rng, kernels, counted):
    function, tensors, options = arguments(rng, *case)
    errors = compared(function, tensors, **options)
    assert len(counted) == 1
    assert max(errors.values()) < 3e-6, errors


@pytest.mark.slow
def test_sequences_in_bfloat16(rng, kernels, counted):
    """What is read and written is rounded, and nothing between."""
    tensors = scan_operands(rng, 1, 9, 3, 4)
    for name in ("x", "dt", "B", "C"):
        tensors[name] = jnp.asarray(tensors[name], "bfloat16")
    y, last = selective_scan(**tensors)
    assert y.dtype == jnp.bfloat16 and last.dtype == jnp.float32
    errors = compared(selective_scan, tensors)
    assert len(counted) == 2
    for name in ("last", "initial_state"):
        assert errors.pop(name) < 1e-2
    assert max(errors.values()) < 1e-2, errors


@pytest.mark.slow
def test_mamba(rng, kernels, counted, monkeypatch):
    """The layer takes the kernels by itself, unless they are switched off."""
    layer = layers.Mamba(state_dim=3, seed=0)
    layer.build((None, None, 4))
    x = rng.standard_normal((2, 19, 4)).astype("float32")

    def loss(x):
        y, state = layer(x, return_state=True)
        return ops.sum(y * y) + sum(ops.sum(z * z) for z in jax.tree.leaves(state)), y

    y, weights, (dx,) = gradients(loss, layer, x, compile=True)
    used = len(counted)
    monkeypatch.setenv("KERAS_SSM_FAST_PATHS", "0")
    plain, slopes, (slope,) = gradients(loss, layer, x, compile=True)
    assert used == len(counted) > 0
    assert relative_error(y, plain) < 1e-5 and relative_error(dx, slope) < 1e-5
    for key, value in slopes.items():
        assert relative_error(weights[key], value) < 1e-4, key


@pytest.mark.slow
def test_gradients_of_gradients(rng, kernels):
    function, tensors, _ = arguments(rng, (1, 5, 2, 2, 1), ("mask",))
    found = []
    for form in (function, by_definition):
        first = jax.grad(lambda x, form=form: jnp.sum(form(**{**tensors, "x": x})[0] ** 2))
        second = jax.grad(lambda x, first=first: jnp.sum(first(x) ** 2))
        found.append(jax.jit(second)(jnp.asarray(tensors["x"])))
    assert relative_error(*found) < 1e-5


def loss(x, low, kernel, bias, A, B, C):
    y, state = projected_scan(x, low, kernel, bias, A, B, C)
    return jnp.sum(y**2) + jnp.sum(state**2)


def in_shards(x, *system):
    """The portable form, whose gradient JAX does not let be mapped so."""
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(AxisType.Auto,))
    rows, whole = PartitionSpec("rows"), PartitionSpec()
    specs = rows, rows, whole, whole, whole, rows, rows
    scan = lambda *tensors: projected_scan(*tensors)[0]
    scan = jax.shard_map(scan, mesh=mesh, in_specs=specs, out_specs=rows)
    return jnp.sum(scan(x, *system) ** 2)


# A function, and the kernels in it: the outputs and their gradients, and the ends of segments
# before each.
PROGRAMS = {
    "gradients": (jax.grad(loss, argnums=tuple(range(7))), 4),
    "outputs": (loss, 2),
    "vmap": (jax.vmap(jax.grad(loss), in_axes=(0, *[None] * 6)), 4),
    "checkpoint": (jax.grad(jax.checkpoint(loss)), 4),
    "scan": (lambda xs, *s: jax.lax.scan(lambda c, x: (c, loss(x, *s)), 0.0, xs)[1], 2),
    "shard_map": (in_shards, 0),
}


@pytest.mark.parametrize(
    "name",
    [n if n == "gradients" else pytest.param(n, marks=pytest.mark.slow) for n in PROGRAMS],
)
def test_programs_for_a_card(name, rng, card, monkeypatch):
    """The compiler of JAX takes the kernels, for a GPU alone, and no exported program has them."""
    function, count = PROGRAMS[name]
    tensors = scan_operands(rng, 2, 19, 3, 4, 2)
    del tensors["D"], tensors["initial_state"]
    if name in ("vmap", "scan"):
        tensors["x"] = np.stack([tensors["x"]] * 2)
    arrays = [jax.ShapeDtypeStruct(z.shape, z.dtype) for z in tensors.values()]
    traced = jax.jit(function).trace(*arrays)
    text = lambda platform: traced.lower(lowering_platforms=(platform,)).as_text()
    assert text("cuda").count("gpu.triton") == count
    if name == "outputs":
        assert "gpu.triton" not in text("cpu")
        exported = export.export(jax.jit(function), platforms=("cpu", "cuda"))(*arrays)
        assert "gpu.triton" not in exported.mlir_module()
        monkeypatch.setenv("KERAS_SSM_FAST_PATHS", "0")
        traced = jax.jit(lambda *t: function(*t)).trace(*arrays)
        assert "gpu.triton" not in traced.lower(lowering_platforms=("cuda",)).as_text()


def test_out_of_use_for_others(rng, card, counted, monkeypatch):
    """Other data types, states that a program cannot hold, a switch, and a wrong card."""
    tensors = scan_operands(rng, 1, 3, 2, 3)
    given = {name: jnp.asarray(z) for name, z in tensors.items()}
    short = {name: z.astype("float16") for name, z in given.items()}
    large = scan_operands(rng, 1, 3, 2, 17)
    jax.eval_shape(lambda: (selective_scan(**short), selective_scan(**large)))
    wrong = {("error_of_selective_scan", "float32", 4): False}
    with monkeypatch.context() as patch:
        patch.setattr(jax_bank, "_right", wrong)
        jax.eval_shape(lambda: selective_scan(**given))
    with monkeypatch.context() as patch:
        patch.setenv("KERAS_SSM_FAST_PATHS", "0")
        jax.eval_shape(lambda: selective_scan(**given))
    assert counted == []
    jax.eval_shape(lambda: selective_scan(**given))
    assert len(counted) == 1


@pytest.mark.slow
def test_what_a_wrong_card_computes_is_seen(kernels, traced_anew, monkeypatch):
    from keras_ssm.ops.backend.jax.pallas import check, mamba

    monkeypatch.setattr(check, "OF_SCAN", (2, 18, 3))
    assert check.error_of_selective_scan("float32", 4) < 1e-5
    right = mamba._starts
    monkeypatch.setattr(mamba, "_starts", lambda *a, **k: 1.01 * right(*a, **k))
    traced_anew()
    assert check.error_of_selective_scan("float32", 4) > jax_bank.TOLERANCE["float32"]
