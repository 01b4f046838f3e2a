"""The Triton kernels around recurrences, against float64 of their portable forms."""

import functools

import numpy as np
import pytest
import torch
from keras import ops
from torch.nn import functional

from keras_ssm import layers
from keras_ssm.layers.exact_layers import LayerNormalization, RMSNormalization
from keras_ssm.ops import backend
from keras_ssm.ops.backend.torch import bank as torch_bank
from keras_ssm.ops.backend.torch import selective_gpu
from keras_ssm.ops.causal_conv import _conv_silu
from tests.backend_tools import gradients, relative_error
from tests.kernel_tools import GPU, import_kernels, use_kernels

triton_conv, triton_gates, triton_norms, triton_check = import_kernels(
    "conv", "gates", "norms", "check"
)
FUNCTIONS = triton_conv.ConvSilu, triton_gates.Gated, triton_gates.Glu, triton_norms.Norm


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    use_kernels(monkeypatch)
    monkeypatch.setattr(selective_gpu, "LARGEST_STATE", 0)  # what is around the scan alone
    if GPU:
        device = torch.device("cuda", torch.cuda.current_device())
        for name in ("conv", "gate", "norm"):
            assert torch_bank._known_right(device, torch.float32, name)


@pytest.fixture
def counted(monkeypatch):
    """The names of the functions that were called."""
    calls = []
    for function in FUNCTIONS:

        def counting(*arguments, name=function.__name__, forward=function.forward):
            calls.append(name)
            return forward(*arguments)

        monkeypatch.setattr(function, "forward", staticmethod(counting))
    return calls


def drawn(rng, *shape, dtype="float32", beside=0):
    """A tensor that has its own gradient, perhaps a part of a wider one."""
    wide = rng.standard_normal((*shape[:-1], shape[-1] + beside))
    x = ops.convert_to_tensor(wide.astype("float32")).to(getattr(torch, dtype))[..., beside:]
    return x.detach().requires_grad_()


def compared(function, exact, tensors, rng):
    """The largest errors of the outputs and of each gradient."""
    given = [t for t in tensors if t is not None]
    outputs = function(*tensors)
    wide = [None if t is None else t.double() for t in tensors]
    wanted = exact(*wide)
    upstream = ops.convert_to_tensor(rng.standard_normal(tuple(outputs.shape)))
    found = torch.autograd.grad(outputs, given, upstream.to(outputs.dtype))
    slopes = torch.autograd.grad(wanted, given, upstream.to(outputs.dtype).double())
    assert [g.dtype for g in found] == [t.dtype for t in given]
    pairs = zip((outputs, *found), (wanted, *slopes), strict=True)
    return [relative_error(a.detach().double(), b.detach().double()) for a, b in pairs]


def conv_silu(*tensors):
    return backend.fused_conv_silu(*tensors, _conv_silu)


def silu_gate(y, z):
    return y * functional.silu(z)


def weights_of_conv(rng, taps, features, biased=True, started=True):
    return [
        drawn(rng, taps, features),
        drawn(rng, features) if biased else None,
        drawn(rng, 2, taps - 1, features) if started else None,
    ]


# Length, features, taps, whether there are a bias and earlier samples, steps of a tile.
CONVOLUTIONS = [
    (1, 3, 4, True, True, 4),
    (17, 5, 4, True, False, 4),
    (17, 5, 3, False, True, 16),
    (3, 1, 2, True, True, 4),
    (1000, 3, 4, True, True, 256),
]


@pytest.mark.parametrize("length, features, taps, biased, started, tile", CONVOLUTIONS)
def test_convolution(length, features, taps, biased, started, tile, rng, counted, monkeypatch):
    """In one program or several, of a part of a wider tensor."""
    monkeypatch.setattr(triton_conv, "FEATURES", 4)
    monkeypatch.setattr(triton_conv, "T", tile)
    monkeypatch.setattr(triton_conv, "STEPS", 2 * tile)
    monkeypatch.setattr(triton_conv, "STEPS_BACK", 2 * tile)
    x = drawn(rng, 2, length, features, beside=2)
    assert not x.is_contiguous()
    tensors = [x, *weights_of_conv(rng, taps, features, biased, started)]
    errors = compared(conv_silu, _conv_silu, tensors, rng)
    assert counted == ["ConvSilu"] and max(errors) < 2e-6, errors


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_convolution_reads_16_bits_and_writes_32(dtype, rng, counted):
    """And rounds the gradient of what it read, which has 16."""
    tensors = [drawn(rng, 2, 9, 3, dtype=dtype, beside=3), *weights_of_conv(rng, 4, 3)]
    y, dx, *errors = compared(conv_silu, _conv_silu, tensors, rng)
    assert counted == ["ConvSilu"] and max(y, *errors) < 2e-6
    assert dx < 2**-8 * (1 if GPU else 2)  # the interpreter cuts off what a card rounds


def test_a_convolution_of_other_sequences_takes_another_form(rng, counted):
    """A kernel with more entries than are written out, and float64."""
    tensors = [drawn(rng, 2, 9, 3), *weights_of_conv(rng, 5, 3)]
    assert max(compared(conv_silu, _conv_silu, tensors, rng)) < 2e-6
    conv_silu(*(t.double() for t in [tensors[0], *weights_of_conv(rng, 4, 3)]))
    assert counted == []


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 17, 5), (3, 260), (1, 100, 7)])
def test_gate(shape, rng, counted):
    y, z = drawn(rng, *shape), drawn(rng, *shape, beside=shape[-1])
    errors = compared(backend.gated, silu_gate, [y, z], rng)
    assert counted == ["Gated"] and max(errors) < 2e-6, errors


def test_a_gate_of_16_bits_or_of_another_order_of_axes(rng, counted):
    for dtype in ("bfloat16", "float16"):
        y, z = (drawn(rng, 2, 9, 3, dtype=dtype, beside=n) for n in (0, 3))
        assert backend.gated(y, z).dtype == y.dtype
        assert max(compared(backend.gated, silu_gate, [y, z], rng)) < 2**-8 * (1 if GPU else 2)
    y, z = drawn(rng, 3, 4, 2).mT.detach().requires_grad_(), drawn(rng, 3, 2, 4)
    assert max(compared(backend.gated, silu_gate, [y, z], rng)) < 2e-6
    assert counted == ["Gated"] * 5


@pytest.mark.parametrize("shape", [(1, 3), (2, 17, 5)])
def test_other_gates(shape, rng, counted):
    y, z, both = (drawn(rng, *shape[:-1], n * shape[-1], beside=n - 1) for n in (1, 1, 2))
    by_sigmoid = lambda y, z: y * torch.sigmoid(z)
    assert max(compared(backend.sigmoid_gated, by_sigmoid, [y, z], rng)) < 2e-6
    assert max(compared(backend.glu, functional.glu, [both], rng)) < 2e-6
    assert counted == ["Gated", "Glu"]


def layer_norm(x, gamma, beta, epsilon=1e-5):
    return functional.layer_norm(x, x.shape[-1:], gamma, beta, epsilon)


def rms_norm(x, gamma, beta=None, epsilon=1e-5):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + epsilon) * gamma


@pytest.mark.parametrize("form", [layer_norm, rms_norm])
@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 17, 5), (20, 33)])
def test_norm_of_a_sum(shape, form, rng, counted, monkeypatch):
    """The sum and its norm, each with a gradient of its own, and the norm of one tensor.

    Twenty rows do not fill the last programs, where nothing may be divided by an epsilon of 0.
    """
    epsilon = 1e-5 if len(shape) == 3 else 0.0
    monkeypatch.setattr(triton_norms, "PROGRAMS", 3)
    monkeypatch.setattr(triton_norms, "TOGETHER", 256)
    weights = [drawn(rng, shape[-1]), drawn(rng, shape[-1]) if form is layer_norm else None]

    def norm(x, *tensors):
        y = tensors[0] if len(tensors) == 3 else None
        found = backend.fused_norm(x, y, lambda: tensors[-2:], epsilon, "float32", form)
        return found if y is None else torch.stack(found)

    def of_sum(x, y, *weights):
        return torch.stack([x + y, form(x + y, *weights, epsilon=epsilon)])

    x, y = drawn(rng, *shape), drawn(rng, *shape, beside=2)
    assert max(compared(norm, of_sum, [x, y, *weights], rng)) < 2e-6
    of_one = functools.partial(form, epsilon=epsilon)
    assert max(compared(norm, of_one, [y, *weights], rng)) < 2e-6
    assert counted == ["Norm"] * 2


def test_a_norm_reads_and_writes_16_bits(rng, counted):
    weights = [drawn(rng, 5), drawn(rng, 5)]

    def norm(x, y, gamma, beta):
        total, normed = backend.fused_norm(
            x, y, lambda: (gamma, beta), 1e-5, "bfloat16", layer_norm
        )
        assert total.dtype == x.dtype and normed.dtype == torch.bfloat16
        return normed

    of_sum = lambda x, y, *weights: layer_norm(x + y, *weights)
    x, y = drawn(rng, 3, 7, 5), drawn(rng, 3, 7, 5, dtype="bfloat16")
    normed, *errors = compared(norm, of_sum, [x, y, *weights], rng)
    assert max(normed, errors[1]) < 2**-8 * (1 if GPU else 2)
    assert max(errors[0], *errors[2:]) < 2e-6 and counted == ["Norm"]


@pytest.mark.parametrize("layer", [LayerNormalization, RMSNormalization])
def test_norm_layers_of_numbers_whose_squares_are_none(layer, rng, counted, monkeypatch):
    layer = layer(epsilon=1e-5)
    layer.build((None, 6))
    x = rng.standard_normal((4, 6)) * 10.0 ** np.array([[0.0], [13.0], [30.0], [-9.0]])
    x = ops.convert_to_tensor(np.concatenate([x, np.full((1, 6), 1e20)]), "float32")
    x.requires_grad_()
    upstream, found = ops.convert_to_tensor(rng.standard_normal((5, 6)), "float32"), []
    for switch in ("1", "0"):
        monkeypatch.setenv("KERAS_SSM_FAST_PATHS", switch)
        y = layer(x)
        slope = torch.autograd.grad(y, x, upstream)[0]
        found.append([y[:4], *slope[:4]])
        assert float(y[4].detach().abs().max()) < 2.0
    assert counted == ["Norm"]
    for a, b in zip(*found, strict=True):
        assert relative_error(a.detach(), b.detach()) < 1e-5


BLOCKS = {  # arguments, then the functions that run
    "glu": ({}, ["Glu", "Norm"]),
    "half_glu2": ({"gate": "half_glu2", "norm": "rms"}, ["Gated", "Norm"]),
    "prenorm": ({"prenorm": True, "gate": None}, ["Norm"]),
    "mlp": ({"intermediate_dim": 3, "gate": None}, ["Norm", "Norm"]),
    "mixed": ({"dtype": "mixed_bfloat16", "residual_dtype": "float32"}, ["Glu", "Norm"]),
}


@pytest.mark.parametrize("case", BLOCKS)
def test_block(case, rng, counted, monkeypatch):
    arguments, expected = BLOCKS[case]
    block = layers.SSMBlock(layers.LongConv(5, kernel_dropout=0.0, seed=0), **arguments)
    block.build((None, None, 4))
    x = rng.standard_normal((2, 5, 4)).astype("float32")

    def loss(x):
        y = block(x)
        return ops.sum(ops.cast(y, "float32") ** 3), y

    y, weights, (dx,) = gradients(loss, block, x)
    assert counted == expected
    monkeypatch.setenv("KERAS_SSM_FAST_PATHS", "0")
    plain, slopes, (slope,) = gradients(loss, block, x)
    assert counted == expected
    close = 3e-2 if case == "mixed" else 1e-5
    assert relative_error(y, plain) < close and relative_error(dx, slope) < close
    for key, value in slopes.items():
        assert relative_error(weights[key], value) < 10 * close, key


@pytest.mark.parametrize("case", ["float32", "mixed_bfloat16", "masked"])
def test_mamba(case, rng, counted, monkeypatch):
    """The layer takes the kernels by itself, unless they are switched off."""
    options = {}
    if case == "masked":
        options["mask"] = ops.convert_to_tensor(rng.random((2, 9)) < 0.7)
    layer = layers.Mamba(state_dim=2, seed=0, dtype="float32" if options else case)
    layer.build((None, None, 4))
    x = rng.standard_normal((2, 9, 4)).astype("float32")
    state = {"conv": rng.standard_normal((2, 3, 8)), "ssm": rng.standard_normal((2, 8, 2))}
    state = {name: ops.convert_to_tensor(value, "float32") for name, value in state.items()}

    def loss(x):
        y, last = layer(x, initial_state=state, return_state=True, **options)
        assert last["conv"].dtype == torch.float32
        return ops.sum(ops.cast(y, "float32") ** 2) + ops.sum(last["conv"] ** 2), y

    y, weights, (dx,) = gradients(loss, layer, x)
    assert counted == ["ConvSilu", "Gated"]
    monkeypatch.setenv("KERAS_SSM_FAST_PATHS", "0")
    plain, slopes, (slope,) = gradients(loss, layer, x)
    assert len(counted) == 2
    close = 3e-2 if case == "mixed_bfloat16" else 1e-5
    assert relative_error(y, plain) < close and relative_error(dx, slope) < close
    for key, value in slopes.items():
        assert relative_error(weights[key], value) < 10 * close, key


def test_what_a_mamba_layer_keeps_for_its_gradient(rng, monkeypatch):
    """In sequences: the input, two of the projection (4), and 2 each of what is convolved, of the
    scan's outputs and of what the last product reads."""
    monkeypatch.setattr(selective_gpu, "LARGEST_STATE", 1)
    features, kept = 16, {}
    layer = layers.Mamba(state_dim=1, dt_rank=1, seed=0)
    layer.build((None, None, features))
    own = {v.value.untyped_storage().data_ptr() for v in layer.trainable_variables}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.numel() >= 16 * features:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    x = ops.convert_to_tensor(rng.standard_normal((1, 16, features)), "float32")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = layer(x.requires_grad_())
    sequences = sum(kept.values()) / (4 * x.numel())
    assert y.requires_grad and sequences == 11


def test_gradients_of_gradients(rng):
    tensors = [drawn(rng, 2, 5, 3), *weights_of_conv(rng, 4, 3)]
    gate = [drawn(rng, 2, 5, 3), drawn(rng, 2, 5, 3)]
    norm = lambda x, y, *weights: sum(
        backend.fused_norm(x, y, lambda: weights, 1e-5, "float32", layer_norm)
    )
    of_sum = lambda x, y, *weights: x + y + layer_norm(x + y, *weights)
    for form, exact, given in (
        (conv_silu, _conv_silu, tensors),
        (backend.gated, silu_gate, gate),
        (backend.glu, functional.glu, [drawn(rng, 5, 4)]),
        (norm, of_sum, [*gate, drawn(rng, 3), drawn(rng, 3)]),
    ):
        found = []
        for function in (form, exact):
            slopes = torch.autograd.grad((function(*given) ** 2).sum(), given, create_graph=True)
            found.append(torch.autograd.grad(sum((s**2).sum() for s in slopes), given))
        for a, b in zip(*found, strict=True):
            assert relative_error(a, b) < 1e-5


def test_transforms_and_traces_take_the_portable_form(rng, counted):
    from torch.fx.experimental.proxy_tensor import make_fx

    y, z = (drawn(rng, 2, 5, 3).detach() for _ in "yz")
    wanted = silu_gate(y, z)
    assert relative_error(torch.func.vmap(backend.gated)(y, z), wanted) < 1e-6
    graph = make_fx(backend.gated, tracing_mode="fake", _allow_non_fake_inputs=True)(y, z)
    assert relative_error(graph(y, z), wanted) < 1e-6
    assert counted == []


@pytest.mark.parametrize(
    "name, function", [("conv", "ConvSilu"), ("gate", "Glu"), ("norm", "Norm")]
)
def test_a_wrong_kernel_is_not_used(name, function, monkeypatch):
    device = torch.device("cuda" if GPU else "cpu")
    monkeypatch.setattr(triton_check, "LENGTH", 10)
    assert triton_check.ERRORS[name](device) < 1e-6
    function = {f.__name__: f for f in FUNCTIONS}[function]
    right = function.backward

    def wrong(ctx, *upstream):
        return tuple(None if g is None else 1.01 * g for g in right(ctx, *upstream))

    monkeypatch.setattr(function, "backward", staticmethod(wrong))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a card")
    with pytest.warns(UserWarning, match=r"do not work on a card.* Found: 0\.\d*[1-9]"):
        assert not torch_bank._is_right(device, torch.float32, name)
