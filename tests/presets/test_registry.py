"""One table of presets: in the package, in directories of one's own, on the Hub."""

import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from scipy import stats

import keras_ssm
from keras_ssm import cli, presets
from keras_ssm.models import (
    SSMBackbone,
    SSMCausalLM,
    SSMClassifier,
    SSMForecaster,
    SSMImageClassifier,
    SSMPairClassifier,
    SSMTask,
)
from keras_ssm.presets import registry
from tests.hub_client import offline

pytestmark = pytest.mark.once("torch")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def own(saved, tmp_path, monkeypatch):
    """Two directories of one's own: `one/small`, `one/s4d_digits` and `two/small`."""
    for place in ("one/small", "one/s4d_digits", "two/small"):
        shutil.copytree(saved[0], tmp_path / place)
    paths = os.pathsep.join(str(tmp_path / name) for name in ("one", "two"))
    monkeypatch.setenv("KERAS_SSM_PRESETS", paths)
    return tmp_path


def test_every_entry_is_complete():
    found = keras_ssm.list_presets()
    assert {"s4_digits", "s4d_digits", "s4ptd_digits", "dss_digits", "s5_digits"} < set(found)
    for name, info in found.items():
        assert info["name"] == name and info["task"] and info["system"] and info["parameters"]
        assert info["data"]["name"] and {"weights", "data"} <= set(info["licences"])
        score = info["scores"][0]
        assert score["value"] and score["command"]
        assert score["value"] == next(iter(score.get("seeds", {0: score["value"]}).values()))
        if "count" in score:
            low, high = presets.table.interval(score)
            assert low < score["value"] <= high
            assert f"{100 * low:.1f} to" in presets.table.score(score)
        assert all(len(checksum) == 64 for checksum in info["files"].values())
        assert info["handle"] == f"hf://keras-ssm/{name}" and info["source"] == "package"
        assert info["published"] is False


def test_own_directories_come_first(own):
    found = keras_ssm.list_presets()
    assert found["small"]["source"] == "KERAS_SSM_PRESETS" and found["small"]["handle"] is None
    assert presets.resolve("small") == own / "one" / "small"
    assert presets.resolve("s4d_digits") == own / "one" / "s4d_digits"
    assert SSMClassifier.from_preset("s4d_digits").num_classes == 3
    assert presets.resolve("s5_digits").parent == registry.zoo()
    assert "small" not in presets.markdown_table()


def test_a_directory_that_is_none_is_told(monkeypatch):
    monkeypatch.setenv("KERAS_SSM_PRESETS", "/no/such/directory")
    for call in (keras_ssm.list_presets, lambda: presets.resolve("s4d_digits")):
        with pytest.raises(ValueError, match=r"KERAS_SSM_PRESETS.*Received: /no/such"):
            call()
    result = CliRunner().invoke(cli.main, ["list"])
    assert result.exit_code == 1 and "Received" in result.output


@pytest.fixture
def table_alone(saved, tmp_path, monkeypatch):
    """A package that knows the preset `small` without its files."""
    zoo = tmp_path / "zoo"
    (zoo / "small").mkdir(parents=True)
    shutil.copy(saved[0] / "preset.json", zoo / "small")
    monkeypatch.setattr(registry, "zoo", lambda: zoo)
    return zoo


def files_of(directory):
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


def test_a_name_without_files_is_found_on_the_hub(hub, saved, table_alone, monkeypatch):
    assert keras_ssm.list_presets()["small"]["source"] == "hub"
    with pytest.raises(ValueError, match=r"hf://keras-ssm/small.*no such repository"):
        SSMClassifier.from_preset("small")
    repository = hub.add("keras-ssm/small", files_of(saved[0]))
    assert SSMClassifier.from_preset("small").num_classes == 3
    with offline(monkeypatch):
        assert SSMClassifier.from_preset("small").num_classes == 3
    # The package's checksums count: another version must be asked for.
    document = json.loads(repository.files()["preset.json"])
    task = json.dumps({**json.loads(repository.files()["task.json"]), "more": 1}).encode()
    document["files"]["task.json"] = presets.preset_files.hashlib.sha256(task).hexdigest()
    new = {"preset.json": json.dumps(document).encode(), "task.json": task}
    repository.commit({**repository.files(), **new})
    with pytest.raises(ValueError, match=r"another version.*`revision`.*Received: commit"):
        presets.resolve("small")
    assert presets.resolve("small", revision="main").is_dir()


def test_a_name_with_some_of_its_files_is_damaged(hub, saved, table_alone):
    shutil.copy(saved[0] / "config.json", table_alone / "small")
    with pytest.raises(ValueError, match=r"incomplete.*Received: no file"):
        presets.resolve("small")
    assert not hub.requests


def test_unknown_names_do_not_reach_the_hub(hub):
    with pytest.raises(ValueError, match=r"s4d_digits.*Received: preset='s4d_digit'"):
        SSMClassifier.from_preset("s4d_digit")
    assert not hub.requests


def test_presets_of_the_classes(own):
    names = set(keras_ssm.list_presets())
    assert set(SSMBackbone.presets) == set(SSMTask.presets) == names
    language = {name for name in names if name.endswith("_tinyshakespeare")}
    forecasts = {name for name in names if "etth1" in name or name.endswith("_ecg_ahead")}
    images = {name for name in names if name.startswith("s4nd_")}
    assert set(SSMClassifier.presets) == names - language - forecasts - images
    assert set(SSMImageClassifier.presets) == images
    assert set(SSMCausalLM.presets) == language
    assert set(SSMForecaster.presets) == forecasts
    assert SSMPairClassifier.presets == {}
    entry = SSMClassifier.presets["s5_digits"]
    assert entry["kaggle_handle"] == "hf://keras-ssm/s5_digits"
    assert entry["metadata"]["params"] == 67982 and entry["metadata"]["system"] == "S5"
    assert entry["metadata"]["description"].startswith("A classifier of handwritten digits")


def test_list(own):
    result = CliRunner().invoke(cli.main, ["list"])
    for part in ("KERAS_SSM_PRESETS", "package, not published yet", "hf://keras-ssm/<preset>"):
        assert part in result.output


def test_intervals_of_scores():
    # By definition: 492 or more right answers are as rare, 1 in 40, as 492 or fewer at the ends.
    low, high = presets.table.interval({"value": 0.984, "count": 500})
    assert stats.binom.sf(491, 500, low) == pytest.approx(0.025)
    assert stats.binom.cdf(492, 500, high) == pytest.approx(0.025)
    # If all answers are right, or all wrong, one end of the interval is certain.
    low, high = presets.table.interval({"value": 1.0, "count": 20})
    assert low**20 == pytest.approx(0.025) and high == 1
    assert presets.table.interval({"value": 0.0, "count": 20}) == pytest.approx((0, 1 - low))
    assert presets.table.interval({"value": 0.9}) is None
    entry = {"metric": "accuracy", "value": 0.95, "count": 20, "seeds": {"0": 0.95, "1": 0.85}}
    words = "95.0 % accuracy (95 % interval 75.1 to 99.9 %; mean of 2 seeds 90.0 %)"
    assert presets.table.score(entry) == words


def test_the_readme_has_the_table():
    result = CliRunner().invoke(cli.main, ["list", "--markdown"])
    assert result.output == presets.markdown_table()
    assert result.output.count("\n") == len(keras_ssm.list_presets()) + 2
    assert presets.markdown_tasks() in (ROOT / "README.md").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
    assert presets.markdown_results() in page and "ridge" in presets.markdown_results()
