"""Small problems with a known answer are learned: with rates of zero each of these tests fails."""

import keras
import numpy as np
import pytest

from keras_ssm.models import SSMBackbone, SSMClassifier
from keras_ssm.optimizers import ssm_optimizer
from tests.backend_tools import BACKEND, to_numpy
from tests.layer_cases import CASES, OWN_OPERATIONS, SYSTEMS

JIT = BACKEND == "jax"  # TensorFlow takes seconds for each with XLA, and a second without

ONCE = pytest.mark.once("torch")
BY_NAME = {case.name: case for case in CASES}


def signs(rng, rows=32):
    """Noise after a first sample of +1 or -1, and which of them it was."""
    labels = np.arange(rows) % 2
    x = 0.1 * rng.standard_normal((rows, 10, 1)).astype("float32")
    x[:, 0, 0] += 2.0 * labels - 1.0
    return x, labels


def trained(model, x, y):
    """The losses of 60 steps that read all rows, five in an epoch: epochs cost more than steps."""
    parts = (np.concatenate(5 * [part]) for part in (x, y))
    settings = {"batch_size": len(x), "epochs": 12, "shuffle": False, "verbose": 0}
    return model.fit(*parts, **settings).history["loss"]


FIRST = OWN_OPERATIONS[:4]  # the others run the same operations


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[] if c in FIRST else ONCE) for c in SYSTEMS], ids=repr
)
def test_every_system_learns_to_remember(case, rng):
    """The sign of the first sample, asked for nine samples later."""
    backbone = SSMBackbone(case.cls(**case.arguments), num_layers=1, hidden_dim=8)
    model = SSMClassifier(backbone, num_classes=2, pooling="last")
    model.compile(ssm_optimizer(3e-2, 3e-3, 0.0), jit_compile=JIT)
    losses = trained(model, *signs(rng))
    assert losses[0] > 0.4 and losses[-1] < 0.05
    x, labels = signs(rng)
    assert (model.predict(x, verbose=0).argmax(axis=-1) == labels).all()


@pytest.mark.parametrize(
    "name",
    ["s4d", *(pytest.param(n, marks=ONCE) for n in ("s5", "s4d_softplus", "s4", "dss_re_im"))],
)
def test_the_rate_of_the_system_finds_the_step(name, rng):
    """Only the group of dt, A, B trains: it must find the dt of another layer of equal weights."""
    layer = BY_NAME[name].make()
    dt = layer.inv_dt if name == "s4d_softplus" else layer.log_dt
    x = rng.standard_normal((8, 12, 4)).astype("float32")
    y, found = to_numpy(layer(x)), to_numpy(dt)
    dt.assign(found + 0.3)
    held = {v.path: to_numpy(v) for v in layer.trainable_variables if v.name[:2] in ("C_", "D")}
    model = keras.Sequential([keras.Input((12, 4)), layer])
    model.compile(ssm_optimizer(0.0, 2e-2, 0.0), loss="mse", jit_compile=JIT)
    losses = trained(model, x, y)
    assert losses[-1] < 0.02 * losses[0]
    for v in layer.trainable_variables:
        assert v.path not in held or (to_numpy(v) == held[v.path]).all()
