"""What a person sets on a model is heard, or refused."""

import keras
import numpy as np
import pytest

from keras_ssm.layers import S4D
from keras_ssm.models import SSMBackbone, SSMClassifier
from tests.backend_tools import relative_error
from tests.models.test_training_mode import make_model


def test_the_step_scale_of_a_task(rng, tmp_path):
    x = rng.standard_normal((2, 8, 2)).astype("float32")
    model = make_model()
    model.save_to_preset(tmp_path / "preset")
    before = model.predict(x, verbose=0)
    model.step_scale = 2.0
    assert float(model.step_scale) == float(model.backbone.blocks[0].step_scale) == 2.0
    after = model.predict(x, verbose=0)
    assert relative_error(after, before) > 1e-3
    loaded = SSMClassifier.from_preset(tmp_path / "preset", step_scale=2.0)
    assert relative_error(loaded.predict(x, verbose=0), after) < 1e-6
    backbone = SSMBackbone.from_preset(tmp_path / "preset", step_scale=2.0)
    assert relative_error(backbone(x), model.backbone(x)) < 1e-6
    for scale in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="step_scale"):
            model.step_scale = scale
        with pytest.raises(ValueError, match="step_scale"):
            SSMClassifier.from_preset(tmp_path / "preset", step_scale=scale)


def test_an_attribute_that_nobody_would_hear_is_refused():
    model = make_model()
    model.remark = "mine"
    model.preprocessor = None
    model.trainable = False
    for part, names in (
        (model, ["pooling", "num_classes", "dropout", "backbone"]),  # of the constructor
        (model, ["mask_inputs", "mixer_config", "discretization", "log_dt", "activation"]),
        (make_model(), ["scale", "sequence_length"]),  # of its preprocessor
        (model.backbone, ["dropout", "hidden_dim", "method", "chunk_size", "D"]),
    ):
        for name in names:
            with pytest.raises(AttributeError, match="Received"):
                setattr(part, name, 0.5)
    with pytest.raises(AttributeError, match=r"part of its graph.*Received"):
        model.head = keras.layers.Dense(2)
    assert model.pooling == "mean" and not hasattr(model, "log_dt")


def test_a_model_of_a_trained_backbone_trains(rng):
    backbone = make_model().backbone
    x = rng.standard_normal((4, 6, 2)).astype("float32")
    backbone.compile("sgd", "mse", run_eagerly=True)
    backbone.fit(x, np.zeros((4, 6, 4), "float32"), verbose=0)
    model = SSMClassifier(backbone, num_classes=2, compile=False)
    model.compile("sgd", run_eagerly=True)
    assert model.fit(x, np.arange(4) % 2, verbose=0).history["loss"]


def test_a_class_of_ones_own_keeps_its_attributes():
    class Own(SSMClassifier):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.temperature = 2.0

    backbone = SSMBackbone(S4D(state_dim=4, seed=0), num_layers=1, hidden_dim=4)
    assert Own(backbone, 2).temperature == 2.0
