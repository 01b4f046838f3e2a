"""What the tabs of the page compute, which needs no Gradio."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from keras_ssm import datasets, presets, web
from keras_ssm.layers import S4D
from keras_ssm.models import SequencePreprocessor, SSMBackbone, SSMClassifier
from keras_ssm.web import drawing, pad, table
from keras_ssm.web.choice import DRAWING, SOUND, side
from tests.small_preset import make_model

pytestmark = pytest.mark.once("torch")


@pytest.fixture(scope="module")
def digits():
    return SSMClassifier.from_preset("s4d_digits")


def drawn(pixels, size=280):
    """A drawing as the page gives it: black ink of some transparency on nothing."""
    scale = size // len(pixels)
    image = np.zeros((size, size, 4), "uint8")
    image[..., 3] = np.kron(pixels / pixels.max() * 255, np.ones((scale, scale)))
    return image


def as_sent(image):
    """What a canvas of the browser sends."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def test_drawings_of_test_digits_are_read(digits):
    """The whole way: ink, the pixels of the data set, the stream, the probabilities."""
    (_, _), (x, y) = datasets.digits()
    found = []
    for row in x[:10]:
        pixels = web.to_pixels(pad.decoded(as_sent(drawn(row.reshape(8, 8)))), side=8)
        *_, (read, probabilities) = web.watch(digits, pixels, frames=2)
        assert read == 64
        found.append(probabilities[-1].argmax())
    assert (np.array(found) == y[:10]).mean() >= 0.9


def test_the_answers_are_those_after_each_pixel(digits):
    (_, _), (x, _) = datasets.digits()
    frames = list(web.watch(digits, x[0].reshape(8, 8), frames=3))
    assert [read for read, _ in frames] == [22, 43, 64]
    logits = digits.predict(x[:1, :43], verbose=0)[0]
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(frames[1][1][-1], expected, atol=1e-4)
    assert frames[2][1].shape == (64, 10)
    np.testing.assert_array_equal(frames[2][1][:22], frames[0][1])


def test_ink_lies_as_in_the_data_set():
    image = np.full((200, 300), 255, "uint8")
    image[150:190, 20:30] = 0  # a one, small, in a corner
    eight, large = web.to_pixels(image, 8), web.to_pixels(np.stack([image] * 3, -1), 28)
    assert (eight.max(axis=1) == 16).all()  # all rows have ink
    rows, columns = np.nonzero(large)
    assert rows.min() == 4 and rows.max() == 23  # a box of 20 in the middle
    assert abs(columns.mean() - 13.5) <= 0.5 and large.max() == 255
    leaning = np.zeros((100, 100, 4), "uint8")
    leaning[10:90, 10:14, 3] = 255  # a stroke, and a foot that shifts the middle of the mass
    leaning[80:90, 10:60, 3] = 255
    mass = web.to_pixels(leaning, 28).astype(float)
    assert abs((mass.sum(axis=0) @ np.arange(28)) / mass.sum() - 13.5) < 0.5


@pytest.mark.parametrize(
    ("image", "size", "message"),
    [
        (np.full((9, 9), 255, "uint8"), 8, "must have dark lines"),
        (np.zeros((9, 9, 4), "uint8"), 28, "must have dark lines"),
        (np.zeros((9, 9, 2), "uint8"), 8, "`image` must be of shape"),
        (np.zeros((9, 9), "uint8"), 16, r"`side` must be one of \[8, 28\]"),
    ],
)
def test_what_is_no_drawing(image, size, message):
    with pytest.raises(ValueError, match=message):
        web.to_pixels(image, size)


@pytest.mark.parametrize(
    "url", [None, "", "data:image/png;base64,AAAA", as_sent(np.zeros((9, 9, 4), "uint8"))]
)
def test_what_no_canvas_sends(url):
    with pytest.raises(ValueError, match="must be a drawing of 280 x 280 pixels"):
        pad.decoded(url)


def test_pixels_ahead_are_pale():
    pixels = np.full((8, 8), 16)
    picture = drawing.shown(pixels, read=20)
    assert picture.shape == (8, 8, 3)
    assert (picture[2, 3] == 0).all() and (picture[2, 4] > 100).all()
    tag = pad.picture(picture, "20 of 64 pixels read")
    assert 'alt="20 of 64 pixels read"' in tag
    sent = io.BytesIO(base64.b64decode(tag.partition("base64,")[2].partition('"')[0]))
    np.testing.assert_array_equal(np.asarray(Image.open(sent)), picture)


@pytest.fixture(scope="module")
def hearing():
    backbone = SSMBackbone(S4D(4, seed=0), num_layers=1, hidden_dim=4)
    preprocessor = SequencePreprocessor(scale=1 / 32768, sampling_rate=8000)
    return SSMClassifier(backbone, 2, preprocessor, class_names=["no", "yes"])


def test_a_sound_file_is_heard(hearing, tmp_path):
    rate = 16_000
    tone = np.sin(2 * np.pi * 440 * np.arange(rate // 4) / rate)
    quiet = np.zeros(rate // 2)
    stereo = np.stack([np.concatenate([quiet, tone, quiet])] * 2, axis=1)
    wavfile.write(tmp_path / "a.wav", rate, (16_000 * stereo).astype("int16"))
    samples = web.prepared(tmp_path / "a.wav", 8000)
    assert samples.dtype == "int16" and abs(len(samples) - 2000 - 2 * 160) <= 4
    assert 15_000 < samples.max() < 17_000
    probabilities = web.hear(hearing, samples, 8000)
    assert probabilities.shape == (len(samples), 2)
    logits = hearing.predict([samples], verbose=0)[0]
    np.testing.assert_allclose(probabilities[-1], np.exp(logits) / np.exp(logits).sum(), atol=1e-5)


def test_a_constant_offset_is_no_sound(tmp_path):
    """As a cheap sound card adds it: silence is cut off, and the model hears what it knows."""
    tone = np.concatenate([np.zeros(2000), np.sin(np.arange(1000.0)), np.zeros(2000)])
    for name, offset in (("a.wav", 0), ("b.wav", 5000)):
        wavfile.write(tmp_path / name, 8000, (9000 * tone + offset).astype("int16"))
    plain, shifted = (web.prepared(tmp_path / name, 8000) for name in ("a.wav", "b.wav"))
    assert len(shifted) == len(plain) < 1500
    np.testing.assert_allclose(shifted, plain, atol=1)


def test_sound_that_is_no_digit(hearing, tmp_path):
    wavfile.write(tmp_path / "silent.wav", 8000, np.zeros(800, "int16"))
    with pytest.raises(ValueError, match="silence in"):
        web.prepared(tmp_path / "silent.wav", 8000)
    wavfile.write(tmp_path / "long.wav", 8000, np.resize([1000, -1000], 60_000).astype("int16"))
    with pytest.raises(ValueError, match=r"within 5 seconds.*Received: 7\.5"):
        web.prepared(tmp_path / "long.wav", 8000)
    wavfile.write(tmp_path / "nan.wav", 8000, np.array([0.1, np.nan], "float32"))
    with pytest.raises(ValueError, match=r"finite numbers\. Received: NaN"):
        web.prepared(tmp_path / "nan.wav", 8000)
    with pytest.raises(ValueError, match="enough for a step"):
        web.hear(hearing, np.zeros(0, "int16"), 8000)


def a_table(rows, path):
    days = np.datetime64("2024-01-01") + np.arange(rows)
    t = np.arange(rows)
    lines = [f"{d},{np.sin(i / 3) + 0.01 * (i % 5):.4f},shop" for d, i in zip(days, t, strict=True)]
    path.write_text("\n".join(["day,sales,where", *lines]))
    return path


def test_a_table_is_forecast(tmp_path):
    found = web.forecast_table(a_table(240, tmp_path / "a.csv"), horizon=7, steps=2)
    assert found.forecast.index[0] == np.datetime64("2024-08-28") and len(found.forecast) == 7
    assert {"sales", "lo-80", "hi-80"} <= set(found.forecast.columns)
    assert found.scores["rows"] == 40 and found.scores["mae"] < found.scores["naive"] / 2
    words = table.in_words(found.scores)
    assert "On the last 40 rows" in words and "no better" not in words and "80 %" in words
    assert "Left out, as they hold no numbers: where." in found.notes
    assert any("fitted on the first 200 rows" in note for note in found.notes)
    worse = table.in_words({"rows": 40, "mae": 2.0, "naive": 1.0})
    assert "no better than that" in worse


def test_the_rows_that_score_are_not_learned_from(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        table.SSMForecaster, "fit", lambda self, data, **kwargs: seen.append(len(data)) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        web.forecast_table(a_table(240, tmp_path / "a.csv"))
    assert seen == [200]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a CSV file"),
        ("a,b\n" + "x,y\n" * 100, "0 columns of numbers, 100 rows"),
        ("a\n" + "1\n" * 20, "1 columns of numbers, 20 rows"),
    ],
)
def test_what_is_no_table(text, message, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        web.read_table(tmp_path / "a.csv")


def test_the_presets_of_the_tabs(tmp_path, monkeypatch):
    found = web.choices()
    assert set(found[DRAWING].presets) >= {"s4d_digits", "s5_digits"}
    if not any(name.endswith("_spoken_digits") for name in presets.list_presets()):
        assert found[SOUND].presets == ()
    assert "keras-ssm train spoken_digits" in found[SOUND].lacking
    for name, recipe, settings in (
        ("s4d_sequential_mnist", "sequential_mnist", {}),
        ("s4d_permuted_mnist", "sequential_mnist", {"permuted": True}),
        ("s5_spoken_digits", "spoken_digits", {}),
    ):
        info = {"recipe": {"recipe": recipe, "system": "s4d", "settings": settings}}
        make_model().save_to_preset(tmp_path / name, info=info)
    monkeypatch.setenv("KERAS_SSM_PRESETS", str(tmp_path))
    found = web.choices()
    *large, small = images = found[DRAWING].presets[:5]
    systems = ("s4", "s4d", "s4ptd", "s5")
    assert sorted(large) == [f"{system}_sequential_mnist" for system in systems]
    assert large[0] == "s4d_sequential_mnist" and small == "s4d_digits"
    assert "s4d_permuted_mnist" not in found[DRAWING].presets
    sounds = ("s4d_spoken_digits", "s4ptd_spoken_digits", "s5_spoken_digits")
    assert set(sounds) <= set(found[SOUND].presets)
    known = presets.list_presets()
    assert [side(known[name]) for name in images] == [28, 28, 28, 28, 8]
