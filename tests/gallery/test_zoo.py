"""From runs to presets: pictures, cards, a table with a row for each seed, and the Hub."""

import json
import shutil
from io import BytesIO

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import keras_ssm
from keras_ssm import gallery, hub, presets, recipes, training
from keras_ssm.cli import main
from keras_ssm.gallery.png import MOST_BYTES
from keras_ssm.presets import results
from keras_ssm.training.learning_curve import LearningCurve
from tests.gallery.waves import Waves

pytestmark = pytest.mark.once("torch")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs, of which one seed comes first, another and a baseline later; and their presets."""
    folder = tmp_path_factory.mktemp("zoo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LearningCurve, "draw", lambda self: None)
        patch.setattr(recipes, "get", lambda name: Waves())
        for system, seed in (("s4d", 0), ("s4d", 1), ("lstm", 0)):
            command = f"keras-ssm train waves --system {system} --seed {seed}"
            out = folder / "runs" / f"{system}-{seed}"
            training.train(Waves(), system, folder, out, seed, command=command)
            if len(list(out.parent.iterdir())) in (1, 3):
                names = gallery.collect([out.parent], folder, folder / "presets")
                assert names == ["s4d_waves"]
    return folder


@pytest.fixture
def zoo(made, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "get", lambda name: Waves())
    return shutil.copytree(made, tmp_path / "zoo") / "presets"


def content(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_preset_of_the_first_seed_says_all_of_its_training(zoo):
    document = presets.verify(zoo / "s4d_waves")
    first, second = (
        json.loads((zoo.parent / "runs" / f"s4d-{seed}" / "results.json").read_text())
        for seed in (0, 1)
    )
    accuracy = document["scores"][0]
    assert accuracy["metric"] == "accuracy on the test part" and accuracy["count"] == 8
    found = [run["scores"]["test"]["accuracy"] for run in (first, second)]
    assert list(accuracy["seeds"].values()) == pytest.approx(found, rel=1e-5)
    assert accuracy["value"] == accuracy["seeds"]["0"]
    (lstm,) = document["baselines"]
    assert (lstm["system"], lstm["metric"], list(lstm["seeds"])) == ("lstm", "accuracy", ["0"])
    assert document["size"] == sum(
        path.stat().st_size for path in (zoo / "s4d_waves").glob("*.weights.h5")
    )
    assert document["seconds"]["wall"] == first["wall_seconds"]
    assert document["int8"]["metric"] == "accuracy" and 0 <= document["int8"]["value"] <= 1
    model = keras_ssm.models.SSMClassifier.from_preset(zoo / "s4d_waves")
    stream = model.stream()
    stream(np.zeros(3, "float32"))
    kept = sum(np.asarray(part.detach()).nbytes for part in stream.parts().values())
    assert document["streaming"]["state_bytes"] == kept


def test_rows_of_presets_and_baselines(zoo):
    rows = presets.read_results(zoo / "results.csv")
    assert [(row["name"], row["seed"], row["baseline"]) for row in rows] == [
        ("s4d_waves", "0", "no"),
        ("s4d_waves", "1", "no"),
        ("lstm_waves", "0", "yes"),
    ]
    assert tuple(rows[0]) == presets.results.COLUMNS and rows[0]["data"] == "waves"
    document = presets.read(zoo / "s4d_waves")
    for row in rows[:2]:
        assert float(row["value"]) == document["scores"][0]["seeds"][row["seed"]]
        assert row["validation"] and row["other_scores"].startswith("cross-entropy ")


def test_the_order_of_settings_makes_no_other_run():
    def row(seed, settings):
        command = f"keras-ssm train waves --system s4d --seed {seed} {settings}"
        return {"name": "s4d_waves", "seed": str(seed), "command": command}

    table = [row(0, "epochs=2 width=4"), row(1, "epochs=2 width=4")]
    again, other = row(1, "width=4 epochs=2"), row(1, "width=4 epochs=3")
    assert results.merged(table, [again]) == [table[0], again]
    assert results.merged(table, [other]) == [other]


def test_a_second_time_nothing_changes(zoo):
    before = content(zoo)
    gallery.collect([zoo.parent / "runs"], zoo, zoo)
    assert content(zoo) == before


def test_half_of_the_bytes_where_the_score_stays(zoo, monkeypatch):
    before = presets.read(zoo / "s4d_waves")
    with monkeypatch.context() as patch, pytest.raises(ValueError, match=r"stay within 0.0005"):
        scores = iter([{"accuracy": 0.5}, {"accuracy": 0.75}])
        patch.setattr(Waves, "score", lambda *arguments: next(scores))
        gallery.halve("s4d_waves", zoo, zoo)
    assert presets.read(zoo / "s4d_waves") == before
    found, kept = gallery.halve("s4d_waves", zoo, zoo)
    document = presets.verify(zoo / "s4d_waves")
    assert found == kept == before["scores"][0]["value"]
    with h5py.File(zoo / "s4d_waves" / "model.weights.h5") as file:
        assert file["layers/dense/vars/0"].dtype == "float16"
    assert document["scores"] == before["scores"]
    model = keras_ssm.models.SSMClassifier.from_preset(zoo / "s4d_waves")  # compares its sample
    assert model.count_params() == before["parameters"]
    gallery.halve("s4d_waves", zoo, zoo)  # a second time, which changes nothing
    gallery.collect([zoo.parent / "runs"], zoo, zoo)  # of the runs with all digits
    again = presets.verify(zoo / "s4d_waves")
    assert again["rounded_from"] == document["rounded_from"]
    assert again["sample"] == document["sample"] != before["sample"]


def test_runs_that_do_not_fit_are_refused(zoo, tmp_path):
    place = zoo.parent / "runs" / "s4d-1" / "results.json"
    results = json.loads(place.read_text())
    for change, message in (
        ({"limit": 1}, "smoke run"),
        ({"seed": 0}, "same seed"),
        ({"settings": {**results["settings"], "hidden_dim": 5}}, "settings hidden_dim"),
    ):
        place.write_text(json.dumps({**results, **change}))
        with pytest.raises(ValueError, match=f"{message}"):
            gallery.collect([zoo.parent / "runs"], zoo, zoo)
    with pytest.raises(ValueError, match=r"complete run.*Received"):
        gallery.collect([tmp_path / "nothing"], zoo, zoo)


def test_pictures_are_small_and_in_the_card(zoo):
    from PIL import Image

    document, card = presets.read(zoo / "s4d_waves"), (zoo / "s4d_waves" / "README.md").read_text()
    names = {entry["file"] for entry in document["pictures"]}
    assert {"samples.png", "confusion.png", "learning.png"} <= names <= set(document["files"])
    for entry in document["pictures"]:
        bytes_of = (zoo / "s4d_waves" / entry["file"]).read_bytes()
        assert len(bytes_of) < MOST_BYTES and f"![{entry['alt']}]({entry['file']})" in card
        drawn = np.asarray(Image.open(BytesIO(bytes_of)).convert("L"))
        assert drawn.shape[0] > 200 and 0.5 < (drawn > 250).mean() < 0.999
    assert "| lstm |" in card and "| **s4d_waves** |" in card
    assert "expected calibration error" in card and "same licence" in card
    assert "A streamed step" in card and 'quantize("int8")' in card


def test_the_hub_carries_the_pictures(hub, zoo):
    publication = hub_publish(zoo / "s4d_waves")
    assert {"samples.png", "learning.png", "log.csv"} <= set(publication.uploaded)
    there = hub.repositories["me/s4d_waves"].files()
    assert there["samples.png"] == (zoo / "s4d_waves" / "samples.png").read_bytes()
    snapshot = presets.download("me/s4d_waves")
    assert (snapshot / "confusion.png").read_bytes() == there["confusion.png"]
    found = gallery.pictures(snapshot, Waves(), Waves().waves(2))
    assert {"samples.png", "learning.png"} <= set(found)


def hub_publish(directory):
    return hub.publish(directory, f"me/{directory.name}")


def test_a_wrong_score_is_an_error(zoo, monkeypatch):
    arguments = ["evaluate", str(zoo / "s4d_waves"), "--data", str(zoo)]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    monkeypatch.setattr("keras_ssm.recipes.run.load_model", lambda preset: None)
    for value in (0.9, float("nan")):
        wrong = {"accuracy": value, "cross-entropy": value}
        monkeypatch.setattr(Waves, "score", lambda *given, wrong=wrong: wrong)
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 1 and "must repeat" in result.output
    monkeypatch.setattr(Waves, "score", lambda *given: {"accuracy": 1.0})
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1 and "none of cross-entropy" in result.output
