"""`fit` trains in training mode: dropout drops, batch norm gathers statistics."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssm.layers import S4D
from keras_ssm.models import SSMBackbone, SSMClassifier
from tests.backend_tools import BACKEND, relative_error


def make_model(num_layers=1, **arguments):
    arguments = {"norm": "batch", "dropout": 0.5, **arguments}
    backbone = SSMBackbone(
        S4D(state_dim=4, seed=0), num_layers, hidden_dim=4, input_dim=2, **arguments
    )
    return SSMClassifier(backbone, num_classes=2)


@pytest.fixture
def series(rng):
    return rng.standard_normal((8, 10, 2)).astype("float32") + 5, np.arange(8) % 2


def test_keras_sees_the_signature_of_a_functional_model():
    model = make_model()
    plain = keras.Model(*[keras.Input((1,))] * 2)
    for part in (model, model.backbone):
        assert part._call_has_training_arg and part._call_has_mask_arg
        assert part.call_signature_parameters == plain.call_signature_parameters


def test_a_mask_is_heard_however_it_comes(series):
    x, mask = series[0], np.arange(10)[None] < np.arange(2, 10)[:, None]
    masked = ops.convert_to_tensor(np.where(mask[..., None], x, 0.0))
    for mask_inputs in (True, False):
        model = make_model(mask_inputs=mask_inputs)
        expected = model({"inputs": masked, "padding_mask": mask})
        assert relative_error(model(masked), expected) > 0.01
        symbol = keras.Input((None, 2))
        around = keras.Model(symbol, model(keras.layers.Masking()(symbol)))
        all_true = np.ones_like(mask)
        for outputs in (
            model(masked, mask=mask),
            model({"inputs": masked}, mask={"inputs": mask, "padding_mask": None}),
            model({"inputs": masked, "padding_mask": all_true}, mask=mask),
            model({"inputs": masked, "padding_mask": mask}, mask=all_true),
            model(keras.layers.Masking()(masked)),
            around(masked),
        ):
            assert relative_error(outputs, expected) < 1e-6
    with pytest.raises(ValueError, match=r"mask.shape=\(8, 9\)"):
        model(x, mask=mask[:, :9])
    with pytest.raises(ValueError, match="nonsense"):
        model(x, nonsense=True)


if BACKEND == "torch":

    def test_pytorch_sees_every_weight(tmp_path):
        make_model()
        model = make_model()
        model.save_to_preset(tmp_path / "preset")
        for task in (model, SSMClassifier.from_preset(tmp_path / "preset")):
            for part in (task, task.backbone):
                parameters = list(part.parameters())
                assert len(parameters) == len(part.variables) <= len(part.state_dict())
                trained = sum(p.requires_grad for p in parameters)
                assert trained == len(part.trainable_variables)
