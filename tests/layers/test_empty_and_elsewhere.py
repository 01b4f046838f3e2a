"""Batches without rows, and tensors that lie on another device than the layers."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import S4D, ScalarNormalization, SequencePooling, SSMBlock
from keras_ssm.models import SSMBackbone, SSMClassifier
from tests.backend_tools import BACKEND, gradients, to_numpy
from tests.layer_cases import CASES

# PyTorch, which compiles nothing and has forms of its own for each, runs them all.
SOME = [case for case in CASES if BACKEND == "torch" or case.name == "s5"]


@pytest.mark.parametrize("case", SOME, ids=repr)
def test_a_batch_without_rows(case):
    layer = case.make(chunk_size=4)
    shape, state = (0, 9, 4), (0, *layer.state_shape(4))
    calls = [{}, {"mask": np.ones((0, 9), "bool")}]
    if case.has_state:
        calls = [{"return_state": True, "initial_state": np.zeros(state, "float32")}]
        calls += [{"return_state": True, "mask": np.ones((0, 9), "bool")}]
    for method in case.methods if BACKEND == "torch" else case.methods[:1]:
        layer.method = method
        for arguments in calls:

            def loss(x, arguments=arguments):
                outputs = layer(x, **arguments)
                outputs = outputs if isinstance(outputs, tuple) else (outputs,)
                shapes = [(0, 9, 4 * layer.channels), state]
                assert [tuple(v.shape) for v in outputs] == shapes[: len(outputs)]
                return sum(ops.sum(v) for v in outputs)

            if method == "recurrent" and case.normalises_by_length:
                continue
            _, weights, (d_x,) = gradients(loss, layer, np.zeros(shape, "float32"), compile="loops")
            assert d_x.shape == shape and not any(g.any() for g in weights.values())
    if case.has_state:
        y, state_after = layer.step(np.zeros((0, 4), "float32"), layer.get_initial_state(0))
        assert tuple(y.shape) == (0, 4 * layer.channels) and tuple(state_after.shape) == state


@pytest.mark.once("torch")
def test_a_model_without_rows():
    model = SSMClassifier(SSMBackbone(S4D(4, seed=1), 1, 4, input_dim=2), 3)
    assert tuple(model(np.zeros((0, 9, 2), "float32")).shape) == (0, 3)


KINDS = ("s4d", "s4", "dss_growing", "dss_exp", "s5", "s4_bidirectional")


def elsewhere(x):
    """A tensor without data on PyTorch's meta device: Keras' layers move it to their own."""
    import torch

    return torch.as_tensor(x).to("meta")


def device_types(outputs):
    return {v.device.type for v in keras.tree.flatten(outputs)}


if BACKEND == "torch":

    @pytest.mark.parametrize("case", [c for c in CASES if c.name in KINDS], ids=repr)
    def test_tensors_of_another_device_are_moved(case):
        here = {keras.ops.zeros(1).device.type}
        layer = case.make()
        x, mask = np.ones((2, 9, 4), "float32"), np.ones((2, 9), "bool")
        assert device_types(layer(elsewhere(x), mask=elsewhere(mask))) == here
        block = SSMBlock(case.cls(**case.arguments))
        assert device_types(block(elsewhere(x), mask=elsewhere(mask))) == here
        if not case.has_state:
            return
        for method in case.methods:
            layer.method = method
            state = elsewhere(to_numpy(layer.get_initial_state(2)))
            outputs = layer(elsewhere(x), mask, initial_state=state, return_state=True)
            assert device_types(outputs) == here
        system = layer.discretize()
        moved = type(system)(*keras.tree.map_structure(elsewhere, system[:4]), system.low_rank)
        assert device_types(layer.step(elsewhere(x[:, 0]), state, moved)) == here

    def test_tensors_of_another_device_are_moved_by_the_other_layers():
        here = {keras.ops.zeros(1).device.type}
        x, mask = np.ones((2, 9, 4), "float32"), np.ones((2, 9), "bool")
        for layer in (ScalarNormalization(), SequencePooling(), SequencePooling("last")):
            assert device_types(layer(elsewhere(x))) == here
        assert device_types(SequencePooling()(elsewhere(x), mask=elsewhere(mask))) == here
        model = SSMClassifier(SSMBackbone(S4D(4, seed=1), 1, 4, input_dim=4), 3)
        assert device_types(model(elsewhere(x))) == here
