"""JAX's GPU kernels against the definition: in Pallas' interpreter where there is no GPU."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, PartitionSpec

from keras_ssm import layers
from keras_ssm.ops import DiagonalBank, backend
from keras_ssm.ops.backend import walk_plan
from keras_ssm.ops.backend.jax import bank as jax_bank
from keras_ssm.ops.chunked import chunked
from tests.backend_tools import gradients, relative_error
from tests.pallas_tools import forgetting

pytestmark = pytest.mark.only("jax")

GPU = jax.default_backend() == "gpu"

# Two halves of bfloat16 have 16 bits, and sums may cancel.
CLOSE = 3e-5

# Arguments of `make_bank` and of `chunked`; several segments from 32 steps on.
BANKS = {
    "segments": ((2, 37, 3, 5), {"dB": False}),
    "states": ((3, 19, 1, 4), {"initial": True, "lengths": (0, 19, 7)}),
}
MORE = {
    "both_ways": ((1, 18, 1, 3), {"bidirectional": True, "channels": 2, "return_state": True}),
    "many_modes": ((1, 18, 1, 70), {"initial": True, "return_state": True}),
    # Awkward batches, lengths, features and numbers of modes.
    "1": ((1, 1, 1, 1), {"return_state": True}),
    "15": ((3, 15, 5, 8), {}),
    "16": ((1, 16, 33, 32), {}),
    "17": ((3, 17, 1, 32), {"bidirectional": True}),
    "65": ((1, 65, 33, 1), {"initial": True, "return_state": True}),
    "257": ((3, 257, 5, 8), {"lengths": (257, 255, 1)}),
}


@pytest.fixture
def traced_anew():
    from keras_ssm.ops.backend.jax.pallas import functions

    names = "outputs", "slopes", "last_state", "slopes_of_last_state"
    yield from forgetting(*(getattr(functions, name) for name in names))


@pytest.fixture
def kernels(monkeypatch, traced_anew):
    """The kernels of small tiles and segments, in the interpreter unless there is a GPU."""
    monkeypatch.delenv("KERAS_SSM_FAST_PATHS", raising=False)
    monkeypatch.setattr(walk_plan, "SHORTEST_SEGMENT", 16)
    if not GPU:
        monkeypatch.setattr(jax_bank, "INTERPRETED", True)
        monkeypatch.setattr(walk_plan, "WIDTH", 2)
        tiles = {"ends": (32, 2, 4), "moments": (32, 2, 4)}
        tiles |= {"outputs": (16, 2, 4), "slopes": (16, 2, 4)}
        monkeypatch.setattr(walk_plan, "TILES", {2: tiles, 4: tiles})


@pytest.fixture
def card(monkeypatch, traced_anew):
    """What an NVIDIA GPU would be asked for, without one: programs are made, and not run."""
    monkeypatch.delenv("KERAS_SSM_FAST_PATHS", raising=False)
    monkeypatch.setattr(jax_bank, "_found_card", lambda: True)
    monkeypatch.setattr(
        jax_bank, "_right", {("error_of_bank", name, 16): True for name in ("float32", "bfloat16")}
    )


def make_bank(rng, batch, length, features, modes, channels=1, **options):
    """Arguments of `by_kernels`, float32, some of them perhaps `None`."""
    draw = lambda *shape: rng.standard_normal(shape).astype("float32")
    pace = np.exp(rng.uniform(-4.0, -1.0, (features, 1)))
    log_dA = -0.5 * pace + 0 * np.arange(modes), 3.0 * pace * np.arange(modes)
    planes = channels * (2 if options.get("bidirectional") else 1)
    u = draw(batch, length, features)
    if "lengths" in options:
        u *= (np.arange(length)[None] < np.array(options["lengths"])[:, None])[..., None]
    return (
        u,
        tuple(part.astype("float32") for part in log_dA),
        (draw(planes, features, modes), draw(planes, features, modes)),
        (draw(features, modes), draw(features, modes)) if options.get("dB", True) else None,
        draw(channels, features),
        draw(batch, features, 2 * modes) if options.get("initial") else None,
    )


def by_kernels(u, log_dA, C, dB, D, initial, lengths=None, **options):
    return chunked(u, DiagonalBank(log_dA, dB, C), initial, lengths, D=D, **options)


def by_definition(u, log_dA, C, dB, D, initial, lengths=None, bidirectional=False, **_):
    """By the kernel of each feature, as a matrix, in the precision of the arguments."""
    steps = jnp.arange(u.shape[1])
    C, rest = C[0] + 1j * C[1], jnp.full(len(u), u.shape[1]) if lengths is None else lengths
    b = jnp.ones(log_dA[0].shape) if dB is None else dB[0] + 1j * dB[1]
    log_a = log_dA[0] + 1j * log_dA[1]
    powers = jnp.exp(log_a[..., None] * steps)
    K = 2.0 * jnp.einsum("chn,hnl->chl", C * b, powers).real
    lag = steps[:, None] - steps
    matrices = jnp.where(lag >= 0, K[: len(D)][:, :, jnp.maximum(lag, 0)], 0.0)
    if bidirectional:
        matrices += jnp.where(lag < 0, K[len(D) :][:, :, jnp.maximum(-lag - 1, 0)], 0.0)
    y = jnp.einsum("chts,bsh->btch", matrices, u) + u[:, :, None] * D
    left = rest[:, None] - 1 - steps
    decay = jnp.where(
        (left >= 0)[:, None, None], jnp.exp(log_a[..., None] * left[:, None, None]), 0
    )
    state = b * jnp.einsum("bhnl,blh->bhn", decay, u)
    if initial is not None:
        x = initial[..., : C.shape[-1]] + 1j * initial[..., C.shape[-1] :]
        later = jnp.exp(log_a[..., None] * (steps + 1))
        y += 2.0 * jnp.einsum("chn,bhn,hnl->blch", C[: len(D)], x, later).real
        state += jnp.exp(log_a * rest[:, None, None]) * x
    return y.reshape(*y.shape[:2], -1), jnp.concatenate([state.real, state.imag], axis=-1)


def with_gradients(function, arrays):
    """What a function of arrays returns, and the gradients for given ones of that, flat."""

    def both(arrays):
        outputs, pull = jax.vjp(lambda *arrays: function(*arrays), *arrays)
        noise = [np.random.default_rng(i).standard_normal(x.shape) for i, x in enumerate(outputs)]
        upstream = [jnp.asarray(z, x.dtype) for z, x in zip(noise, outputs, strict=True)]
        return outputs, pull(tuple(upstream))

    return [np.asarray(x) for x in jax.tree.leaves(jax.jit(both)(arrays))]


@pytest.mark.parametrize(
    "name", [*BANKS, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
)
def test_outputs_states_and_gradients(name, rng, kernels, monkeypatch):
    sizes, options = (BANKS | MORE)[name]
    arrays = make_bank(rng, *sizes, **options)
    given = {"bidirectional": options.get("bidirectional", False)}
    if "lengths" in options:
        given["lengths"] = np.array(options["lengths"], "int32")
    both = "lengths" in options or options.get("return_state", False)
    used = []
    with monkeypatch.context() as patch:
        right = jax_bank.with_kernels
        patch.setattr(jax_bank, "with_kernels", lambda *a: used.append(a) or right(*a))
        found = with_gradients(
            lambda *t: by_kernels(*t, return_state=both, **given)[: 1 + both], arrays
        )
    assert len(used) == 1 + both
    with jax.enable_x64(True):
        exact = with_gradients(
            lambda *t: by_definition(*t, **given)[: 1 + both],
            jax.tree.map(lambda x: jnp.asarray(x, "float64"), arrays),
        )
    for number, pair in enumerate(zip(found, exact, strict=True)):
        assert relative_error(*pair) < CLOSE, number


@pytest.mark.slow
def test_short_sequences_in_bfloat16(rng, kernels):
    """Sequences are read and written in bfloat16, and all else is float32."""
    u, *system = make_bank(rng, 2, 40, 2, 4)
    y = by_kernels(jnp.asarray(u, "bfloat16"), *system)[0]
    assert y.dtype == jnp.bfloat16
    exact = by_definition(u, *system)[0]
    assert relative_error(y, exact) < 2e-2
    layer = layers.S4D(state_dim=4, seed=0, dtype="mixed_bfloat16")
    assert layer(jnp.asarray(u, "bfloat16")).dtype == jnp.bfloat16


@pytest.mark.slow
def test_layers(rng, kernels, monkeypatch):
    """Layers run on the kernels by themselves, unless they are switched off."""
    x = rng.standard_normal((1, 21, 2)).astype("float32")
    for layer in (layers.S4D(state_dim=4, seed=0), layers.DSS(state_dim=3, variant="exp", seed=0)):
        layer.build((None, None, 2))

        def loss(x, layer=layer):
            y = layer(x)
            return jnp.sum(y * y), y

        y, weights, (dx,) = gradients(loss, layer, x, compile=True)
        with monkeypatch.context() as patch:
            patch.setenv("KERAS_SSM_FAST_PATHS", "0")
            plain, slopes, (slope,) = gradients(loss, layer, x, compile=True)
        assert not np.array_equal(y, plain)
        assert relative_error(y, plain) < CLOSE and relative_error(dx, slope) < CLOSE
        for key, value in slopes.items():
            assert relative_error(weights[key], value) < 5 * CLOSE, key


@pytest.mark.slow
def test_gradients_of_gradients(rng, kernels, monkeypatch):
    layer = layers.S4D(state_dim=4, seed=0)
    x = jnp.asarray(rng.standard_normal((1, 20, 2)), "float32")
    layer.build(x.shape)
    slope = jax.grad(lambda x: jnp.sum(layer(x) ** 2))
    found = jax.grad(lambda x: jnp.sum(slope(x) ** 2))(x)
    monkeypatch.setenv("KERAS_SSM_FAST_PATHS", "0")
    assert relative_error(found, jax.grad(lambda x: jnp.sum(slope(x) ** 2))(x)) < CLOSE


def loss(u, log_dA, C, D):
    y, state = by_kernels(u, log_dA, C, None, D, None, return_state=True)
    return jnp.sum(y**2) + jnp.sum(state**2)


def in_shards(u, log_dA, C, D):
    """Where a rule is missing, the portable form."""
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(AxisType.Auto,))
    specs = PartitionSpec("rows"), PartitionSpec(), PartitionSpec(), PartitionSpec()
    outputs = lambda u, log_dA, C, D: by_kernels(u, log_dA, C, None, D, None)[0]
    outputs = jax.shard_map(outputs, mesh=mesh, in_specs=specs, out_specs=specs[0])
    return jnp.sum(outputs(u, log_dA, C, D) ** 2)


# A function, and the kernels in it: one for the outputs, one for a state, one and two for their
# gradients.
PROGRAMS = {
    "outputs": (jax.grad(lambda *t: jnp.sum(by_kernels(*t[:3], None, t[3], None)[0] ** 2)), 2),
    "gradients": (jax.grad(loss, argnums=(0, 1, 2, 3)), 5),
    "vmap": (jax.vmap(jax.grad(loss), in_axes=(0, None, None, None)), 5),
    "checkpoint": (jax.grad(jax.checkpoint(loss)), 5),
    "scan": (lambda us, *s: jax.lax.scan(lambda c, u: (c, loss(u, *s)), 0.0, us)[1], 2),
    "shard_map": (jax.grad(in_shards), 0),
}


@pytest.mark.parametrize(
    "name",
    [
        name if name == "outputs" else pytest.param(name, marks=pytest.mark.slow)
        for name in PROGRAMS
    ],
)
def test_programs_for_a_card(name, rng, card):
    """The compiler of JAX takes the kernels, for a GPU alone, and no exported program has them."""
    function, count = PROGRAMS[name]
    u, log_dA, C, _, D, _ = make_bank(rng, 2, 37, 3, 4)
    u = np.stack([u, u]) if name in ("vmap", "scan") else u
    arrays = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (u, log_dA, C, D))
    traced = jax.jit(function).trace(*arrays)
    text = lambda platform: traced.lower(lowering_platforms=(platform,)).as_text()
    assert text("cuda").count("gpu.triton") == count
    if name == "gradients":
        assert "gpu.triton" not in text("cpu")
        exported = export.export(jax.jit(function), platforms=("cpu", "cuda"))(*arrays)
        assert "gpu.triton" not in exported.mlir_module()


def test_the_comparison_runs_while_a_program_is_traced(rng, card, monkeypatch):
    """And a kernel that is found to be wrong is not used."""
    from keras_ssm.ops.backend.jax.pallas import check

    u, *system = make_bank(rng, 1, 20, 2, 3)
    asked, program = [], lambda u: by_kernels(u, *system)[0]
    monkeypatch.setattr(jax_bank, "_right", {})

    def error(dtype, modes):
        asked.append((dtype, modes))
        return float(jax.jit(lambda x: 0.5 + 0 * x)(1.0))

    monkeypatch.setattr(check, "error_of_bank", error)
    with pytest.warns(UserWarning, match=r"do not work on .* Found: 0\.5"):
        traced = jax.jit(jax.vmap(program)).trace(jnp.asarray(u)[None])
    jax.jit(program).trace(jnp.asarray(u))
    assert asked == [("float32", 16)]
    assert "gpu.triton" not in traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.slow
def test_what_a_wrong_card_computes_is_seen(kernels, traced_anew, monkeypatch):
    from keras_ssm.ops.backend.jax.pallas import calls, check

    monkeypatch.setattr(check, "LENGTH", 36)
    assert check.error_of_bank("float32", 16) < CLOSE
    right = calls.Walk.matrices
    wrong = lambda *a, **k: [1.001 * x for x in right(*a, **k)]
    monkeypatch.setattr(calls.Walk, "matrices", wrong)
    traced_anew()
    assert check.error_of_bank("float32", 16) > jax_bank.TOLERANCE["float32"]


def test_out_of_use_elsewhere(rng, card, monkeypatch):
    """Other data types, sharded arrays, a switch, and another device than the default one."""
    u, *system = make_bank(rng, 1, 20, 2, 3)
    y = by_kernels(u, *system)[0]  # of arrays on a CPU
    monkeypatch.setenv("KERAS_SSM_FAST_PATHS", "0")
    if not GPU:
        np.testing.assert_array_equal(y, by_kernels(u, *system)[0])
    bank = DiagonalBank(system[0], system[2], system[1])
    given = {"lengths": None, "bidirectional": False, "return_state": False, "portable": None}
    short = jnp.asarray(u, "bfloat16")
    assert backend.fused_bank(jnp.asarray(u), bank, None, D=None, **given) is None
    assert not backend.reads_short(short)
    monkeypatch.delenv("KERAS_SSM_FAST_PATHS")
    assert backend.reads_short(short) and not backend.reads_short(u)
    assert not jax_bank._applies(jnp.asarray(u, "int32"), bank, None, None)
    assert not jax_bank._applies(jnp.asarray(u), bank, jnp.zeros((1, 2, 6), "bfloat16"), None)


@pytest.mark.slow
@pytest.mark.skipif(GPU, reason="a GPU needs the kernels")
def test_a_cpu_imports_no_kernels():
    code = "import sys, numpy as np\nfrom keras_ssm import layers\n"
    code += "layers.S4D(state_dim=4)(np.ones((1, 20, 2), 'float32'))\n"
    code += "assert not [m for m in sys.modules if m.startswith('keras_ssm') and 'pallas' in m]"
    subprocess.run([sys.executable, "-c", code], check=True)
