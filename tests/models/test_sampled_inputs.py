"""Sound files and sampling rates on their way into a model."""

import keras
import numpy as np
import pytest
from scipy.io import wavfile

from keras_ssm import signals
from keras_ssm.layers import S4D
from keras_ssm.models import (
    SequencePreprocessor,
    SSMBackbone,
    SSMClassifier,
    SSMPairClassifierPreprocessor,
)

pytestmark = pytest.mark.once("torch")


def make_model(input_dim=1, **arguments):
    backbone = SSMBackbone(S4D(state_dim=4, seed=0), 1, 4, input_dim=input_dim)
    return SSMClassifier(backbone, 2, preprocessor=SequencePreprocessor(**arguments))


def tone(rate, seconds=0.05, channels=1):
    t = np.arange(round(rate * seconds)) / rate
    x = 0.5 * np.sin(2 * np.pi * 200 * t) * np.sin(np.pi * t / seconds) ** 2
    return (x * 32767).round().astype("int16") if channels == 1 else np.stack([x, 0.2 * x], 1)


@pytest.fixture
def files(tmp_path):
    """The same tone, as it comes."""
    x = tone(8000)
    pair = np.stack([x, np.zeros_like(x)], axis=1)
    kinds = {
        "int16": (8000, x),
        "int32": (8000, x.astype("int32") << 16),
        "float": (8000, (x / 32768).astype("float32")),
        "stereo": (8000, pair),
        "fast": (16000, tone(16000)),
    }
    found = {}
    for name, (rate, samples) in kinds.items():
        found[name] = tmp_path / f"{name}.wav"
        wavfile.write(found[name], rate, samples)
    return found


def test_all_forms_of_a_recording_are_read_alike(files):
    model = make_model(sampling_rate=8000)
    x = tone(8000)
    expected = model.predict([(x / 32768).astype("float32")], verbose=0)[0]
    paths = [str(files["int16"]), files["int32"], files["float"], x, (x / 32768)]
    for found in (
        model.predict(paths, verbose=0),
        model.predict(np.array(paths[:1]), verbose=0),
        model.predict(x[None], verbose=0),
        model.predict({"inputs": paths[:2], "sampling_rate": 8000}, verbose=0),
    ):
        np.testing.assert_allclose(found, np.repeat(expected[None], len(found), 0), atol=1e-5)
    # A scale is the factor on integers, for files as well.
    scaled = make_model(sampling_rate=8000, scale=1 / 32768)
    scaled.set_weights(model.get_weights())
    found = scaled.predict([files["int16"], files["int32"], files["float"], x], verbose=0)
    np.testing.assert_allclose(found, np.repeat(expected[None], 4, 0), atol=1e-5)


def test_training_and_scores_take_paths(files):
    model = make_model(sampling_rate=8000)
    paths = [files["int16"], files["float"], files["fast"]]
    y = np.array([0, 1, 1])
    model.fit(paths, y, validation_data=(paths, y), verbose=0)
    arrays = [signals.read_wav(path).samples for path in paths[:2]]
    arrays.append(signals.resample(signals.read_wav(paths[2]).samples, 16000, 8000))
    assert model.evaluate(paths, y, verbose=0) == model.evaluate(arrays, y, verbose=0)


def test_other_rates_are_resampled_or_refused(files):
    model = make_model(sampling_rate=8000)
    expected = model.predict([files["int16"]], verbose=0)[0]
    fast = tone(16000)
    padded = np.zeros((2, 1000), "int16")
    padded[:, 100 : 100 + len(fast)] = fast
    mask = np.zeros((2, 1000), bool)
    mask[:, 100 : 100 + len(fast)] = True
    for found in (
        model.predict([files["fast"]], verbose=0),
        model.predict({"inputs": [fast, tone(8000)], "sampling_rate": [16000, 8000]}, verbose=0),
        model.predict({"inputs": fast[None], "sampling_rate": 16000}, verbose=0),
        model.predict(
            {"inputs": padded, "padding_mask": mask, "sampling_rate": np.int64(16000)}, verbose=0
        ),
    ):
        np.testing.assert_allclose(found, np.repeat(expected[None], len(found), 0), rtol=1e-3)
    # A recording without a rate counts as one at the model's rate.
    plain = model.predict([fast], verbose=0)
    assert np.abs(plain - expected).max() > 1e-3
    model.preprocessor.resample = False
    with pytest.raises(ValueError, match=r"sampling rate of the model, 8000.*16000 in row 1"):
        model.predict([files["int16"], files["fast"]], verbose=0)


def test_a_step_scale_takes_the_place_of_resampling(rng):
    model = make_model(sampling_rate=8000, resample="step_scale")
    slow = {"inputs": rng.standard_normal((2, 50)), "sampling_rate": 4000}
    with pytest.raises(ValueError, match=r"need `model.step_scale = 2`"):
        model.predict(slow, verbose=0)
    model.step_scale = 2.0
    found = model.predict(slow, verbose=0)
    np.testing.assert_array_equal(found, model.predict(slow["inputs"], verbose=0))
    with pytest.raises(ValueError, match=r"need `model.step_scale = 1`"):
        model.predict({**slow, "sampling_rate": 8000}, verbose=0)
    with pytest.raises(ValueError, match="the same rate"):
        model.predict({**slow, "sampling_rate": [4000, 8000]}, verbose=0)


def test_labels_of_steps_follow_the_rate_of_the_model(files):
    backbone = SSMBackbone(S4D(state_dim=4, seed=0), 1, 4)
    preprocessor = SequencePreprocessor(sampling_rate=8000)
    model = SSMClassifier(backbone, 2, preprocessor=preprocessor, pooling=None)
    steps = len(tone(8000))
    x = {"inputs": tone(16000)[None], "sampling_rate": 16000}
    model.fit(x, np.zeros((1, steps)), verbose=0)
    model.fit([str(files["fast"])], [np.zeros(steps)], verbose=0)
    for wrong in (2 * steps, len(str(files["fast"]))):
        with pytest.raises(ValueError, match=f"{steps} steps"):
            model.fit(x, np.zeros((1, wrong)), verbose=0)


def test_channels_are_features_or_one(files):
    stereo = [files["stereo"]]
    with pytest.raises(ValueError, match="features"):
        make_model(sampling_rate=8000).predict([files["int16"], *stereo], verbose=0)
    assert make_model(2, sampling_rate=8000).predict(stereo, verbose=0).shape == (1, 2)
    mono = SequencePreprocessor(sampling_rate=8000, mono=True)
    x = mono([files["int16"], *stereo])["inputs"]
    np.testing.assert_allclose(x[1], x[0] / 2, atol=1e-6)
    array = signals.read_wav(stereo[0]).samples[None]
    np.testing.assert_array_equal(mono(array)["inputs"][0], x[1])


def test_what_is_cut_away_counts_in_no_size(rng):
    import tensorflow as tf

    x = rng.standard_normal((2, 9, 2)).astype("float32")
    x[:, 5:] *= 100.0
    for normalize in ("peak", "standard"):
        whole = SequencePreprocessor(normalize=normalize)(x[:, :5])["inputs"]
        preprocessor = SequencePreprocessor(normalize=normalize, sequence_length=5)
        for rows in (x, [x[0], x[1]], tf.constant(x)):
            np.testing.assert_allclose(preprocessor(rows)["inputs"], whole, atol=1e-6)


@pytest.mark.parametrize("normalize", ["peak", "standard"])
def test_rows_are_brought_to_one_size(rng, normalize):
    rows = [3.0 + 5.0 * rng.standard_normal((n, 2)) for n in (30, 20)] + [np.zeros((10, 2))]
    rows = [row.astype("float32") for row in rows]
    preprocessor = SequencePreprocessor(normalize=normalize)
    found = preprocessor(rows)
    for row, x in zip(rows, found["inputs"], strict=True):
        size = np.abs(row).max() if normalize == "peak" else row.std(axis=0)
        expected = row if normalize == "peak" else row - row.mean(axis=0)
        np.testing.assert_allclose(x[: len(row)], expected / np.where(size, size, 1), atol=1e-5)
    padded = np.full((3, 30, 2), np.nan, "float32")
    for x, row in zip(padded, rows, strict=True):
        x[: len(row)] = row
    mask = found["padding_mask"]
    repeated = preprocessor({"inputs": padded, "padding_mask": mask})["inputs"]
    np.testing.assert_array_equal(repeated[mask], found["inputs"][mask])
    reason = preprocessor.unstreamable_because()
    assert "normalize" in reason and SequencePreprocessor().unstreamable_because() is None


def test_missing_values_do_not_count_in_the_size_of_a_row(rng):
    import tensorflow as tf

    x = (1000 + rng.standard_normal((2, 30, 2))).astype("float32")
    x[:, ::2, 0] = np.nan
    x[1, :, 1] = np.nan  # a feature without known values
    known = np.ma.masked_invalid(x)
    expected = (known - known.mean(axis=1, keepdims=True)) / known.std(axis=1, keepdims=True)
    expected = expected.filled(0.0)
    preprocessor = SequencePreprocessor(normalize="standard", allow_nan=True)
    for given in (x, list(x)):
        np.testing.assert_allclose(preprocessor(given)["inputs"], expected, atol=1e-3)
    (found,) = tf.data.Dataset.from_tensors(x).map(preprocessor)
    np.testing.assert_allclose(found["inputs"], expected, atol=1e-3)
    (row,) = SequencePreprocessor(normalize="peak", allow_nan=True)(x[:1])["inputs"]
    np.testing.assert_allclose(row, np.nan_to_num(x[0] / np.nanmax(x[0])), atol=1e-6)


def test_tensorflow_data_are_treated_alike(rng):
    import tensorflow as tf

    rows = [rng.integers(-9999, 9999, (n, 2)).astype("int16") for n in (9, 6)]
    for arguments in (
        {"sampling_rate": 8000},
        {"sampling_rate": 8000, "mono": True, "normalize": "standard"},
        {"normalize": "peak", "scale": 0.5},
    ):
        preprocessor = SequencePreprocessor(**arguments)
        ragged = tf.ragged.stack([tf.constant(row) for row in rows])
        ragged = tf.RaggedTensor.from_row_lengths(np.concatenate(rows), [9, 6])
        (found,) = tf.data.Dataset.from_tensors(ragged).map(preprocessor)
        expected = preprocessor(rows)
        mask = expected["padding_mask"]
        np.testing.assert_array_equal(found["padding_mask"], mask)
        np.testing.assert_allclose(
            found["inputs"].numpy()[mask], expected["inputs"][mask], atol=1e-6
        )


def test_what_is_wrong_is_said(files, tmp_path, rng):
    model = make_model(sampling_rate=8000)
    whole = files["int16"].read_bytes()
    bad = {
        "short": whole[:200],
        "head": whole[:30],
        "text": b"no sound at all, but a text of some length",
        "empty": b"",
        "silent": whole[:44].replace(whole[40:44], bytes(4)),
    }
    for name, content in bad.items():
        path = tmp_path / f"{name}.wav"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"sound file[^$]*{name}\.wav"):
            model.predict([files["int16"], path], verbose=0)
    x = rng.standard_normal((2, 20))
    fast = {"inputs": x, "sampling_rate": 16000}
    holes = np.arange(20) % 3 > 0
    for data, message in (
        ([tmp_path / "none.wav"], "no file"),
        (str(files["int16"]), "a list of paths"),
        (files["int16"], "a list of rows"),
        ({"inputs": [files["int16"]], "sampling_rate": 16000}, "8000 samples a second"),
        ({"inputs": x, "sampling_rate": 0}, "positive number"),
        ({"inputs": x, "sampling_rate": [8000] * 3}, "each of the 2 rows"),
        ({"inputs": x, "sampling_rate": "8 kHz"}, "positive number"),
        ({**fast, "padding_mask": np.array([holes, holes])}, "no holes"),
        ({"inputs": (100 * x).astype("int64")}, "full range"),
        ([[1, 2, 3]], "full range"),
        ({**fast, "timesteps": np.ones((2, 20))}, "timesteps"),
    ):
        with pytest.raises(ValueError, match=message):
            model.predict(data, verbose=0)
    for data in ([files["int16"]], fast):
        with pytest.raises(ValueError, match="needs to know at which rate"):
            make_model().predict(data, verbose=0)
    with pytest.raises(ValueError, match="Token ids are no samples"):
        SequencePreprocessor(tokens=True, mono=True)(["text"])
    for wrong in ({"resample": "yes"}, {"sampling_rate": -1}, {"normalize": "max"}, {"mono": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SequencePreprocessor(**wrong)


def test_settings_are_saved_and_old_configurations_stay(files, tmp_path):
    model = make_model(sampling_rate=8000, normalize="peak", mono=True, resample=False)
    model.save_to_preset(tmp_path / "preset")
    reloaded = SSMClassifier.from_preset(tmp_path / "preset")
    assert reloaded.preprocessor.get_config() == model.preprocessor.get_config()
    paths = [files["int16"], files["stereo"]]
    np.testing.assert_array_equal(
        reloaded.predict(paths, verbose=0), model.predict(paths, verbose=0)
    )
    assert not {"sampling_rate", "resample", "normalize", "mono"} & {
        *SequencePreprocessor().get_config()
    }
    np.testing.assert_array_equal(SequencePreprocessor()(np.int16([[5, 7]]))["inputs"][0, 0], 5)


def test_pairs_of_files(files):
    preprocessor = SSMPairClassifierPreprocessor(sampling_rate=8000)
    found = preprocessor([(files["int16"], files["fast"]), (tone(8000), files["float"])])
    assert found["inputs"].shape == (2, 2, 400, 1)
    assert keras.ops.max(np.abs(found["inputs"][0, 0] - found["inputs"][0, 1])) < 0.01


@pytest.mark.filterwarnings("error")
def test_floats_where_the_scale_is_for_integers_are_warned_of(rng):
    preprocessor = SequencePreprocessor(scale=1 / 32768, sampling_rate=8000)
    samples = rng.integers(-9000, 9000, 50).astype("int16")
    for fine in (samples, samples.astype("float32"), np.zeros(9), np.ones(9)):
        preprocessor([fine])
    for x in ([samples / 32768], samples[None] / np.float32(32768)):
        with pytest.warns(UserWarning, match="multiply them by 32768"):
            preprocessor(x)
    SequencePreprocessor(sampling_rate=8000)([samples / 32768])
    quiet = {"inputs": [(samples / 3000).astype("int16")], "sampling_rate": 16000}
    preprocessor(quiet)  # resampled to fractions
    preprocessor.normalize = "peak"
    preprocessor([samples / 32768])
