"""The GPU kernels against the portable operations: in their interpreters where there is no GPU.

Triton decides whether it interprets as its kernels are defined, so its variable is set while they
are imported, and again for the tests here alone: elsewhere on a CPU they stay out of use.
"""

import importlib
import importlib.util
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import S4D
from keras_ssm.ops import backend, scan
from keras_ssm.ops.backend.kernel_shapes import padded
from keras_ssm.ops.backend.switch import fast_paths_enabled
from tests.backend_tools import BACKEND, relative_error, to_numpy

LIBRARY = {"jax": "pallas", "torch": "triton"}.get(BACKEND)


def import_kernels():
    """The module of this backend, what interprets it, and why there is none."""
    if LIBRARY is None:
        return None, {}, f"no kernels for {BACKEND}"
    if LIBRARY == "triton" and importlib.util.find_spec("triton") is None:
        return None, {}, "triton is not installed"
    kernels = importlib.import_module(f"keras_ssm.ops.backend.{LIBRARY}_kernels")
    if LIBRARY == "pallas":
        import jax

        return kernels, {"interpret": jax.default_backend() == "cpu"}, ""
    import torch

    if not torch.cuda.is_available():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_INTERPRET", "1")
            for name in ("chunk", "scan"):
                importlib.import_module(f"keras_ssm.ops.backend.triton_{name}")
    return kernels, {}, ""


KERNELS, OPTIONS, REASON = import_kernels()
needs_kernels = pytest.mark.skipif(KERNELS is None, reason=REASON)


@pytest.fixture
def interpreter(monkeypatch):
    """Triton's variable, without a GPU; Pallas is told by an argument."""
    if LIBRARY == "triton":
        import torch

        if not torch.cuda.is_available():
            monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("KERAS_SSM_FAST_PATHS", "1")


def value_and_gradients(function, arrays, weights):
    """A function's value and the gradients of its sum weighted by `weights`, in NumPy."""
    if BACKEND == "jax":
        import jax

        @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
        def both(*arrays):
            value, pull = jax.vjp(function, *arrays)
            return value, pull(weights)

        value, found = both(*arrays)
    else:
        import torch

        arrays = [ops.convert_to_tensor(x).requires_grad_() for x in arrays]
        value = function(*arrays)
        total = (value * ops.convert_to_tensor(weights)).sum()
        found = torch.autograd.grad(total, arrays, materialize_grads=True)
        value = value.detach()
    return to_numpy(value), [to_numpy(g) for g in found]


def agree(kernel, plain, arrays, shape, rng):
    weights = rng.standard_normal(shape).astype("float32")
    value, found = value_and_gradients(kernel, arrays, weights)
    reference, expected = value_and_gradients(plain, arrays, weights)
    assert relative_error(value, reference) < 1e-5
    for number, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        if np.any(theirs):
            assert relative_error(mine, theirs) < 1e-5, number
        else:  # what enters the state of a single chunk is never read
            assert not np.any(mine), number


def complex_product(a, b):
    (p, q), (r, s) = np.split(a, 2, axis=-1), np.split(b, 2, axis=-1)
    return np.concatenate([p * r - q * s, p * s + q * r], axis=-1)


def plain_chunk_pass(x, response, E_in, transition, E_out):
    """Chunk after chunk, by the definition, on tensors."""
    batch, length, _ = x.shape
    T, modes = response.shape[1], transition.shape[1] // 2
    a_re, a_im = transition[:, :modes], transition[:, modes:]
    x = ops.pad(x, [(0, 0), (0, -length % T), (0, 0)])
    state, parts = ops.zeros((batch, *transition.shape)), []
    for first in range(0, length, T):
        u = x[:, first : first + T]
        y = backend.exact_einsum("bth,htk->bkh", u, response)
        parts.append(y + backend.exact_einsum("bhn,hnk->bkh", state, E_out))
        re, im = state[..., :modes], state[..., modes:]
        moved = ops.concatenate([a_re * re - a_im * im, a_re * im + a_im * re], axis=-1)
        state = moved + backend.exact_einsum("bth,htn->bhn", u, E_in)
    return ops.concatenate(parts, axis=1)[:, :length]


def chunk_arrays(rng, batch, length, features, T, modes):
    """Inputs, and the matrices of a bank of slowly and quickly decaying modes."""
    dt = np.exp(rng.uniform(np.log(1e-2), np.log(0.2), (features, 1)))
    return x_and_bank(rng, batch, length, T, dt, modes)


def x_and_bank(rng, batch, length, T, dt, modes, dtype="float32"):
    features = len(dt)
    A = -0.5 + 1j * np.pi * np.arange(modes)
    C = rng.standard_normal((features, modes)) + 1j * rng.standard_normal((features, modes))
    dA, dB = np.exp(dt * A), (np.exp(dt * A) - 1) / A
    powers = dA[:, None] ** np.arange(T + 1)[:, None]  # (features, T + 1, modes)
    join = lambda z: np.concatenate([z.real, z.imag], axis=-1)  # noqa: E731
    K = 2 * np.einsum("hn,hln,hn->hl", C, powers[:, :T], dB).real
    lag = np.arange(T) - np.arange(T)[:, None]
    response = np.where(lag >= 0, K[:, np.maximum(lag, 0)], 0.0)
    E_in = join(dB[:, None] * powers[:, T - 1 :: -1] if T > 1 else dB[:, None] * powers[:, :1])
    E_out = np.swapaxes(2 * join(np.conj(C[:, None] * powers[:, 1:])), 1, 2)
    x = rng.standard_normal((batch, length, features))
    arrays = x, response, E_in, join(powers[:, T]), E_out
    return [x.astype(dtype) for x in arrays]


CHUNKS = {  # batch, length, features, T, modes
    "odd": (5, 33, 2, 11, 5),
    "one": (1, 16, 2, 16, 16),
    "not_whole": (2, 100, 1, 40, 17),
    "two_batch_tiles": (35, 40, 1, 20, 4),
}


@needs_kernels
@pytest.mark.parametrize("shape", CHUNKS.values(), ids=CHUNKS)
def test_chunk_pass(shape, rng, interpreter):
    arrays = chunk_arrays(rng, *shape)
    assert KERNELS.supported("chunk_pass", *map(ops.convert_to_tensor, arrays), **OPTIONS)
    kernel = lambda *arrays: KERNELS.chunk_pass(*arrays, **OPTIONS)  # noqa: E731
    agree(kernel, plain_chunk_pass, arrays, arrays[0].shape, rng)


def round_to_tf32(x):
    """To 10 mantissa bits."""
    bits = np.asarray(x, "float32").view("uint32")
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view("float32")


@needs_kernels
def test_only_the_large_products_may_be_rounded(rng, interpreter):
    """Slow modes over a long sequence: TF32 is fine in the products, and not in the states."""
    length, T, dt = 16384, 128, np.array([[3e-4]])
    arrays = x_and_bank(rng, 1, length, T, dt, 16, "float64")
    x, response, E_in, transition, E_out = arrays
    u = x.reshape(1, length // T, T, 1)
    exact, state = np.empty_like(u), np.zeros((1, *transition.shape))
    for m in range(length // T):
        exact[:, m] = np.einsum("bth,htk->bkh", u[:, m], response)
        exact[:, m] += np.einsum("bhn,hnk->bkh", state, E_out)
        state = complex_product(transition[None], state)
        state += np.einsum("bth,htn->bhn", u[:, m], E_in)
    exact = exact.reshape(x.shape)

    def error(transition):
        given = [x, response, E_in, transition, E_out]
        given = [ops.convert_to_tensor(a.astype("float32")) for a in given]
        return relative_error(KERNELS.chunk_pass(*given, "tf32", **OPTIONS), exact)

    assert 1e-4 < error(transition) < 1e-3  # float32 gives 1e-6: it did round
    assert error(round_to_tf32(transition)) > 1e-3


LEADS = {  # leading axes of dA, of the inputs
    "bank": ((3, 1), (3, 2)),
    "shared": ((), (2,)),
    "alone": ((), ()),
    "own": ((2,), (2,)),
}


# lead, steps, modes, varies, reverse, steps in a block; longer blocks take long to compile.
SCANS = [
    ("bank", 9, 2, False, False, 4),
    ("bank", 9, 2, False, True, 4),
    ("bank", 9, 2, True, False, 4),
    ("bank", 9, 2, True, True, 4),
    ("own", 35, 1, False, True, 8),
    ("shared", 67, 1, True, True, None),
    ("shared", 16, 19, False, False, 4),
    ("alone", 1, 3, True, False, None),
]


@needs_kernels
@pytest.mark.parametrize("lead, steps, modes, varies, reverse, block", SCANS)
def test_diagonal_scan(lead, steps, modes, varies, reverse, block, rng, interpreter, monkeypatch):
    if block is not None:
        monkeypatch.setattr(f"keras_ssm.ops.backend.{LIBRARY}_scan.BLOCK_STEPS", block)
    own, lead = LEADS[lead]
    dA = rng.uniform(-0.7, 0.7, (*own, steps if varies else 1, 2 * modes))
    inputs = rng.standard_normal((*lead, steps, 2 * modes))
    arrays = dA, inputs, rng.standard_normal((*lead, 2 * modes))
    arrays = [x.astype("float32") for x in arrays]
    assert KERNELS.supported("diagonal_scan", *map(ops.convert_to_tensor, arrays), **OPTIONS)
    kernel = lambda *arrays: KERNELS.diagonal_scan(*arrays, reverse, **OPTIONS)  # noqa: E731
    plain = lambda *arrays: scan(*arrays, reverse=reverse)  # noqa: E731
    agree(kernel, plain, arrays, inputs.shape, rng)


def operands(rng, T=16, modes=4):
    chunk = [ops.convert_to_tensor(x) for x in chunk_arrays(rng, 1, T, 1, T, modes)]
    scan = [ops.ones((1, 2)), ops.ones((3, 2)), ops.ones((2,))]
    return {"chunk_pass": chunk, "diagonal_scan": scan}


@needs_kernels
@pytest.mark.parametrize("operation", ["chunk_pass", "diagonal_scan"])
def test_switch(operation, rng, interpreter, monkeypatch):
    arrays = operands(rng)[operation]
    assert fast_paths_enabled()
    assert KERNELS.supported(operation, *arrays, **OPTIONS)
    monkeypatch.setenv("KERAS_SSM_FAST_PATHS", "0")
    assert not fast_paths_enabled()
    assert not KERNELS.supported(operation, *arrays, **OPTIONS)


@needs_kernels
def test_a_layer_runs_on_the_kernel(rng, interpreter, monkeypatch):
    layer = S4D(state_dim=8, chunk_size=16, seed=0)
    x = ops.convert_to_tensor(rng.standard_normal((2, 48, 3)), "float32")
    calls, kernel, supported = [], KERNELS.chunk_pass, KERNELS.supported

    def counted(*arrays):
        calls.append(arrays)
        return kernel(*arrays, **OPTIONS)

    monkeypatch.setattr(KERNELS, "chunk_pass", counted)
    monkeypatch.setattr(KERNELS, "supported", lambda *given: supported(*given, **OPTIONS))
    fused = to_numpy(layer(x))
    assert len(calls) == 1
    monkeypatch.setenv("KERAS_SSM_FAST_PATHS", "0")
    assert relative_error(fused, to_numpy(layer(x))) < 1e-5
    assert len(calls) == 1


@needs_kernels
@pytest.mark.parametrize("operation", ["chunk_pass", "diagonal_scan"])
def test_unsupported(operation, rng, interpreter, monkeypatch):
    arrays = operands(rng)[operation]
    halves = [ops.cast(x, "float16") for x in arrays]
    assert not KERNELS.supported(operation, *halves, **OPTIONS)
    assert not KERNELS.supported("chunk_pass", *operands(rng, T=129)["chunk_pass"], **OPTIONS)
    assert not KERNELS.supported("chunk_pass", *operands(rng, modes=65)["chunk_pass"], **OPTIONS)
    with pytest.raises(ValueError, match=r"`operation`.*Received: 'scan'"):
        KERNELS.supported("scan", *arrays)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    on_cpu = "cpu" in str(getattr(arrays[0], "device", "")).lower()
    assert KERNELS.supported(operation, *arrays) is not on_cpu


@needs_kernels
@pytest.mark.parametrize(
    "operation, number, shape, name",
    [
        ("chunk_pass", 0, (1, 16), "x"),
        ("chunk_pass", 0, (1, 0, 1), "x"),
        ("chunk_pass", 1, (1, 16, 15), "response"),
        ("chunk_pass", 2, (1, 15, 8), "E_in"),
        ("chunk_pass", 3, (2, 8), "transition"),
        ("chunk_pass", 4, (1, 8, 15), "E_out"),
        ("diagonal_scan", 0, (2, 2), "dA"),
        ("diagonal_scan", 0, (4, 1, 2), "dA"),
        ("diagonal_scan", 1, (3, 3), "inputs"),
        ("diagonal_scan", 1, (0, 2), "inputs"),
        ("diagonal_scan", 2, (3,), "initial"),
    ],
)
def test_errors(operation, number, shape, name, rng, interpreter):
    arrays = operands(rng)[operation]
    arrays[number] = ops.zeros(shape)
    with pytest.raises(ValueError, match=rf"`{name}`.*Received: .*{shape[-1]}"):
        getattr(KERNELS, operation)(*arrays, **OPTIONS)


@needs_kernels
def test_unknown_precision(rng, interpreter):
    with pytest.raises(ValueError, match=r"`precision`.*Received: 'half'"):
        KERNELS.chunk_pass(*operands(rng)["chunk_pass"], precision="half", **OPTIONS)


@pytest.mark.skipif(LIBRARY != "pallas", reason="Pallas only")
@pytest.mark.parametrize("operation", ["chunk_pass", "diagonal_scan"])
def test_lowers_for_a_gpu(operation, rng):
    """The interpreter takes more than the compiler of a GPU does; none is needed to lower."""
    import jax

    arrays = operands(rng)[operation]
    loss = lambda *arrays: ops.sum(getattr(KERNELS, operation)(*arrays))  # noqa: E731
    both = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(len(arrays)))))
    text = both.trace(*arrays).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("stablehlo.custom_call") >= 2  # forwards and backwards


COMPILE_FOR_A_GPU = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from keras_ssm.ops.backend import triton_chunk, triton_scan

def assemble(kernel, constants, **options):
    signature = {name: "*fp32" for name in kernel.arg_names}
    signature |= dict.fromkeys(("chunks", "batch", "T", "modes", "steps"), "i32")
    signature = {n: t for n, t in signature.items() if n in kernel.arg_names}
    signature |= {"dA_rows": "*i64"} if "dA_rows" in signature else {}
    signature |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, signature=signature, constexprs=constants)
    return compile(source, target=GPUTarget("cuda", 80, 32), options=options)

for precision in ("float32", "tf32"):
    constants = triton_chunk.launch_options(precision, 64, 128, 64) | {"REVERSE": True}
    options = {name: constants.pop(name) for name in ("num_warps", "num_stages")}
    found = assemble(triton_chunk._chunk_kernel, constants | {"ROUND": False}, **options)
    assert ("mma.sync" in found.asm["ptx"]) == (precision == "tf32")
    assert len(found.asm["cubin"]) and found.metadata.shared < 48 * 1024
for code in range(8):
    flags = {"VARIES": code > 3, "REVERSE": code % 2 == 1, "ADJOINT": code % 4 > 1}
    assemble(triton_scan._scan_kernel, {"BLOCK": 64, "TILE_MODES": 16} | flags, num_warps=4)
"""


@pytest.mark.slow
@pytest.mark.skipif(LIBRARY != "triton" or KERNELS is None, reason="Triton only")
def test_compiles_for_a_gpu():
    """The interpreter takes more than the compiler of a GPU does; none is needed to compile."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", COMPILE_FOR_A_GPU]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]


def test_padded():
    assert [padded(n) for n in (1, 16, 17, 100, 128)] == [16, 16, 32, 128, 128]
    assert [padded(n, 1) for n in (1, 2, 3)] == [1, 2, 4]
