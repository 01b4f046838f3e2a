"""The Pallas kernels against the portable operations, interpreted where there is no GPU."""

import jax
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import S4D
from keras_ssm.ops import backend
from keras_ssm.ops.backend import pallas_kernels as KERNELS
from keras_ssm.ops.backend.kernel_shapes import padded
from keras_ssm.ops.backend.switch import trials_enabled
from tests.backend_tools import relative_error, to_numpy
from tests.kernel_tools import SCANS, WRONG_SCANS, agree, check_scan, scan_operands

OPTIONS = {"interpret": jax.default_backend() == "cpu"}


@pytest.fixture(autouse=True)
def switched_on(monkeypatch):
    monkeypatch.setenv("KERAS_SSM_FAST_PATHS", "1")


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


@pytest.mark.parametrize("shape", CHUNKS.values(), ids=CHUNKS)
def test_chunk_pass(shape, rng):
    arrays = chunk_arrays(rng, *shape)
    assert KERNELS.supported("chunk_pass", *map(ops.convert_to_tensor, arrays), **OPTIONS)
    kernel = lambda *arrays: KERNELS.chunk_pass(*arrays, **OPTIONS)  # noqa: E731
    agree(kernel, plain_chunk_pass, arrays, arrays[0].shape, rng)


def round_to_tf32(x):
    """To 10 mantissa bits."""
    bits = np.asarray(x, "float32").view("uint32")
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view("float32")


def test_only_the_large_products_may_be_rounded(rng):
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


@pytest.mark.parametrize("lead, steps, modes, varies, reverse, block", SCANS)
def test_diagonal_scan(lead, steps, modes, varies, reverse, block, rng, monkeypatch):
    if block is not None:
        monkeypatch.setattr("keras_ssm.ops.backend.pallas_scan.BLOCK_STEPS", block)
    kernel = lambda *arrays: KERNELS.diagonal_scan(*arrays, reverse, **OPTIONS)  # noqa: E731
    check_scan(kernel, lead, steps, modes, varies, reverse, rng)


def operands(rng, T=16, modes=4):
    chunk = [ops.convert_to_tensor(x) for x in chunk_arrays(rng, 1, T, 1, T, modes)]
    return {"chunk_pass": chunk, "diagonal_scan": scan_operands()}


@pytest.mark.parametrize("operation", ["chunk_pass", "diagonal_scan"])
def test_switch(operation, rng, monkeypatch):
    arrays = operands(rng)[operation]
    assert trials_enabled()
    assert KERNELS.supported(operation, *arrays, **OPTIONS)
    monkeypatch.setenv("KERAS_SSM_FAST_PATHS", "0")
    assert not trials_enabled()
    assert not KERNELS.supported(operation, *arrays, **OPTIONS)


def test_a_layer_runs_on_the_kernel(rng, monkeypatch):
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


@pytest.mark.parametrize("operation", ["chunk_pass", "diagonal_scan"])
def test_unsupported(operation, rng, monkeypatch):
    arrays = operands(rng)[operation]
    halves = [ops.cast(x, "float16") for x in arrays]
    assert not KERNELS.supported(operation, *halves, **OPTIONS)
    assert not KERNELS.supported("chunk_pass", *operands(rng, T=129)["chunk_pass"], **OPTIONS)
    assert not KERNELS.supported("chunk_pass", *operands(rng, modes=65)["chunk_pass"], **OPTIONS)
    with pytest.raises(ValueError, match=r"`operation`.*Received: 'scan'"):
        KERNELS.supported("scan", *arrays)
    on_cpu = "cpu" in str(getattr(arrays[0], "device", "")).lower()
    assert KERNELS.supported(operation, *arrays) is not on_cpu


@pytest.mark.parametrize(
    "operation, number, shape, name",
    [
        ("chunk_pass", 0, (1, 16), "x"),
        ("chunk_pass", 0, (1, 0, 1), "x"),
        ("chunk_pass", 1, (1, 16, 15), "response"),
        ("chunk_pass", 2, (1, 15, 8), "E_in"),
        ("chunk_pass", 3, (2, 8), "transition"),
        ("chunk_pass", 4, (1, 8, 15), "E_out"),
        *(("diagonal_scan", *wrong) for wrong in WRONG_SCANS),
    ],
)
def test_errors(operation, number, shape, name, rng):
    arrays = operands(rng)[operation]
    arrays[number] = ops.zeros(shape)
    with pytest.raises(ValueError, match=rf"`{name}`.*Received: .*{shape[-1]}"):
        getattr(KERNELS, operation)(*arrays, **OPTIONS)


def test_unknown_precision(rng):
    with pytest.raises(ValueError, match=r"`precision`.*Received: 'half'"):
        KERNELS.chunk_pass(*operands(rng)["chunk_pass"], precision="half", **OPTIONS)


@pytest.mark.parametrize("operation", ["chunk_pass", "diagonal_scan"])
def test_lowers_for_a_gpu(operation, rng):
    """The interpreter takes more than the compiler of a GPU does; none is needed to lower."""
    arrays = operands(rng)[operation]
    loss = lambda *arrays: ops.sum(getattr(KERNELS, operation)(*arrays))  # noqa: E731
    both = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(len(arrays)))))
    text = both.trace(*arrays).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("stablehlo.custom_call") >= 2  # forwards and backwards


def test_padded():
    assert [padded(n) for n in (1, 16, 17, 100, 128)] == [16, 16, 32, 128, 128]
    assert [padded(n, 1) for n in (1, 2, 3)] == [1, 2, 4]
