"""A mask that covers nothing changes nothing, and on PyTorch nobody looks at it twice."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import S4D, S5, Mamba, SequencePooling, SSMBlock
from keras_ssm.models import SSMBackbone, SSMClassifier
from keras_ssm.ops import backend
from tests.backend_tools import relative_error, to_numpy, with_cheap_loops

FULL = np.ones((4, 12), bool)
PART = np.arange(12) < np.array([[12], [12], [9], [12]])


@pytest.fixture
def x(rng):
    return rng.standard_normal((4, 12, 8)).astype("float32")


def make_model(pooling="mean", mixer=None):
    keras.utils.set_random_seed(0)
    mixer = S5(state_dim=4, seed=0) if mixer is None else mixer
    backbone = SSMBackbone(mixer, 1, 8, input_dim=8, dropout=0.5)
    return SSMClassifier(backbone, num_classes=2, pooling=pooling)


@pytest.mark.parametrize("mixer", [S4D(state_dim=4, seed=0), S5(state_dim=4), Mamba(state_dim=4)])
def test_a_full_mask_is_as_none_in_every_layer(x, mixer):
    layer = type(mixer).from_config(mixer.get_config())
    layer.build(x.shape)
    call = lambda x, **given: layer(x, return_state=True, **given)
    forms = lambda x: (call(x), call(x, mask=FULL), call(x, mask=PART), call(x[2:3, :9]))
    found = with_cheap_loops(forms)(ops.convert_to_tensor(x))
    (y, state), (masked, after), (covered, ended), (_, trimmed) = found
    assert relative_error(masked, y) < 1e-6
    np.testing.assert_allclose(to_numpy(covered)[:2], to_numpy(y)[:2], rtol=1e-5, atol=1e-6)
    state, after, ended, trimmed = map(keras.tree.flatten, (state, after, ended, trimmed))
    ended = [part[2:3] for part in ended]
    for ours, expected in zip(after + ended, state + trimmed, strict=True):
        assert relative_error(ours, expected) < 1e-5
    with pytest.raises(ValueError, match=r"mask\.shape"):
        layer(x, mask=FULL[:, :9])


@pytest.mark.once("torch")
def test_training_is_the_same_to_the_last_bit(x, monkeypatch):
    y = np.tile(np.arange(2), 2)
    found, original = [], backend.all_true
    for looks in (True, False):
        if not looks:  # at masks of steps; norms ask the same of their numbers
            blind = lambda mask: mask.ndim != 2 and original(mask)
            monkeypatch.setattr(backend, "all_true", blind)
        for pooling, labels in (("mean", y), ("max", y), (None, np.repeat(y[:, None], 12, 1))):
            model = make_model(pooling)
            model.compile("sgd", metrics=["accuracy", keras.metrics.SparseCategoricalAccuracy()])
            history = model.fit(x, labels, epochs=2, batch_size=2, shuffle=False, verbose=0)
            scores = model.evaluate(x, labels, verbose=0, return_dict=True)
            found.append([history.history, scores, *map(to_numpy, model.weights)])
    for a, b in zip(found[:3], found[3:], strict=True):
        assert a[:2] == b[:2]
        for weight, other in zip(a[2:], b[2:], strict=True):
            np.testing.assert_array_equal(weight, other)


def test_outputs_still_say_which_steps_are_valid(x):
    backbone = make_model().backbone
    for mask in (FULL, PART):
        y = backbone({"inputs": x, "padding_mask": mask})
        np.testing.assert_array_equal(to_numpy(y._keras_mask), mask)


@pytest.mark.only("torch")
def test_a_training_step_has_no_pass_that_covers_nothing(x):
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Passes(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, arguments=(), kwargs=None):
            result = function(*arguments, **(kwargs or {}))
            if "where" in str(function) and result.numel() >= x.size:
                Passes.count += 1
            return result

    model = make_model()
    inputs = torch.from_numpy(x).requires_grad_()
    for mask, expected in ((FULL, 1), (PART, 3)):  # the mask of the inputs is in the graph of Keras
        Passes.count = 0
        with Passes():
            model({"inputs": inputs, "padding_mask": mask}, training=True)
        assert Passes.count <= expected and (Passes.count > 1) == (mask is PART)


@pytest.mark.only("torch")
def test_values_are_looked_at_only_where_there_are_any():
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    mask = torch.ones(3, 4, dtype=torch.bool)
    assert backend.all_true(mask)
    mask[1, 2] = False
    assert not backend.all_true(mask)
    with FakeTensorMode():
        assert not backend.all_true(torch.ones(3, 4, dtype=torch.bool))
    assert not backend.all_true(torch.ones(3, 4, dtype=torch.bool, device="meta"))
    requested = []

    def look(row):
        requested.append(backend.all_true(row))
        return row

    torch.func.vmap(look)(torch.ones(3, 4, dtype=torch.bool))
    assert requested == [False]


@pytest.mark.once("torch")
def test_pooling_by_a_full_mask(x):
    for kind in ("mean", "last", "max", "attention"):
        pooling = SequencePooling(kind)
        assert relative_error(pooling(x, mask=FULL), pooling(x)) < 1e-6


@pytest.mark.once("torch")
def test_tied_dropout_drops_whole_features_as_that_of_keras_does(x):
    plain = {"norm": None, "activation": None, "gate": None, "prenorm": True}
    keras.utils.set_random_seed(1)
    block = SSMBlock(S4D(state_dim=4, seed=0), dropout=0.5, **plain)
    kept = to_numpy(block(x)) - x
    found = (to_numpy(block(x, training=True)) - x) / kept
    assert set(np.unique(found.round(3)).tolist()) <= {0.0, 4.0}  # twice dropped, by a half
    np.testing.assert_allclose(found, np.broadcast_to(found[:, :1], found.shape), atol=1e-3)
    assert 0 < (found > 1).mean() < 1
    keras.utils.set_random_seed(1)
    block = SSMBlock(S4D(state_dim=4, seed=0), dropout=0.5, **plain)
    block(x)
    layers = [block.inner_dropout, block.outer_dropout]
    expected = ops.convert_to_tensor(kept)
    for layer in layers:
        expected = layer(expected, training=True)
    np.testing.assert_allclose(found * kept, to_numpy(expected), atol=1e-5)
