"""PyTorch's own functions for chunks and scans: equal to the portable forms, in every order."""

import functools
import importlib

import keras
import numpy as np
import pytest
import torch
from keras import ops
from torch.autograd import grad

from keras_ssm import layers
from keras_ssm.ops import DiagonalBank
from keras_ssm.ops.backend.torch import chunks as torch_chunks
from keras_ssm.ops.backend.torch import dense_scan as torch_dense_scan
from keras_ssm.ops.backend.torch import fourier as torch_fourier
from keras_ssm.ops.backend.torch import mimo as torch_mimo
from keras_ssm.ops.backend.torch import products as torch_products
from keras_ssm.ops.backend.torch import workspace as torch_workspace
from keras_ssm.ops.backend.torch.scan import scan_in_blocks
from keras_ssm.ops.chunk_matrices import ChunkMatrices
from keras_ssm.ops.diagonal_states import diagonal_states
from tests.backend_tools import relative_error

chunked = importlib.import_module("keras_ssm.ops.chunked")
mimo = importlib.import_module("keras_ssm.ops.mimo")

BATCH, LENGTH, FEATURES, T, STATES = 2, 23, 5, 4, 6


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def on_cpu():
    """The device on which products are convolutions."""
    with keras.device("cpu"):
        yield


def tensor(rng, *shape, scale=1.0, dtype="float32"):
    values = scale * rng.standard_normal(shape)
    return keras.ops.convert_to_tensor(values, dtype=dtype).requires_grad_()


def arguments(rng, dense, channels, kind):
    """The input, the matrices of one or two directions, and perhaps an initial state."""
    width = channels * T
    transition = (FEATURES, STATES, STATES) if dense else (FEATURES, STATES)
    matrices = ChunkMatrices(
        tensor(rng, FEATURES, T, width),
        tensor(rng, *transition, scale=0.2),
        tensor(rng, FEATURES, T, STATES),
        tensor(rng, FEATURES, STATES, width),
    )
    if kind == "bidirectional":
        later = tensor(rng, FEATURES, T, STATES), tensor(rng, FEATURES, STATES, width)
        matrices = matrices._replace(later_E_in=later[0], later_E_out=later[1])
    initial = tensor(rng, FEATURES, BATCH, STATES) if kind == "initial" else None
    return tensor(rng, BATCH, LENGTH, FEATURES), matrices, initial


@pytest.mark.parametrize("kind", ["plain", "initial", "bidirectional"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("dense", [False, True], ids=["diagonal", "dense"])
def test_chunks(dense, channels, kind, rng, monkeypatch):
    """In three blocks of features, the last one smaller; gradients of gradients included."""
    monkeypatch.setattr(torch_dense_scan, "STEPS_FOR_BLOCKS", 0)
    monkeypatch.setattr(torch_workspace, "BLOCK_SAMPLES", 2 * BATCH * 6 * T)
    u, matrices, initial = arguments(rng, dense, channels, kind)
    portable = functools.partial(chunked.all_features, T=T)
    ours = torch_chunks.chunk_outputs(u, T, matrices, initial, portable)
    expected = portable(u, matrices, initial)
    tensors = [t for t in (u, *matrices, initial) if t is not None]
    cotangents = [tensor(rng, *y.shape) for y in expected]
    compare(ours, expected, tensors, cotangents, 1e-5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("steps", [1, 3, 16, 23])
def test_dense_scan(steps, reverse, rng, monkeypatch):
    """In blocks, the last of which is not whole, and one by one."""
    E, inputs = tensor(rng, FEATURES, 3, 3, scale=0.2), tensor(rng, FEATURES, BATCH, steps, 3)
    E, inputs = E.detach(), inputs.detach()
    expected, state = inputs.clone(), inputs.new_zeros(FEATURES, BATCH, 3)
    for t in range(steps)[:: -1 if reverse else 1]:
        state = state + state @ E + inputs[:, :, t]
        expected[:, :, t] = state
    for steps_for_blocks in (0, 10**9):
        monkeypatch.setattr(torch_dense_scan, "STEPS_FOR_BLOCKS", steps_for_blocks)
        found = inputs.clone()
        torch_dense_scan.dense_scan_in_place(E, found, reverse)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("steps", [2, 3, 16, 23])
def test_scan(steps, reverse, rng):
    double = functools.partial(tensor, rng, dtype="float64")
    tensors = [
        double(1, 1, STATES, scale=0.5),
        double(BATCH, steps, STATES),
        double(BATCH, STATES),
    ]
    portable = lambda *tensors: diagonal_states(*tensors, reverse)
    ours = scan_in_blocks(*tensors, reverse, portable)
    compare([ours], [portable(*tensors)], tensors, [double(BATCH, steps, STATES)], 1e-12)


@pytest.mark.parametrize("convolved", [False, True], ids=["matmul", "convolution"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("batch, steps, features", [(1, 1, 3), (2, 23, 5), (3, 16, 1)])
def test_mimo(batch, steps, features, directions, convolved, rng, monkeypatch, on_cpu):
    """Sums over more rows than one turn takes included."""
    monkeypatch.setattr(torch_products, "FEWEST_MULTIPLICATIONS", 0 if convolved else 10**9)
    monkeypatch.setattr(torch_mimo, "ROWS", 7)
    tensors = [
        tensor(rng, batch, steps, features),
        tensor(rng, STATES, scale=0.5),
        tensor(rng, features, STATES),
        tensor(rng, directions, features, STATES),
        tensor(rng, features),
        tensor(rng, batch, STATES),
    ]
    monkeypatch.setattr(torch.nn.functional, "conv2d", count(torch.nn.functional.conv2d))
    ours = torch_mimo.mimo_outputs(*tensors, portable_mimo)
    assert (torch.nn.functional.conv2d.calls > 0) == convolved
    cotangents = [tensor(rng, *y.shape) for y in ours]
    compare(ours, portable_mimo(*tensors), tensors, cotangents, 1e-5)


def portable_mimo(u, dA, dB, C, D, initial):
    over_all = lambda *arguments: diagonal_states(dA[None, None], *arguments)
    y, states = mimo.read_out(u, u @ dB, C, D, initial, over_all)
    return y, states[:, -1]


def count(function):
    """The function, with the number of its calls."""

    @functools.wraps(function)
    def counted(*args, **kwargs):
        counted.calls += 1
        return function(*args, **kwargs)

    counted.calls = 0
    return counted


@pytest.mark.parametrize(
    "batch, steps, inputs, outputs", [(1, 9, 1, 4), (3, 1, 5, 2), (2, 4, 3, 1)]
)
def test_products_by_convolution(batch, steps, inputs, outputs, rng, monkeypatch, on_cpu):
    monkeypatch.setattr(torch_products, "FEWEST_MULTIPLICATIONS", 0)
    x, matrix = tensor(rng, batch, steps, inputs), tensor(rng, inputs, outputs)
    y, cotangent = torch_products.project(x, matrix), tensor(rng, batch, steps, outputs)
    compare([y], [x @ matrix], [x, matrix], [cotangent], 1e-5)
    assert y.is_contiguous()
    found = torch_products.sum_of_outer_products(x, cotangent)
    assert relative_error(found.detach(), grad(x @ matrix, matrix, cotangent)[0]) < 1e-5
    turned = x.detach().mT.contiguous().mT
    torch.testing.assert_close(torch_products.project(turned, matrix), y)


@pytest.mark.parametrize("channels", [1, 2])
def test_circular_convolutions(channels, rng):
    u, kernel = tensor(rng, BATCH, FEATURES, 7), tensor(rng, channels, FEATURES, 4)
    cotangent = tensor(rng, BATCH, channels, FEATURES, 7)
    ours, expected = (
        circular(u, kernel, 16) for circular in (torch_fourier.circular, torch_fourier.plain)
    )
    compare([ours], [expected], [u, kernel], [cotangent], 1e-5)
    found, wanted = (
        grad(circular(u, kernel.detach(), 16), u, cotangent)[0].detach()
        for circular in (torch_fourier.circular, torch_fourier.plain)
    )
    assert relative_error(found, wanted) < 1e-5  # of u alone


def compare(ours, expected, tensors, cotangents, tolerance):
    """Values, gradients, and gradients of gradients."""

    def agree(found, wanted):
        for a, b in zip(found, wanted, strict=True):
            assert relative_error(a.detach(), b.detach()) < tolerance

    agree(ours, expected)
    wanted = grad(expected, tensors, cotangents, create_graph=True)
    for create_graph in (False, True):
        found = grad(ours, tensors, cotangents, create_graph=create_graph, retain_graph=True)
        agree(found, wanted)
    second = [
        grad(sum((g * g).sum() for g in gradients), [*tensors, *cotangents])
        for gradients in (found, wanted)
    ]
    agree(*second)


@pytest.mark.parametrize("T, states, fits", [(16, 32, True), (16, 6, True), (8, 6, False)])
def test_chunks_by_convolution(T, states, fits, rng, monkeypatch, on_cpu):
    """Grouped convolutions where groups fill registers, batched products where they do not."""
    monkeypatch.setattr(torch_products, "FEWEST_MULTIPLICATIONS", 0)
    monkeypatch.setattr(torch.nn.functional, "conv2d", count(torch.nn.functional.conv2d))
    tensors = [
        tensor(rng, BATCH, LENGTH, FEATURES),
        tensor(rng, FEATURES, T, T),
        tensor(rng, FEATURES, states, scale=0.2),
        tensor(rng, FEATURES, T, states),
        tensor(rng, FEATURES, states, T),
    ]
    u, matrices = tensors[0], ChunkMatrices(*tensors[1:])
    portable = functools.partial(chunked.all_features, T=T)
    ours = torch_chunks.chunk_outputs(u, T, matrices, None, portable)
    assert (torch.nn.functional.conv2d.calls > 0) == fits
    expected = portable(u, matrices, None)
    compare(ours, expected, tensors, [tensor(rng, *y.shape) for y in expected], 1e-5)


def test_inputs_in_any_layout(rng):
    u, matrices, _ = arguments(rng, False, 1, "plain")
    expected, _ = torch_chunks.chunk_outputs(u, T, matrices, None, None)
    turned = u.detach().transpose(0, 2).contiguous().transpose(0, 2).requires_grad_()
    y, _ = torch_chunks.chunk_outputs(turned, T, matrices, None, None)
    torch.testing.assert_close(y, expected)
    # The gradient of a sum is one number, seen at every place.
    torch.testing.assert_close(grad(y.sum(), turned)[0], grad(expected.sum(), u)[0])


def test_no_gradient_where_none_is_wanted(rng):
    u, matrices, _ = arguments(rng, False, 1, "plain")
    y, _ = torch_chunks.chunk_outputs(u.detach(), T, matrices, None, None)
    toeplitz = matrices.toeplitz
    assert grad(y.sum(), toeplitz)[0].shape == toeplitz.shape
    matrices = ChunkMatrices(*(m if m is None else m.detach() for m in matrices))
    y, _ = torch_chunks.chunk_outputs(u, T, matrices, None, None)
    assert grad(y.sum(), u)[0].shape == u.shape


def test_compiled_chunks_are_compiled_once():
    """Nothing in the graph changes from call to call, such as the name of an operation."""
    bank = layers.S4D(state_dim=4, seed=0)
    bank.build((None, None, 3))
    pieces = [part.detach() for part in (*bank.bank().log_dA, *bank.bank().C)]

    def evaluate(u, re, im, C_re, C_im):
        return chunked.chunked(u, DiagonalBank((re, im), None, (C_re, C_im)))[0]

    u = ops.ones((2, 70, 3))  # two chunks, the second filled up
    torch._dynamo.reset()
    compiled = torch.compile(evaluate, backend="eager")
    compiled(u, *pieces)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            y = compiled(u, *pieces)
    assert relative_error(y, evaluate(u, *pieces)) < 1e-5


def test_a_step_that_cannot_be_traced_goes_on_as_it_is():
    from torch._subclasses.fake_tensor import FakeTensor

    from keras_ssm.ops.backend.torch.traced import traced

    def step(x):
        if isinstance(x, FakeTensor):
            raise KeyError("of a kind that nobody expects")
        return x + 1

    run = traced(step)
    with pytest.warns(UserWarning, match=r"could not be traced.*KeyError"):
        found = [float(run(torch.full((1,), t))) for t in range(30)]
    assert found == [t + 1 for t in range(30)]


WITHIN_TORCH_FUNC = {
    "s4d": lambda: layers.S4D(state_dim=4, seed=0),
    "s4": lambda: layers.S4(state_dim=4, seed=0),
    "s5": lambda: layers.S5(state_dim=4, seed=0),
    "mamba": lambda: layers.Mamba(state_dim=40, seed=0),  # large enough for the scan in place
    "mamba2": lambda: layers.Mamba2(state_dim=4, head_dim=4, seed=0),
    "delta": lambda: layers.DeltaNet(2, head_dim=4, gated=True, output_gate=True, seed=0),
    "sgconv": lambda: layers.SGConv(12, kernel_dim=4, seed=0),
}


@pytest.mark.parametrize("name", WITHIN_TORCH_FUNC)
def test_layers_within_torch_func(name, rng):
    """Gradients, those of each row, and derivatives along a direction."""
    layer = WITHIN_TORCH_FUNC[name]()
    layer.build((None, None, 4))
    x, along = tensor(rng, 3, 9, 4), tensor(rng, 3, 9, 4).detach()
    weights = [v.value for v in layer.trainable_variables]
    others = [v.value for v in layer.non_trainable_variables]

    def loss(weights, x):
        y, _ = layer.stateless_call(weights, others, x)
        return (y * y).sum()

    d_x, *d_weights = grad(loss(weights, x), [x, *weights])
    weights, x = [weight.detach() for weight in weights], x.detach()
    of_weights, of_x = torch.func.grad(loss, argnums=(0, 1))(weights, x)
    of_rows = torch.func.grad(lambda weights, row: loss(weights, row[None]))
    of_rows = torch.func.vmap(of_rows, in_dims=(None, 0))(weights, x)
    _, slope = torch.func.jvp(lambda x: loss(weights, x), (x,), (along,))
    assert relative_error(of_x, d_x) < 1e-5
    assert relative_error(slope, (d_x * along).sum()) < 1e-5
    for found, rows, expected in zip(of_weights, of_rows, d_weights, strict=True):
        assert relative_error(found, expected) < 1e-5
        assert relative_error(rows.sum(0), expected) < 1e-5


@pytest.mark.parametrize("name", WITHIN_TORCH_FUNC)
def test_gradients_with_a_graph_and_of_many_outputs(name, rng):
    """Equal to those one by one, though some tensors of a function come from others of it."""
    layer = WITHIN_TORCH_FUNC[name]()
    layer.build((None, None, 4))
    tensors = [tensor(rng, 1, 9, 4), *(v.value for v in layer.trainable_variables)]
    y = layer(tensors[0])
    many = tensor(rng, 2, *y.shape).detach()
    rows = [grad(y, tensors, row, retain_graph=True) for row in many]
    expected = [torch.stack(parts) for parts in zip(*rows, strict=True)]
    with_graph = [grad(y, tensors, row, create_graph=True) for row in many]
    found = [[torch.stack(parts) for parts in zip(*with_graph, strict=True)]]
    if name not in ("mamba", "delta"):  # PyTorch refuses to batch their products
        found.append(grad(y, tensors, many, is_grads_batched=True, retain_graph=True))
        found.append(torch.func.vmap(lambda row: grad(y, tensors, row, retain_graph=True))(many))
    for gradients in found:
        for mine, wanted in zip(gradients, expected, strict=True):
            assert relative_error(mine.detach(), wanted) < 1e-5
