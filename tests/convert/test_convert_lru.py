"""Checkpoints of minimal-LRU, there and back."""

import json

import keras
import numpy as np
import pytest

from keras_ssm.convert import export_checkpoint, load_checkpoint
from keras_ssm.layers import LRU
from keras_ssm.models import SSMBackbone, SSMClassifier
from tests.backend_tools import relative_error, to_numpy
from tests.shared_data import golden

pytestmark = pytest.mark.once("torch")


@pytest.fixture(scope="module")
def recording():
    return golden("relatives/lru/model_pre_bn")


@pytest.fixture(scope="module")
def checkpoint(recording, tmp_path_factory):
    """A file of the recorded variables, with the arguments of the training run beside it."""
    data, description = recording
    path = tmp_path_factory.mktemp("lru") / "lru.npz"
    np.savez(path, **{k: data[k] for k in data if k.startswith(("params/", "batch_stats/"))})
    config = {**description["config"], "encoder": "linear"}
    path.with_name("lru.npz.json").write_text(json.dumps(config))
    return path


def log_softmax(logits):
    return to_numpy(keras.ops.log_softmax(logits))


def test_a_checkpoint_gives_the_recorded_outputs(recording, checkpoint):
    data, _ = recording
    model = load_checkpoint(checkpoint)
    mixer = model.backbone.blocks[0].mixer
    assert isinstance(mixer, LRU) and (mixer.state_dim, mixer.r_max) == (16, 0.99)
    assert relative_error(log_softmax(model(data["u"])), data["f64/y"]) < 1e-5
    y = log_softmax(model(data["u"], training=True))
    assert relative_error(y, data["y_train"]) < 1e-5
    for i, block in enumerate(model.backbone.blocks):
        key = f"after_train/batch_stats/encoder/layers_{i}/normalization"
        assert relative_error(block.norm.moving_mean, data[f"{key}/mean"]) < 1e-5
        assert relative_error(block.norm.moving_variance, data[f"{key}/var"]) < 1e-5


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_there_and_back(scale, recording, checkpoint, tmp_path):
    pytest.importorskip("msgpack")
    u = recording[0]["u"]
    model = load_checkpoint(checkpoint)
    model.step_scale = scale
    remarks = export_checkpoint(model, tmp_path / "lru.msgpack", to="lru-flax")
    assert len(remarks) == 1 and "log-probabilities" in remarks[0]
    reloaded = load_checkpoint(tmp_path / "lru.msgpack")
    assert relative_error(reloaded(u), to_numpy(model(u))) < 1e-5
    config = json.loads((tmp_path / "lru.msgpack.json").read_text())
    steps = load_checkpoint(tmp_path / "lru.msgpack", config={**config, "pooling": "none"})
    assert steps(u).shape == (3, 48, 10)


def test_what_cannot_be_converted(checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"Received: multidim=2"):
        load_checkpoint(checkpoint, config={"multidim": 2, "prenorm": True, "encoder": "linear"})
    (checkpoint.with_name("bare.npz")).write_bytes(checkpoint.read_bytes())
    with pytest.raises(ValueError, match=r"prenorm=True or prenorm=False.*Received: no prenorm"):
        load_checkpoint(checkpoint.with_name("bare.npz"), encoder="linear")

    def refused(match, mixer=None, **arguments):
        gate = {"gate": "full_glu", **arguments}
        backbone = SSMBackbone(mixer or LRU(4), num_layers=1, hidden_dim=4, **gate)
        with pytest.raises(ValueError, match=match):
            export_checkpoint(SSMClassifier(backbone, 2), tmp_path / "x", to="lru-flax")

    refused(r"bidirectional=True", LRU(4, bidirectional=True))
    refused(r"gate='half_glu1'", gate="half_glu1")
    with pytest.raises(ValueError, match=r"must have a mixer S5.*mixer LRU"):
        model = SSMClassifier(SSMBackbone(LRU(4), 1, 4), 2)
        export_checkpoint(model, tmp_path / "x", to="s5-flax")
