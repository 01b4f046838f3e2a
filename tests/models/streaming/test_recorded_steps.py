"""Steps as CUDA graphs: of streams, with a stand-in for the graph where there is no GPU."""

import importlib

import numpy as np
import pytest
import torch
from keras import ops, tree
from torch.fx.experimental.proxy_tensor import make_fx

from keras_ssm.layers import S4D
from keras_ssm.models import SSMBackbone, SSMClassifier
from keras_ssm.ops.backend.torch import recording

pytestmark = pytest.mark.once("torch")

torch_traced = importlib.import_module("keras_ssm.ops.backend.torch.traced")  # not the function


@pytest.fixture
def replays(monkeypatch):
    """How often each recording was replayed. A stand-in repeats operations in the same memory."""
    counts, capture = [], recording.capture

    def operations(function):
        outputs = function()
        graph = make_fx(function)()  # no Python of the function runs again

        def replay():
            for mine, new in zip(tree.flatten(outputs), tree.flatten(graph()), strict=True):
                mine.copy_(new)

        return outputs, replay

    def counted(function):
        outputs, replay = (capture if torch.cuda.is_available() else operations)(function)
        counts.append(0)
        number = len(counts) - 1

        def counting():
            counts[number] += 1
            replay()

        return outputs, counting

    monkeypatch.setattr(recording, "capture", counted)
    monkeypatch.setattr(recording, "records", lambda x: True)
    monkeypatch.setattr(torch_traced, "CALLS_BEFORE", 2)
    return counts


def test_streams_replay_their_steps(rng, replays):
    """Two streams side by side, another batch, and new weights between two steps."""
    backbone = SSMBackbone(S4D(4, seed=0), num_layers=1, hidden_dim=4, input_dim=1)
    model = SSMClassifier(backbone, 2, pooling=None)
    x = rng.standard_normal((2, 9, 1)).astype("float32")
    first, second, pair = model.stream(), model.stream(), model.stream(batch_size=2)
    alone = [np.concatenate([first(x[0, t]), second(x[1, t])]) for t in range(8)]
    both = [pair(x[:, t : t + 1]) for t in range(8)]
    expected = model.predict(x[:, :8], verbose=0)
    np.testing.assert_allclose(np.concatenate(alone, 1), expected, atol=1e-5)
    np.testing.assert_allclose(np.concatenate(both, 1), expected, atol=1e-5)
    assert len(replays) == 2 and replays[0] > 10 and replays[1] > 3
    copies, count = [first.copy(), first.copy()], replays[0]
    before = copies[0](x[0, 8])
    model.step_scale = 2.0
    after = first(x[0, 8])
    model.step_scale = 1.0
    np.testing.assert_allclose(copies[1](x[0, 8]), before, atol=1e-6)
    assert np.abs(after - before).max() > 1e-4
    assert replays == [count + 3, replays[1]]


def test_what_comes_out_is_not_written_to_again(replays):
    ones = lambda: ops.ones((2,))
    weight = ones()

    def function(x, rest):
        return x * weight + rest["b"], {"b": 2 * rest["b"]}

    program = recording.Recording(function, (ops.zeros((2,)), {"b": ops.zeros((2,))}))
    x, state = ones(), {"b": ones()}
    y, state = program(x, state)
    z, following = program(x, state)  # the same x, the next state
    assert y.tolist() == [2.0, 2.0] and z.tolist() == [3.0, 3.0]
    assert state["b"].tolist() == [2.0, 2.0] and following["b"].tolist() == [4.0, 4.0]
    x.add_(1.0)  # written to in place
    weight.mul_(10.0)  # read where it lies
    assert program(x, state)[0].tolist() == [22.0, 22.0]
    with torch.inference_mode():
        y, state = program(ones(), {"b": ones()})
        assert y.tolist() == [11.0, 11.0]
        state["b"].add_(1.0)
        assert program(ones(), state)[0].tolist() == [13.0, 13.0]


def test_recorded_in_inference_mode(replays):
    with torch.inference_mode():
        program = recording.Recording(lambda x: 2 * x, (ops.ones((2,)),))
        assert program(ops.ones((2,))).tolist() == [2.0, 2.0]
    assert program(3 * ops.ones((2,))).tolist() == [6.0, 6.0]


def test_what_cannot_be_recorded_runs_as_it_is(replays, monkeypatch):
    def refused(function):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(recording, "capture", refused)
    step = torch_traced.traced(lambda x: 2 * x)
    assert [step(torch.ones(1)).item() for _ in range(5)] == [2.0] * 5
