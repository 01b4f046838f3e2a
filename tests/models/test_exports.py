"""Files that other programs run give the outputs of the model."""

import keras
import numpy as np
import pytest

from keras_ssm.layers import S4D, S5
from keras_ssm.models import SSMBackbone, SSMClassifier

BACKEND = keras.config.backend()
MIXERS = [
    pytest.param(S4D(4, seed=1), id="S4D"),
    pytest.param(S5(4, seed=1), id="S5", marks=pytest.mark.slow),
]
SHAPES = [(1, 5), (3, 64), (2, 200)]


def make(mixer):
    return SSMClassifier(SSMBackbone(mixer, 1, 4, input_dim=2), 3)


def data(batch, length):
    rng = np.random.default_rng(length)
    lengths = rng.integers(1, length + 1, batch)
    mask = np.arange(length) < lengths[:, None]
    return {
        "inputs": rng.standard_normal((batch, length, 2)).astype("float32"),
        "padding_mask": mask,
    }


def agree(model, run, shapes=SHAPES):
    for shape in shapes:
        x = data(*shape)
        wanted = keras.ops.convert_to_numpy(model(x))
        np.testing.assert_allclose(run(x), wanted, rtol=1e-5, atol=2e-6)


def fixed(batch, length):
    return {
        "inputs": keras.InputSpec(shape=(batch, length, 2), dtype="float32"),
        "padding_mask": keras.InputSpec(shape=(batch, length), dtype="bool"),
    }


if BACKEND != "torch":

    @pytest.mark.parametrize("mixer", MIXERS)
    def test_tensorflow_saved_model_of_any_batch_and_length(tmp_path, mixer):
        import tensorflow as tf

        model = make(mixer)
        model.export(tmp_path / "model", verbose=False)
        loaded = tf.saved_model.load(tmp_path / "model")
        agree(model, lambda x: loaded.serve({k: tf.constant(v) for k, v in x.items()}).numpy())


if BACKEND == "tensorflow":

    @pytest.mark.parametrize("mixer", MIXERS)
    def test_tensorflow_lite_of_any_batch_and_length(tmp_path, mixer):
        import tensorflow as tf

        model, path = make(mixer), tmp_path / "model.tflite"
        model.export(path, format="litert", verbose=False, max_length=200)

        def run(x):
            interpreter = tf.lite.Interpreter(str(path))
            names = {d["index"]: d["dtype"] for d in interpreter.get_input_details()}
            arrays = {i: x["padding_mask" if t == np.bool_ else "inputs"] for i, t in names.items()}
            for index, array in arrays.items():
                interpreter.resize_tensor_input(index, array.shape)
            interpreter.allocate_tensors()
            for index, array in arrays.items():
                interpreter.set_tensor(index, array)
            interpreter.invoke()
            return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

        agree(model, run)
        assert np.isnan(run(data(1, 700))).all()  # far longer than the file was made for


if BACKEND == "torch":

    def test_exported_program_of_any_batch(tmp_path):
        import torch

        model = make(S4D(4, seed=1))
        path = str(tmp_path / "model.pt2")
        model.export(path, format="torch", verbose=False, input_signature=fixed(None, 150))
        run = torch.export.load(path).module()

        def outputs(x):
            return run({k: torch.tensor(v) for k, v in x.items()}).detach().numpy()

        agree(model, outputs, [(2, 150), (1, 150), (3, 150)])

    @pytest.mark.parametrize("format", ["torch", "onnx"])
    def test_unknown_lengths_are_refused(tmp_path, format):
        with pytest.raises(ValueError, match=r"known length.*Received"):
            make(S4D(4, seed=1)).export(tmp_path / "model.pt2", format=format)


def test_signatures_that_do_not_agree_are_refused(tmp_path):
    signature = {**fixed(None, 20), "padding_mask": fixed(None, 21)["padding_mask"]}
    with pytest.raises(ValueError, match=r"same batch and length.*Received"):
        make(S4D(4, seed=1)).export(tmp_path / "model", input_signature=signature)
