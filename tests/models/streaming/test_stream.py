"""Streams give what one pass gives, however a sequence is cut."""

import threading

import keras
import numpy as np
import pytest

from keras_ssm.models import SequencePreprocessor, SSMBackbone, SSMCausalLM, SSMClassifier
from tests.backend_tools import BACKEND, relative_error
from tests.models.streaming.small import LENGTH, MIXERS, X, make_model, shared_model


def read(stream, x, size):
    """The outputs after all steps of a sequence that comes in pieces."""
    return np.concatenate([stream(x[:, i : i + size]) for i in range(0, x.shape[1], size)], axis=1)


def latest(outputs):
    """The last answer of each row: rows without a step have NaN there."""
    answered = (~np.isnan(outputs[..., 0])).sum(axis=1)
    return outputs[np.arange(len(outputs)), answered - 1]


def one_pass(model, x, lengths):
    """The outputs after the first steps of a sequence, for each of so many, by `predict`."""
    if model.has_step_outputs:
        return model.predict(x, verbose=0)[:, np.array(lengths) - 1]
    mask = np.arange(x.shape[1]) < np.repeat(lengths, len(x))[:, None]
    rows = np.tile(x, (len(lengths), 1, 1))
    found = model.predict({"inputs": rows, "padding_mask": mask}, verbose=0)
    return np.moveaxis(found.reshape(len(lengths), len(x), -1), 0, 1)


@pytest.mark.parametrize(
    ("mixer", "pooling"),
    [
        ("s4d", "mean"),
        pytest.param("mamba", None, marks=pytest.mark.once("torch", "jax")),
        *[
            pytest.param(mixer, pooling, marks=pytest.mark.once("torch"))
            for mixer, pooling in [
                ("s4", "last"),
                ("dss", "max"),
                ("dss_fixed", "mean"),
                ("s5", "attention"),
                ("s4ptd", None),
                ("s5ptd", "mean"),
                ("mamba2", "last"),
                ("h3", "last"),
                ("hyena", "last"),
                ("delta", "last"),
            ]
        ],
    ],
)
def test_chunks_of_any_size_equal_one_pass(mixer, pooling, monkeypatch):
    model = make_model(mixer, pooling, num_layers=2 if BACKEND == "torch" else 1)
    lengths = (1, 7, 8, 16, 39, 40)
    expected = one_pass(model, X, lengths)
    traced = []
    way = model.read_piece
    monkeypatch.setattr(type(model), "read_piece", lambda self, *a: (traced.append(1), way(*a))[1])
    for size in (1, 7, 13, 1000):
        outputs = read(model.stream(batch_size=2), X, size)
        assert outputs.shape == (2, LENGTH, 3)
        assert relative_error(outputs[:, np.array(lengths) - 1], expected) < 1e-5
    # Programs of 8, 16 and 64 steps, one of which may see its own states a second time.
    assert BACKEND == "torch" or len(traced) <= 4


@pytest.mark.once("torch")
@pytest.mark.parametrize("pooling", ["mean", None])
def test_backbones_that_read_padding_get_none(pooling):
    model = make_model("s5", pooling, mask_inputs=False)
    outputs = read(model.stream(2), X, 13)
    assert relative_error(outputs[:, -1:], one_pass(model, X, (LENGTH,))) < 1e-5
    with pytest.raises(ValueError, match="mask_inputs=False"):
        model.stream(2)([X[0, :3], X[1, :2]])


@pytest.mark.once("torch", "jax")
@pytest.mark.parametrize("pooling", [pytest.param("mean", marks=pytest.mark.once("torch")), None])
def test_encoders_that_take_several_samples_for_a_step(pooling):
    model = make_model(pooling=pooling, encoder="conv", encoder_width=6, encoder_stride=4)
    x = X[:, :39]  # three samples wait at the end
    expected = model.predict(x, verbose=0)
    for size in (1, 7, 13, 1000) if BACKEND == "torch" else (7,):
        stream = model.stream(2)
        pieces = [stream(x[:, i : i + size]) for i in range(0, 39, size)]
        outputs = np.concatenate(pieces, axis=1)
        assert outputs.shape == (2, 9, 3) and pieces[0].shape[1] == min(size, 39) // 4
        assert stream.steps.tolist() == [39, 39]
        outputs = outputs if pooling is None else outputs[:, -1]
        assert relative_error(outputs, expected) < 1e-5
    # Samples that wait are part of the state, and each row has its own.
    other = model.stream(2)
    other([x[0, :9], x[1, :2]])
    stream.state = other.state
    outputs = stream([x[0, 9:], x[1, 2:]])
    if pooling is None:
        assert relative_error(outputs[0, :7], expected[0, 2:]) < 1e-5
        assert relative_error(outputs[1], expected[1]) < 1e-5
    else:
        assert relative_error(latest(outputs), expected) < 1e-5


@pytest.mark.once("torch")
def test_the_length_of_a_softmax_counts_steps_and_not_samples():
    model = make_model("dss_fixed", encoder="conv", encoder_width=4, encoder_stride=2)
    x = np.tile(X, (1, 2, 1))
    stream = model.stream(2)
    outputs = np.concatenate([stream(x[:, :51]), stream(x[:, 51:])], axis=1)
    assert relative_error(outputs[:, -1], model.predict(x, verbose=0)) < 1e-5
    with pytest.raises(ValueError, match=f"Received: 41 steps in all, softmax_length={LENGTH}"):
        stream(x[:, :2])


@pytest.mark.once("torch")
def test_a_language_model_streams_token_ids():
    model = SSMCausalLM(SSMBackbone(MIXERS["mamba"], 1, hidden_dim=4, vocabulary_size=9))
    ids = np.random.default_rng(0).integers(9, size=20)
    expected = model.predict(ids[None], verbose=0)
    stream = model.stream()
    outputs = [
        stream(ids[:7]),
        stream(ids[7:8].tolist()),
        stream(int(ids[8])),
        stream(ids[None, 9:]),
    ]
    assert relative_error(np.concatenate(outputs, axis=1), expected) < 1e-5
    with pytest.raises(ValueError, match="from 0 to 8"):
        stream(9)
    with pytest.raises(ValueError, match="takes their ids"):
        stream("text")


@pytest.mark.once("torch")
def test_bytes_of_texts_stream_as_they_are():
    backbone = SSMBackbone(MIXERS["s4d"], 1, hidden_dim=4, vocabulary_size=256)
    model = SSMClassifier(backbone, 2, pooling="last")
    stream = model.stream(2)
    before = stream(["ab", "ä"])
    outputs = stream([b"c", ""])
    assert np.isnan(outputs[1]).all()
    outputs = [outputs[0, 0], before[1, 1]]
    assert relative_error(outputs, model.predict(["abc", "ä"], verbose=0)) < 1e-5


@pytest.mark.parametrize("pooling", ["mean", pytest.param(None, marks=pytest.mark.once("torch"))])
def test_rows_of_unequal_length(pooling):
    model = shared_model() if pooling == "mean" else make_model(pooling=pooling)
    stream = model.stream(batch_size=2)
    first = stream([X[0, :5], X[1, :2]])
    stream([X[0, 5:5], X[1, 2:5]])
    inputs = {"inputs": X[:, 5:14], "padding_mask": np.arange(9) < np.array([[9], [4]])}
    last = stream(inputs)
    assert first.shape == (2, 5, 3) and stream.steps.tolist() == [14, 9]
    rows = [X[0, :14], X[1, :9]]
    assert np.isnan(last[1, 4:]).all() and np.isnan(first[1, 2:]).all()
    if pooling is None:
        expected = [model.predict(row[None], verbose=0)[0] for row in rows]
        assert relative_error(last[0], expected[0][5:]) < 1e-5
        assert relative_error(last[1, :4], expected[1][5:]) < 1e-5
    else:
        assert relative_error(latest(last), model.predict(rows, verbose=0)) < 1e-5
    assert stream([X[0, :0], X[1, :0]]).shape == (2, 0, 3)


@pytest.mark.once("torch")
def test_raw_audio_as_predict_takes_it():
    model = make_model(input_dim=1, scale=1 / 32768)
    clip = np.random.default_rng(0).integers(-20000, 20000, size=30).astype("int16")
    expected = model.predict(clip[None], verbose=0)
    stream = model.stream()
    forms = [
        clip,
        clip[:, None],  # as `sounddevice` gives it
        clip[None],
        clip[None, :, None],
        [clip],
        [clip[:, None]],
        clip.tolist(),
        keras.ops.convert_to_tensor(clip),
        {"inputs": clip},
    ]
    for form in forms:
        stream.reset()
        outputs = stream(form)
        assert outputs.shape == (1, 30, 3) and relative_error(outputs[:, -1], expected) < 1e-5
    stream.reset()
    for sample in clip:
        outputs = stream(int(sample))
    assert outputs.shape == (1, 1, 3) and relative_error(outputs[:, 0], expected) < 1e-5
    together = model.stream(batch_size=2)
    assert together(clip[:2]).shape == (2, 1, 3)  # a sample of each
    model = make_model()
    for batch, form in ((2, X[:, 0]), (1, X[0, 0]), (1, X[0, :1])):
        outputs = model.stream(batch)(form)
        assert relative_error(outputs, model.stream(batch)(X[:batch, :1])) == 0.0


@pytest.mark.once("torch")
def test_sampling_rates_and_channels():
    backbone = SSMBackbone(MIXERS["s4d"], 1, hidden_dim=4)
    preprocessor = SequencePreprocessor(sampling_rate=8000, mono=True)
    model = SSMClassifier(backbone, 3, preprocessor)
    stereo = np.random.default_rng(0).integers(-20000, 20000, size=(30, 2)).astype("int16")
    expected = model.predict(stereo[None], verbose=0)
    stream = model.stream()
    for form in (stereo, stereo[None], [stereo], {"inputs": stereo, "sampling_rate": 8000}):
        stream.reset()
        assert relative_error(stream(form)[:, -1], expected) < 1e-5
    with pytest.raises(ValueError, match=r"Received: shape \(1, 2\)"):  # channels, or steps?
        stream(stereo[:1])
    half = {"inputs": stereo, "sampling_rate": 4000}
    with pytest.raises(ValueError, match="sampling rate of the model"):
        stream(half)
    preprocessor.resample = False
    with pytest.raises(ValueError, match="4000 in row 0"):
        stream(half)
    preprocessor.resample = "step_scale"
    with pytest.raises(ValueError, match="step_scale = 2"):
        stream(half)
    model.step_scale = 2.0
    stream.reset()
    found = stream(half)[:, -1]
    assert relative_error(found, model.predict(half | {"inputs": stereo[None]}, verbose=0)) < 1e-5
    preprocessor.normalize = "peak"
    with pytest.raises(ValueError, match="normalize='peak'"):
        stream(stereo)
    with pytest.raises(ValueError, match="sampling_rate=None"):
        make_model().stream(2)({"inputs": X, "sampling_rate": 8000})


@pytest.mark.once("torch")
def test_a_preprocessor_of_ones_own():
    backbone = SSMBackbone(MIXERS["s4d"], 1, hidden_dim=4, input_dim=2)
    double = lambda x: np.concatenate([x, 2 * x], axis=-1)
    model = SSMClassifier(backbone, 2, double)
    x = X[:1, :, :1]
    outputs = read(model.stream(), x, 7)
    assert relative_error(outputs[:, -1], model.predict(x, verbose=0)) < 1e-5


@pytest.mark.once("torch")
def test_times_between_samples():
    model = make_model("s5")
    times = np.random.default_rng(0).uniform(0.5, 2.0, (2, LENGTH)).astype("float32")
    expected = model.predict({"inputs": X, "timesteps": times}, verbose=0)
    for size in (1, 7):
        stream = model.stream(2)
        for i in range(0, LENGTH, size):
            part = slice(i, i + size)
            outputs = stream({"inputs": X[:, part], "timesteps": times[:, part]})
        assert relative_error(outputs[:, -1], expected) < 1e-5
    rows = {"inputs": [X[0, :3], X[1, :2]], "timesteps": [times[0, :3], times[1, :2]]}
    assert relative_error(latest(model.stream(2)(rows)), model.predict(rows, verbose=0)) < 1e-5


def test_new_weights_hold_from_the_next_chunk_on(tmp_path):
    model = make_model()
    stream = model.stream(2)

    def differs():
        """How far the stream is from one pass, by a step and by a piece."""
        stream.reset()
        outputs = np.concatenate([stream(X[:, :1]), stream(X[:, 1:6])], axis=1)
        expected = one_pass(model, X[:, :6], (1, 6))
        return relative_error(outputs[:, [0, 5]], expected)

    def train():
        model.compile("sgd", run_eagerly=BACKEND == "tensorflow")
        model.optimizer.learning_rate = 0.5
        model.fit(X, np.arange(2), verbose=0)

    model.save_weights(tmp_path / "first.weights.h5")
    mixer = model.backbone.blocks[0].mixer
    assert differs() < 1e-5
    before = stream(X[:, 6:7])
    for change in (
        lambda: setattr(model, "step_scale", 3.0),
        lambda: mixer.C_real.assign(mixer.C_real + 1.0),
        train,
        lambda: model.load_weights(tmp_path / "first.weights.h5"),
    ):
        change()
        assert differs() < 1e-5
        if change is not train:
            after = stream(X[:, 6:7])
            assert relative_error(after, before) > 1e-4
            before = after


@pytest.mark.once("torch")
def test_layers_that_change_their_form():
    model = make_model(hidden_dim=8)
    stream = model.stream(2)
    for t in range(30):  # PyTorch traces a step when it has seen a few
        stream(X[:, t : t + 1])
    model.enable_lora(2)
    for layer in (model.backbone.blocks[0].output_dense, model.backbone.encoder_layer):
        layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))
    stream.reset()
    outputs = stream(X[:, :1])
    assert relative_error(outputs[:, 0], model.predict(X[:, :1], verbose=0)) < 1e-5
    model.quantize("int8")
    stream.reset()
    outputs = stream(X[:, :1])
    assert relative_error(outputs[:, 0], model.predict(X[:, :1], verbose=0)) < 0.02


def test_threads_do_not_disturb_each_other():
    model = shared_model()
    expected = [read(model.stream(2), scale * X, 8) for scale in (1.0, -2.0)]
    found, start = [None, None], threading.Barrier(2)

    def work(i):
        stream = model.stream(2)
        start.wait(60)
        pieces = [stream((1.0, -2.0)[i] * X[:, t : t + 1]) for t in range(LENGTH)]
        found[i] = np.concatenate(pieces, axis=1)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outputs, right in zip(found, expected, strict=True):
        assert relative_error(outputs, right) < 1e-5


@pytest.mark.only("jax", "torch")
def test_a_stream_goes_on_while_the_model_trains():
    model = make_model()
    stream = model.stream(2)
    stream(X[:, :1])
    outputs = []

    class Listen(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            outputs.append(stream(X[:, :1]))
            outputs.append(stream(X[:, :4]))

    model.fit(X, np.arange(2), epochs=2, verbose=0, callbacks=[Listen()])
    assert len(outputs) == 4 and all(np.isfinite(y).all() for y in outputs)
    stream.reset()
    assert relative_error(stream(X[:, :5])[:, -1], model.predict(X[:, :5], verbose=0)) < 1e-5
