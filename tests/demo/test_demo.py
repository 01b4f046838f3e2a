"""`keras-ssm demo`: which preset it shows, and what it shows of one that forecasts."""

import numpy as np
import pytest
from click.testing import CliRunner

import keras_ssm
from keras_ssm import cli, datasets, demo, presets
from keras_ssm.layers import S4D
from keras_ssm.models import SSMBackbone, SSMForecaster

pytestmark = pytest.mark.once("torch")


@pytest.fixture(scope="module")
def forecaster(tmp_path_factory):
    """A folder with a preset that forecasts two leads, hardly trained."""
    model = SSMForecaster(
        SSMBackbone(S4D(4, seed=0), num_layers=1, hidden_dim=4), lookback=24, horizon=30
    )
    rows = np.random.default_rng(0).standard_normal((300, 2)).cumsum(axis=0)
    model.fit([rows, -rows], validation=150, epochs=0, verbose=0)
    folder = tmp_path_factory.mktemp("presets")
    info = {"recipe": {"recipe": "ecg_ahead", "system": "s4d"}}
    model.save_to_preset(folder / "s4d_ecg_ahead", info=info)
    return folder


def test_a_forecaster_of_the_electrocardiogram(forecaster, tmp_path, monkeypatch):
    from keras_ssm.demo import ecg

    monkeypatch.setattr(ecg, "CHUNK", 300)
    result = CliRunner().invoke(
        cli.main,
        ["demo", "--preset", str(forecaster / "s4d_ecg_ahead"), "--out", str(tmp_path)],
    )
    assert result.exit_code == 0, result.output
    assert "31 normal beats and 9" in result.output and "predictions equal" in result.output
    found = [line.split()[6] for line in result.output.splitlines() if "square error" in line]
    ours, last, mean = map(float, found)
    assert ours < last and mean < last  # a ridge regression of walks leans to the mean
    for picture in ("forecast.png", "eigenvalues.png", "kernels.png"):
        assert (tmp_path / picture).stat().st_size > 10_000


def test_errors_are_those_of_the_rows_that_came():
    from keras_ssm.demo.ecg import UNIT_ROWS, errors

    rows = np.random.default_rng(0).standard_normal((UNIT_ROWS + 50, 2))
    forecasts = np.zeros((len(rows), 3, 2))
    for t in range(len(rows) - 3):
        forecasts[t] = rows[t + 1 : t + 4]  # the values that come later
    found = errors(forecasts, rows, (np.zeros(2), np.full(2, 2.0)))
    assert found["the preset"] == 0.0
    expected = (
        np.mean([rows[t + i] ** 2 for t in range(UNIT_ROWS, UNIT_ROWS + 48) for i in range(3)]) / 4
    )
    assert found["the mean of the first seconds"] == pytest.approx(expected)


def test_the_preset_without_a_name(forecaster, monkeypatch):
    known = presets.list_presets()
    assert demo.favourite() == next(name for name in demo.FAVOURITES if name in known)
    monkeypatch.setenv("KERAS_SSM_PRESETS", str(forecaster))
    assert demo.favourite() == "s4d_ecg_ahead" and demo.kind("s4d_ecg_ahead") == "ecg"
    assert demo.kind("s4d_digits") == "digits"


def test_a_preset_of_other_data_is_refused():
    result = CliRunner().invoke(cli.main, ["demo", "--preset", "s4d_tinyshakespeare"])
    assert result.exit_code == 1 and "data come with the package" in result.output
    assert "Received: preset='s4d_tinyshakespeare', of data 'tinyshakespeare'" in result.output


def test_the_electrocardiogram_that_comes_with_the_package():
    record = datasets.ecg()
    assert record.samples.dtype == "float32" and record.samples.shape == (14_400, 2)
    assert record.sampling_rate == 360.0 and record.units == ("mV", "mV")
    beats = [(p, c) for p, c in zip(record.places, record.classes, strict=True) if c is not None]
    assert len(beats) == 40 and keras_ssm.signals.aami_class("V") == "V"
    # Marks sit on the peaks: the lead is larger there than on the whole.
    level = np.abs(record.samples[:, 0] - np.median(record.samples[:, 0]))
    near = [level[max(0, p - 18) : p + 18].max() for p, _ in beats]
    assert min(near) > 2 * np.median(level)
