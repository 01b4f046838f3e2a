"""Files that other programs run give the outputs of the model."""

import importlib.util
import sys

import keras
import numpy as np
import pytest

from keras_ssm.layers import (
    DSS,
    H3,
    LRU,
    S4D,
    S4ND,
    S5,
    DeltaNet,
    Hyena,
    LongConv,
    Mamba,
    Mamba2,
    SGConv,
    SpaceTime,
)
from keras_ssm.models import SSMBackbone, SSMClassifier, SSMForecaster
from tests.backend_tools import BY_KERNELS, ON_GPU, relative_error, with_cheap_loops

BACKEND = keras.config.backend()
MIXERS = [
    pytest.param(S4D(4, seed=1), id="S4D"),
    pytest.param(S5(4, seed=1), id="S5", marks=pytest.mark.slow),
    pytest.param(LRU(4, seed=1), id="LRU", marks=pytest.mark.slow),
    pytest.param(SpaceTime(4, seed=1), id="SpaceTime", marks=pytest.mark.slow),
    pytest.param(SGConv(64, kernel_dim=8, seed=1), id="SGConv", marks=pytest.mark.slow),
    pytest.param(H3(4, shift_dim=3, seed=1), id="H3", marks=pytest.mark.slow),
    pytest.param(Hyena(64, filter_width=8, seed=1), id="Hyena", marks=pytest.mark.slow),
    pytest.param(
        DeltaNet(2, head_dim=2, gated=True, seed=1), id="DeltaNet", marks=pytest.mark.slow
    ),
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
    call = with_cheap_loops(model)
    for shape in shapes:
        x = data(*shape)
        wanted = keras.ops.convert_to_numpy(call(x))
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
        if isinstance(mixer, (SGConv, Hyena)):  # their files hold no recurrence
            agree(model, run, [(1, 700)])
            return
        assert np.isnan(run(data(1, 700))).all()  # far longer than the file was made for


if BACKEND == "torch":

    @pytest.mark.parametrize(
        "mixer",
        [
            S4D(4, seed=1),
            Mamba2(4, head_dim=4, seed=1),
            pytest.param(Hyena(64, filter_width=8, seed=1), marks=pytest.mark.slow),
        ],
        ids=["S4D", "Mamba2", "Hyena"],
    )
    def test_exported_program_of_any_batch(tmp_path, mixer):
        import torch

        model = make(mixer)
        path = str(tmp_path / "model.pt2")
        model.export(path, format="torch", verbose=False, input_signature=fixed(None, 150))
        run = torch.export.load(path).module()

        def outputs(x):
            return run({k: torch.tensor(v) for k, v in x.items()}).detach().numpy()

        agree(model, outputs, [(2, 150), (1, 150), (3, 150)])

    @pytest.mark.parametrize(
        "mixer",
        [
            H3(4, head_dim=2, shift_dim=3, seed=1),
            DeltaNet(2, head_dim=2, householders=2, gated=True, neg_eigenvalues=True, seed=1),
            Hyena(5, filter_width=4, seed=1),
            LongConv(5, seed=1),
        ],
        ids=["H3", "DeltaNet", "Hyena", "LongConv"],
    )
    def test_a_step_is_exported(tmp_path, mixer):
        model, x = make(mixer), data(2, 6)["inputs"]
        *_, y = exported_steps(model, x, model.get_initial_state(2), tmp_path / "step.pt2")
        np.testing.assert_allclose(y, keras.ops.convert_to_numpy(model(x)), rtol=1e-5, atol=2e-6)

    def test_a_step_of_frames_is_exported(tmp_path):
        layer = S4ND(S4D(4, seed=1), bidirectional=[False, True])
        x = np.random.default_rng(0).standard_normal((2, 6, 5, 3)).astype("float32")
        y, after = layer(x, return_state=True)
        state = keras.tree.map_structure(keras.ops.zeros_like, after)
        steps = exported_steps(layer, x, state, tmp_path / "step.pt2")
        close = BY_KERNELS if ON_GPU else 1e-6
        assert relative_error(np.stack(steps, axis=1), keras.ops.convert_to_numpy(y)) < close

    def exported_steps(model, x, state, path):
        """The outputs of a file of `model.step`, for each x[:, t]."""
        import torch

        class Step(torch.nn.Module):
            def forward(self, x, *tensors):
                y, after = model.step(x, keras.tree.pack_sequence_as(state, tensors))
                return (y, *keras.tree.flatten(after))

        samples, tensors = torch.tensor(x).unbind(1), keras.tree.flatten(state)
        with torch.no_grad():
            program = torch.export.export(Step(), (samples[0], *tensors))
        torch.export.save(program, path)
        run, outputs = torch.export.load(path).module(), []
        for sample in samples:
            y, *tensors = run(sample, *tensors)
            outputs.append(keras.ops.convert_to_numpy(y))
        return outputs

    def make_forecaster():
        backbone = SSMBackbone(S4D(4, seed=1), 1, 4, prenorm=True)
        return SSMForecaster(backbone, lookback=4, horizon=2)

    def test_a_file_of_a_forecaster_takes_one_window_a_row(tmp_path):
        model = make_forecaster()
        sizes = model._signature(None)
        assert sizes["inputs"].shape == (None, None, 1) and sizes["origins"].shape == (None, 1)
        assert sizes["window"].shape == (None, 1, 4)
        del sizes["window"]
        with pytest.raises(ValueError, match=r"'padding_mask', 'origins', 'window'.*Received"):
            model.export(tmp_path / "model.pt2", format="torch", input_signature=sizes)

    @pytest.mark.slow
    def test_a_forecaster_is_exported(tmp_path):
        import torch

        model = make_forecaster()
        x = np.random.default_rng(0).standard_normal((3, 12, 1)).astype("float32")
        inputs = {name: np.asarray(value) for name, value in model.standardize(x).items()}
        signature = {
            name: keras.InputSpec(shape=(None, *value.shape[1:]), dtype=str(value.dtype))
            for name, value in inputs.items()
        }
        path = str(tmp_path / "model.pt2")
        model.export(path, format="torch", verbose=False, input_signature=signature)
        found = torch.export.load(path).module()({k: torch.tensor(v) for k, v in inputs.items()})
        np.testing.assert_allclose(found.detach(), model(x).detach(), atol=1e-6)

    @pytest.mark.slow
    def test_an_encoder_that_strides_is_exported(tmp_path):
        import torch

        conv = {"encoder": "conv", "encoder_width": 6, "encoder_stride": 4}
        model = SSMClassifier(SSMBackbone(S4D(4, seed=1), 1, 4, input_dim=2, **conv), 3)
        path = str(tmp_path / "model.pt2")
        model.export(path, format="torch", verbose=False, input_signature=fixed(None, 50))
        run = torch.export.load(path).module()

        def outputs(x):
            return run({k: torch.tensor(v) for k, v in x.items()}).detach().numpy()

        agree(model, outputs, [(2, 50), (1, 50)])

    def test_unknown_lengths_are_refused(tmp_path):
        with pytest.raises(ValueError, match=r"known length.*Received"):
            make(S4D(4, seed=1)).export(tmp_path / "model.pt2", format="torch")
        with pytest.raises(ValueError, match=r"kernel of this DSS depends on it.*Received"):
            make(DSS(4)).export(tmp_path / "model.onnx", format="onnx")

    if not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))):

        def test_what_onnx_needs_is_named(tmp_path, monkeypatch):
            monkeypatch.setitem(sys.modules, "onnxscript", None)
            with pytest.raises(ValueError, match=r"pip install onnx onnxscript.*Received"):
                make(S4D(4, seed=1)).export(tmp_path / "model.onnx", format="onnx")

    else:

        @pytest.mark.parametrize(
            "kind",
            [
                *("floats", "tokens", "one input", "known", "Mamba", "Mamba2"),
                pytest.param("LRU", marks=pytest.mark.slow),
                pytest.param("SGConv", marks=pytest.mark.slow),
                pytest.param("SpaceTime", marks=pytest.mark.slow),
                pytest.param("H3", marks=pytest.mark.slow),
                pytest.param("Hyena", marks=pytest.mark.slow),
                pytest.param("DeltaNet", marks=pytest.mark.slow),
                pytest.param("GSS", marks=pytest.mark.slow),
            ],
        )
        def test_onnx_of_any_batch_and_length(tmp_path, kind):
            import onnxruntime

            others = {"Mamba": Mamba(4, seed=1), "Mamba2": Mamba2(4, head_dim=4, seed=1)}
            others |= {"LRU": LRU(4, seed=1), "SGConv": SGConv(64, kernel_dim=8, seed=1)}
            others["SpaceTime"] = SpaceTime(4, seed=1)
            others["H3"] = H3(4, shift_dim=3, seed=1)
            others["Hyena"] = Hyena(64, filter_width=8, seed=1)
            others["DeltaNet"] = DeltaNet(2, head_dim=2, gated=True, seed=1)
            others["GSS"] = DSS(4, variant="exp-re-im", init="log_normal", fixed_dt=1.0, seed=1)
            mixer = others.get(kind, S5(4, seed=1) if kind == "one input" else S4D(4, seed=1))
            words = {"vocabulary_size": 5} if kind == "tokens" else {"input_dim": 2}
            words |= {"gate": "wide", "bottleneck": 2} if kind == "GSS" else {}
            model = SSMClassifier(SSMBackbone(mixer, 1, 4, **words), 3)
            signature, shapes = None, SHAPES
            if kind == "one input":
                signature = keras.InputSpec(shape=(None, None, 2), dtype="float32")
            elif kind == "known":
                signature, shapes = fixed(3, 64), [(3, 64)]
            path = tmp_path / "model.onnx"
            model.export(
                path, format="onnx", verbose=False, input_signature=signature, max_length=200
            )
            session = onnxruntime.InferenceSession(path)
            names = [entry.name for entry in session.get_inputs()]
            assert names == [model.input_key, "padding_mask"][: 1 if kind == "one input" else 2]
            for shape in shapes:
                x = data(*shape)
                if kind == "tokens":
                    ids = np.arange(shape[0] * shape[1]).reshape(shape) % 5
                    x = {"token_ids": ids.astype("int32"), "padding_mask": x["padding_mask"]}
                x = {name: x[name] for name in names}
                wanted = keras.ops.convert_to_numpy(model(x))
                found = session.run(None, x)[0]
                np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-6)
            # The loops of Mamba2 and the kernels of SGConv and Hyena reach further.
            if signature is None and kind not in ("Mamba2", "SGConv", "Hyena"):
                x = data(1, 700)
                x["token_ids"] = np.zeros((1, 700), "int32")
                found = session.run(None, {name: x[name] for name in names})[0]
                assert np.isnan(found).all()  # far longer than the file was made for


def test_signatures_that_do_not_agree_are_refused(tmp_path):
    signature = {**fixed(None, 20), "padding_mask": fixed(None, 21)["padding_mask"]}
    with pytest.raises(ValueError, match=r"same batch and length.*Received"):
        make(S4D(4, seed=1)).export(tmp_path / "model", input_signature=signature)
