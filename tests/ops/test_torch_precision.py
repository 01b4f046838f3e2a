"""Products that stay exact where PyTorch's switch for TF32 is on."""

import functools

import pytest
import torch

from keras_ssm.ops.backend.torch import precision as torch_precision

SEEN = []


class Product(torch.autograd.Function):
    """A batched product that notes PyTorch's precision in every pass, as a kernel would obey it."""

    @staticmethod
    def forward(ctx, a, b):
        SEEN.append(torch.get_float32_matmul_precision())
        ctx.save_for_backward(a, b)
        return a @ b

    @staticmethod
    def backward(ctx, upstream):
        a, b = ctx.saved_tensors
        return Product.apply(upstream, b.mT), Product.apply(a.mT, upstream)


@pytest.fixture
def tf32(monkeypatch):
    """The switch is on, and obeyed as on a GPU."""
    monkeypatch.setattr(torch_precision, "_rounds", lambda x: torch.backends.cuda.matmul.allow_tf32)
    torch.set_float32_matmul_precision("high")
    SEEN.clear()
    yield
    torch.set_float32_matmul_precision("highest")


def test_products_and_their_gradients_of_every_order_are_exact(tf32):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, 3, 3, generator=generator, requires_grad=True) for _ in range(2))

    def gradients(product):
        y = product(a, b)
        first = torch.autograd.grad((y**3).sum(), (a, b), create_graph=True)
        second = torch.autograd.grad(sum((d**2).sum() for d in first), (a, b))
        return [y, *first, *second]

    found = gradients(functools.partial(torch_precision.exact, Product.apply))
    assert len(SEEN) > 6 and set(SEEN) == {"highest"}
    assert torch.get_float32_matmul_precision() == "high"
    for mine, wanted in zip(found, gradients(torch.bmm), strict=True):
        torch.testing.assert_close(mine, wanted)


def test_the_switch_is_put_back_after_an_error(tf32):
    with pytest.raises(RuntimeError):
        torch_precision.exact(torch.bmm, torch.ones(1, 2, 3), torch.ones(1, 2, 3))
    assert torch.get_float32_matmul_precision() == "high"
