"""The scripts of `examples/` run as they stand, in a small form."""

import re
import runpy
import sys
import wave
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_ssm
from keras_ssm import convert, presets
from keras_ssm.layers import S4D
from keras_ssm.models import SequencePreprocessor, SSMBackbone, SSMClassifier
from tests.small_preset import make_model

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
EXAMPLES = (
    "associative_recall",
    "converting",
    "copying",
    "custom_model",
    "digits",
    "forecasting",
    "microphone",
    "own_data",
    "publishing",
    "state_tracking",
    "streaming",
)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs an example as a person would, in an empty directory; returns what it printed."""
    monkeypatch.chdir(tmp_path)

    def example(name, *arguments):
        script = str(ROOT / "examples" / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        runpy.run_path(script, run_name="__main__")
        return capsys.readouterr().out

    return example


def numbers(pattern, printed):
    """What a pattern caught on each of its lines, as floats."""
    return [float(value) for value in re.findall(pattern, printed)]


@pytest.mark.once("torch")
@pytest.mark.parametrize("name", EXAMPLES)
def test_help_and_length(run, name, capsys):
    with pytest.raises(SystemExit) as ended:
        run(name, "--help")
    assert ended.value.code == 0
    text = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    first, shown = text.splitlines()[0].strip('"'), capsys.readouterr().out
    assert first in shown and f"python examples/{name}.py" in shown and "--out" in shown
    assert len(text.splitlines()) < 120


@pytest.mark.once("torch")
def test_every_example_is_run():
    found = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert found == set(EXAMPLES)


@pytest.mark.once("torch")
def test_copying(run):
    small = ["--symbols", 3, "--pattern", 3, "--wait", 2, "--width", 16, "--state-dim", 16]
    printed = run("copying", *small, "--rows", 2048, "--epochs", 2)
    assert min(numbers(r"([\d.]+)% of the s", printed)) > 95
    ((read, said),) = re.findall(r"one by one: (.*)\nsaid after the wait: (.*)\n", printed)
    assert said == read and Path("out/copying.keras").is_file()


@pytest.mark.once("torch")
def test_associative_recall(run):
    small = ["--keys", 2, "--pairs", 6, "--width", 8, "--rounds", 1]
    printed = run("associative_recall", "--task", "recall", "--system", "h3", *small)
    (right,) = numbers(r"recall, h3: ([\d.]+)% right", printed)
    assert right > 70  # of two values
    assert Path("out/recall.json").is_file()


@pytest.mark.once("torch")
def test_state_tracking(run):
    small = ["--length", 16, "--rounds", 3, "--symbols", 128, "--rate", 0.02]
    printed = run("state_tracking", "--task", "parity", "--system", "deltanet", "s4d", *small)
    found = np.array(numbers(r"([\d.]+)% at", printed)).reshape(2, 3)
    assert found[0, :2].min() > 95 and found[1].max() < 75, printed
    assert Path("out/state_tracking/parity_deltanet.keras").is_file()


@pytest.mark.once("torch")
def test_digits(run):
    pytest.importorskip("sklearn")
    printed = run("digits", "--epochs", 1, "--width", 8)
    assert "1297 images to learn from, 500 to test" in printed
    model = SSMClassifier.from_preset("out/digits")
    x, y = keras_ssm.datasets.digits()[1]
    answers = model.predict(x, batch_size=250, verbose=0).argmax(axis=-1)
    assert numbers(r"not seen: ([\d.]+)%", printed) == [round(100 * (answers == y).mean(), 1)]
    ((said, truth),) = re.findall(r"after line 8: (\d)\nin truth (\d)", printed)
    assert (int(said), int(truth)) == (answers[0], y[0])
    assert max(numbers(r"answers (\S+) apart", printed)) < 1e-5


@pytest.mark.once("torch")
def test_own_data_learns_what_it_made(run):
    printed = run("own_data", "--epochs", 6, "--width", 16)
    assert "400 series of 2 features" in printed and "['air', 'bearing']" in printed
    (accuracy,) = numbers(r"accuracy on 100 .*: ([\d.]+)%", printed)
    assert accuracy > 80
    named = re.findall(r"^(\w+) \(\d+%\), in truth (\w+)$", printed, re.MULTILINE)
    assert len(named) == 3 and {word for pair in named for word in pair} <= {"air", "bearing"}
    assert SSMClassifier.from_preset("out/own_data").num_classes == 2


@pytest.mark.once("torch")
def test_own_data_of_files(run, rng):
    """Both kinds of file hold the same series, and give the same model."""
    lengths, labels = rng.integers(4, 10, size=24), np.array(["x", "y", "z"] * 8)
    padded = np.full((24, 9, 2), 1e6)  # padding may hold anything
    lines = ["series,label,weight,speed"]
    for i, (length, label) in enumerate(zip(lengths, labels, strict=True)):
        padded[i, :length] = rng.normal([5.0, -800.0], [1.0, 100.0], size=(length, 2))
        lines += [f"s{i},{label},{a!r},{b!r}" for a, b in padded[i, :length].tolist()]
    Path("own.csv").write_text("\n".join(lines))
    np.savez("own.npz", x=padded, y=labels, lengths=lengths)
    small = ["--epochs", 1, "--width", 4]
    printed = {k: run("own_data", "--data", f"own.{k}", "--out", k, *small) for k in ("csv", "npz")}
    for kind, text in printed.items():
        assert "24 series of 2 features, up to 9 steps: ['x', 'y', 'z']" in text
        facts = presets.read(kind)
        assert facts["classes"] == ["x", "y", "z"]
        np.testing.assert_allclose(facts["mean"], [5, -800], rtol=0.1)
    models = [SSMClassifier.from_preset(kind) for kind in printed]
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.once("torch")  # compiled models of this kind: tests/models/test_plain_keras.py
@pytest.mark.parametrize("system", ["s4d", "s5"])
def test_custom_model(run, system):
    printed = run("custom_model", "--system", system, "--rows", 40, "--epochs", 1, "--width", 4)
    assert len(numbers(r"mean error ([\d.]+)", printed)) == 2
    longer, loaded = numbers(r": (\S+) apart", printed)
    assert longer < 1e-5 and loaded < 1e-6
    assert keras.models.load_model("out/gauge.keras").input_shape == (None, None, 1)


@pytest.fixture
def streamed(tmp_path):
    """A small preset of two features, and a series for it."""
    directory, series = tmp_path / "small", np.random.default_rng(0).normal(size=(9, 2))
    make_model().save_to_preset(directory)
    np.save(tmp_path / "series.npy", series)
    return ["--preset", directory, "--data", tmp_path / "series.npy", "--chunk", 2]


@pytest.mark.once("torch")
def test_streaming(run, streamed):
    printed = run("streaming", *streamed)
    assert "one pass over 9 samples" in printed and "continued from out/state.npz" in printed
    errors = numbers(r"differs from one pass by (\S+) of", printed)
    assert len(errors) == 3 and max(errors) < 1e-5


@pytest.mark.once("torch")
def test_microphone(run, tmp_path):
    """Two sounds in a file are found, and named as the model names each of them alone."""
    backbone = SSMBackbone(S4D(4, seed=0), num_layers=1, hidden_dim=4)
    model = SSMClassifier(backbone, 3, SequencePreprocessor(scale=1 / 32768))
    model.save_to_preset(tmp_path / "sounds")
    rng = np.random.default_rng(0)
    sounds = np.zeros(8000)
    for start, end, volume in ((1000, 3000, 0.5), (3500, 3600, 0.5), (6000, 8000, 0.1)):
        sounds[start:end] = volume * rng.uniform(-1, 1, end - start)
    sounds = (32767 * sounds).astype("<i2")
    with wave.open(str(tmp_path / "sounds.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(4000)
        file.writeframes(sounds.tobytes())
    arguments = ["--preset", "sounds", "--file", "sounds.wav", "--shortest", 200]
    printed = run("microphone", *arguments, "--rate", 4000)
    rows = [line.split(",") for line in Path("out/heard.csv").read_text().splitlines()[1:]]
    assert [(int(start), int(end)) for start, end, *_ in rows] == [(880, 3040), (5920, 8000)]
    assert printed.count(" s: ") == 2 and "0.22 s to 0.76 s" in printed
    for start, end, name, probability in rows:
        logits = model.predict(sounds[None, int(start) : int(end)], verbose=0)[0]
        found = np.exp(logits - logits.max())
        assert int(name) == found.argmax()
        assert abs(float(probability) - found.max() / found.sum()) < 1e-5
    with pytest.raises(SystemExit, match="has 4000 samples a second"):
        run("microphone", *arguments)


@pytest.mark.once("torch")
def test_streaming_of_digits(run):
    pytest.importorskip("sklearn")
    printed = run("streaming")
    assert max(numbers(r"differs from one pass by (\S+) of", printed)) < 1e-4
    ((said, truth),) = re.findall(r"one pass over 64 samples: class (\d), in truth (\d)", printed)
    assert said == truth and f"after 64 samples: class {said}" in printed


@pytest.mark.once("torch")
def test_forecasting(run):
    pytest.importorskip("pandas")
    small = ["--horizon", 6, "--lookback", 24, "--epochs", 1, "--steps", 2]
    printed = run("forecasting", "--rows", 300, *small)
    assert "1 series of ['load', 'price'], every h, season 24" in printed
    scores = numbers(r": MASE ([\d.]+)", printed)
    assert len(scores) == 4 and scores[3] < scores[1] and "on 30 rows" in printed
    assert "the same forecast: True" in printed
    lines = Path("out/forecast/forecast.csv").read_text().splitlines()
    assert len(lines) == 7 and lines[1].startswith("2024-01-13 12:00:00")
    assert Path("out/forecast/forecast.png").stat().st_size > 1000
    rows = [
        f"{name},2024-{month:02d}-{day:02d},{day + month}"
        for name in "ab"
        for month in (1, 2, 3)
        for day in range(1, 29)
    ]
    Path("own.csv").write_text("\n".join(["unique_id,day,y", *rows]))
    printed = run("forecasting", "--data", "own.csv", "--time", "day", "--out", "own", *small)
    assert "2 series of ['y'], every D, season 7" in printed
    assert len(Path("own/forecast.csv").read_text().splitlines()) == 1 + 2 * 6


CHECKPOINTS = {
    "s4-example": ("a_example_s4d_postnorm.pth", ["--set", "prenorm=false"], "converted.pth"),
    "s5-flax": ("s5_last_ln_post.msgpack", [], "converted.msgpack"),
    "s4-lightning": (
        "c_s4_lra_cifar_pl_omegaconf.ckpt",
        ["--check", GOLDEN / "models" / "c_s4_lra_cifar.npz"],
        None,
    ),
}


@pytest.mark.once("torch")
@pytest.mark.parametrize("format", CHECKPOINTS)
def test_converting(run, format):
    name, arguments, back = CHECKPOINTS[format]
    printed = run("converting", GOLDEN / "checkpoints" / name, *arguments)
    assert f"{name}: {format}, a " in printed.replace("\n", "") and "prenorm" in printed
    assert SSMClassifier.from_preset("out/converted").num_classes > 1
    if back is None:
        assert max(numbers(r"from the recorded logits: (\S+)", printed)) < 5e-5
        assert f"files of {format} are not written" in printed
    else:
        assert max(numbers(r"differ by (\S+) of the largest", printed)) < 1e-5
        assert convert.load_checkpoint(Path("out") / back)


@pytest.mark.once("torch")
def test_converting_a_file_that_it_makes(run):
    pytest.importorskip("msgpack")
    printed = run("converting", "--out", "here/again")
    assert "s5.msgpack: s5-flax, a " in printed.replace("\n", "")
    assert max(numbers(r"differ by (\S+) of the largest", printed)) < 1e-6


@pytest.mark.once("torch")
def test_publishing_is_a_dry_run_unless_asked(run, hub):
    printed = run("publishing")
    assert numbers(r"([\d.]+)% of 512 waves", printed)[0] > 90
    assert "would publish to hf://me/waves" in printed and not hub.requests


@pytest.mark.once("torch")
def test_publishing(run, hub):
    printed = run("publishing", "us/waves", "--upload", "--private", "--epochs", 1)
    assert "downloaded again and compared" in printed and hub.repositories["us/waves"].private
    assert "loaded from hf://us/waves" in printed
    assert "--epochs 1" in hub.repositories["us/waves"].files("main")["README.md"].decode()
