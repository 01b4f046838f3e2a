"""Trained models of spoken digits at other sampling rates."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from keras_ssm import cli, recipes
from keras_ssm.experiments import playback_rate
from keras_ssm.experiments.tables import read_table
from keras_ssm.training import train
from keras_ssm.training.learning_curve import LearningCurve

pytestmark = pytest.mark.once("torch")

SMALL = {"num_layers": 1, "hidden_dim": 4, "batch_size": 4}
OF_SYSTEMS = {"state_dim": 4, "encoder_width": 8, "augment": False}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Tones of the pitch of their digit as recordings."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "fsdd").mkdir()
    label, index = np.repeat(np.arange(10), 24), np.tile(np.arange(12), 20)
    lengths = 300 + 7 * np.arange(240) % 90
    sounds = [
        9000 * np.sin(2 * np.pi * (100 + 60 * digit) * np.arange(n) / 8000)
        for digit, n in zip(label, lengths, strict=True)
    ]
    np.savez(
        folder / "fsdd" / "fsdd_8khz_int16.npz",
        audio=np.concatenate(sounds).astype("int16"),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        label=label.astype("uint8"),
        speaker=(np.arange(240) // 12 % 2).astype("uint8"),
        index=index.astype("uint8"),
    )
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory, recordings):
    """A run of a system and one of a baseline, which trained next to nothing."""
    found, recipe = [], recipes.get("spoken_digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LearningCurve, "draw", lambda self: None)
        for system, more in (("s4d", OF_SYSTEMS), ("waveform_cnn", {})):
            found.append(tmp_path_factory.mktemp("runs") / system)
            train(recipe, system, recordings, found[-1], 0, {**SMALL, **more}, limit=1)
    return found


def test_the_command_reads_runs_in_three_ways_and_draws(tmp_path, recordings, runs):
    words = ["experiment", "playback_rate", *runs, "--data", recordings, "--out", tmp_path / "out"]
    words += ["--rate", 0.6, "--rate", 1.0, "--limit", 8]
    result = CliRunner().invoke(cli.main, list(map(str, words)))
    assert result.exit_code == 0, result.output
    rows = read_table(tmp_path / "out" / "rates.csv")
    ways = {(row["system"], row["rate"], row["reading"]) for row in rows}
    assert ways == {
        *(("s4d", 0.6, way) for way in ("as it is", "rescaled", "resampled back")),
        *(("waveform_cnn", 0.6, way) for way in ("as it is", "resampled back")),
        ("s4d", 1, "as it is"),
        ("waveform_cnn", 1, "as it is"),
    }
    assert all(0 <= row["accuracy"] <= 1 and row["recordings"] == 8 for row in rows)
    assert (tmp_path / "out" / "rates.png").stat().st_size > 5000


def test_what_a_run_scored_is_found_again(tmp_path, recordings, runs):
    """At its own rate and at half of it, from the run and from the preset that it left."""
    preset = next(runs[0].glob("*/preset.json")).parent
    for run, source in ((runs[0], runs[0]), (runs[0], preset), (runs[1], runs[1])):
        scores = json.loads((run / "results.json").read_text())["scores"]["test"]
        rows = playback_rate([source], recordings, tmp_path, rates=[1.0, 0.5], limit=4)
        found = {(row["rate"], row["reading"]): row["accuracy"] for row in rows}
        assert found[1.0, "as it is"] == scores["accuracy"]
        assert found[0.5, "as it is"] == scores["accuracy at half rate, low-pass"]
        if run == runs[0]:
            expected = scores["accuracy at half rate, low-pass, rescaled"]
            assert found[0.5, "rescaled"] == expected


def test_other_sources_are_refused(tmp_path, recordings):
    with pytest.raises(ValueError, match=r"runs or presets of the recipe.*Received: 's4d_digits'"):
        playback_rate(["s4d_digits"], recordings, tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(ValueError, match=r"complete runs.*Received"):
        playback_rate([tmp_path / "run"], recordings, tmp_path)
    with pytest.raises(ValueError, match=r"`rates` must be a number.*Received"):
        playback_rate([], recordings, tmp_path, rates=[0.0])
