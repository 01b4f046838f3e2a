"""On a GPU JAX multiplies in TF32 unless it is told otherwise: every product of ours says so."""

import jax
import keras
import numpy as np
import pytest
from jax import lax

from keras_ssm.layers import S4D, SSMBlock
from keras_ssm.models import SSMBackbone, SSMClassifier
from keras_ssm.ops import backend
from tests.layer_cases import CASES

KINDS = ("s4d", "s4_bidirectional", "dss_growing", "s5")
HIGHEST = (lax.Precision.HIGHEST, lax.Precision.HIGHEST)


# On a CPU a product has its full precision, whatever a program says.
@pytest.fixture(params=[pytest.param("cpu", marks=pytest.mark.slow), "gpu"])
def forms(request, monkeypatch):
    """The form of an evaluation that is for a CPU, or the other one."""
    if request.param == "gpu":
        module = __import__("keras_ssm.ops.backend.jax", fromlist=["jax"])
        for place in (backend, module):
            monkeypatch.setattr(place, "runs_in_blocks", lambda: False)


def products(jaxpr):
    """The precision of every matrix product of a program, however deep."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation.params["precision"]
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from products(inner)


def precisions(layer, shape, **arguments):
    """Those of the products in outputs and gradients."""

    def loss(values, x):
        mapping = list(zip(layer.variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            outputs = layer(x, **arguments)
        return sum(v.sum() for v in jax.tree.leaves(outputs))

    values = [v.value for v in layer.variables]
    x = jax.ShapeDtypeStruct(shape, "float32")
    return list(products(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(values, x).jaxpr))


@pytest.mark.parametrize("case", [case for case in CASES if case.name in KINDS], ids=repr)
def test_products_of_layers_are_full_float32(case, forms):
    layer = case.make(features=64)
    for method in case.methods:
        layer.method = method
        # In several blocks of features, and in a single chunk.
        for shape in [(8, 1100, 64), (2, 9, 64)] if method == "chunked" else [(2, 150, 64)]:
            found = precisions(layer, shape, return_state=case.has_state and shape[1] == 150)
            assert set(found) <= {HIGHEST}, (method, shape)
            assert found or method == "fft" or "s5" not in case.name


def test_products_of_models_are_full_float32():
    mixer, x = S4D(4, seed=1), np.zeros((2, 20, 3), "float32")
    model = SSMClassifier(SSMBackbone(mixer, 2, 8, input_dim=3), 5, preprocessor=None)
    model(x)
    found = precisions(model, x.shape)
    assert set(found) == {HIGHEST} and len(found) > 9


def test_a_precision_that_is_asked_for_is_taken():
    block = SSMBlock(S4D(4, seed=1))
    block.build((None, 20, 3))
    with jax.default_matmul_precision("tensorfloat32"):
        assert set(precisions(block, (2, 20, 3))) != {HIGHEST}
