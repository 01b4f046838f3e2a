"""What the tests of the GPU kernels share."""

import importlib

import numpy as np
import pytest
import torch
from keras import ops

from tests.backend_tools import relative_error, to_numpy

GPU = torch.cuda.is_available()


def import_kernels(*names):
    """Imports Triton kernels, in Triton's interpreter where there is no GPU.

    Triton decides whether it interprets as its kernels are defined, so its variable is set while
    they are imported, and again by `use_kernels` for tests: elsewhere they stay out of use.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not GPU:
            patch.setenv("TRITON_INTERPRET", "1")
        return [
            importlib.import_module(f"keras_ssm.ops.backend.torch.triton.{name}") for name in names
        ]


def use_kernels(patch):
    """Lets layers use them until the `MonkeyPatch` is undone."""
    if not GPU:
        patch.setenv("TRITON_INTERPRET", "1")
    patch.delenv("KERAS_SSM_FAST_PATHS", raising=False)


def value_and_gradients(function, arrays, weights):
    """A function's value and the gradients of its sum weighted by `weights`, in NumPy."""
    arrays = [ops.convert_to_tensor(x).requires_grad_() for x in arrays]
    value = function(*arrays)
    total = (value * ops.convert_to_tensor(weights)).sum()
    found = torch.autograd.grad(total, arrays, materialize_grads=True)
    return to_numpy(value.detach()), [to_numpy(g) for g in found]


def agree(kernel, plain, arrays, shape, rng):
    weights = rng.standard_normal(shape).astype("float32")
    value, found = value_and_gradients(kernel, arrays, weights)
    reference, expected = value_and_gradients(plain, arrays, weights)
    assert relative_error(value, reference) < 1e-5
    for number, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        if np.any(theirs):
            assert relative_error(mine, theirs) < 1e-5, number
        else:  # the inputs of the state of a single chunk are never read
            assert not np.any(mine), number


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


def one_by_one(dA, inputs, initial, reverse):
    """The definition of a scan; `ops.scan` would take the kernel itself."""
    dA, inputs, state = (torch.complex(*x.chunk(2, dim=-1)) for x in (dA, inputs, initial))
    steps = range(inputs.shape[-2])
    states = {}
    for t in reversed(steps) if reverse else steps:
        a = dA[..., t if dA.shape[-2] > 1 else 0, :]
        states[t] = state = a * state + inputs[..., t, :]
    states = torch.stack([states[t] for t in steps], dim=-2)
    return torch.cat([states.real, states.imag], dim=-1)


def check_scan(kernel, lead, steps, modes, varies, reverse, rng):
    """Compares `kernel(dA, inputs, initial)` with the definition."""
    own, lead = LEADS[lead]
    dA = rng.uniform(-0.7, 0.7, (*own, steps if varies else 1, 2 * modes))
    inputs = rng.standard_normal((*lead, steps, 2 * modes))
    arrays = dA, inputs, rng.standard_normal((*lead, 2 * modes))
    arrays = [x.astype("float32") for x in arrays]
    plain = lambda *arrays: one_by_one(*arrays, reverse)
    agree(kernel, plain, arrays, inputs.shape, rng)


WRONG_SCANS = [  # number of the argument, its shape, its name
    (0, (2, 2), "dA"),
    (0, (4, 1, 2), "dA"),
    (1, (3, 3), "inputs"),
    (1, (0, 2), "inputs"),
    (2, (3,), "initial"),
]


def scan_operands():
    return [ops.ones((1, 2)), ops.ones((3, 2)), ops.ones((2,))]
