"""Saving is whole or not at all: whatever is killed, linked, or written at the same time."""

import json
import os
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import pytest

from keras_ssm import atomic_directory, presets
from keras_ssm.atomic_file import writing_file
from keras_ssm.models import SSMClassifier
from keras_ssm.models.saving import sample_check
from tests.small_preset import make_model, run_python

pytestmark = pytest.mark.once("torch")


@pytest.fixture
def versions(saved, tmp_path):
    """Two valid presets, `old` and `new`, which differ in a fact and in a file."""
    for name in ("old", "new"):
        shutil.copytree(saved[0], tmp_path / name)
        (tmp_path / name / "metadata.json").write_text(json.dumps({"version": name}))
        facts = presets.read(tmp_path / name)
        presets.describe(tmp_path / name, {**facts, "name": name})
    return tmp_path


def replace(source, target):
    with presets.writing(target) as scratch:
        shutil.copytree(source, scratch, dirs_exist_ok=True)


def test_a_killed_save_leaves_the_old_or_the_new_preset(versions):
    script = (Path(__file__).parents[1] / "killed_saves.py").read_text(encoding="utf-8")
    result = run_python(script, str(versions))
    assert result.returncode == 0, result.stderr
    assert all(int(kills) > 20 for kills in result.stdout.split())


def test_an_interrupted_save_of_a_model_leaves_the_old_file(tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    model = make_model()
    files = {tmp_path / "a.keras": model.save, tmp_path / "a.weights.h5": model.save_weights}
    for path, save in files.items():
        save(path)
        before = path.read_bytes()
        for place, name in ((zipfile.ZipFile, "__init__"), (os, "fsync"), (os, "replace")):
            if name == "__init__" and save == model.save_weights:
                continue
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(place, name, interrupted)
                save(path)
            assert path.read_bytes() == before
        save(path)
    assert keras.models.load_model(tmp_path / "a.keras").count_params() == model.count_params()
    model.save(tmp_path / "folder", zipped=False)
    assert keras.models.load_model(tmp_path / "folder").count_params() == model.count_params()
    assert sorted(os.listdir(tmp_path)) == ["a.keras", "a.weights.h5", "folder"]


@pytest.fixture
def cached(saved, tmp_path):
    """A snapshot as the Hub's client lays it down: links to files named by their content."""
    blobs = tmp_path / "hub" / "models--me--small" / "blobs"
    snapshot = blobs.parent / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in saved[0].iterdir():
        blob = blobs / presets.sha256(path)
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    yield snapshot
    assert all(presets.sha256(blob) == blob.name for blob in blobs.iterdir())
    assert {path.name for path in snapshot.iterdir()} == {p.name for p in saved[0].iterdir()}
    assert all(path.is_symlink() for path in snapshot.iterdir())


def test_the_cache_of_the_hub_is_never_written_to(cached, tmp_path):
    model = make_model()
    for save in (
        lambda: model.save_to_preset(cached),
        lambda: model.save_to_preset(cached / "inside"),
        lambda: model.save(cached / "model.keras"),
        lambda: model.save_weights(cached / "model.weights.h5"),
        lambda: presets.write(cached, {"files": {}}),
    ):
        with pytest.raises(ValueError, match=r"cache of the Hub.*Received"):
            save()


def test_links_are_replaced_and_what_they_point_to_stays(cached, tmp_path):
    model, preset = make_model(), tmp_path / "preset"
    preset.mkdir()
    for path in cached.iterdir():  # a preset of links, and a link to a preset
        (preset / path.name).symlink_to(path)
    linked = tmp_path / "linked"
    linked.symlink_to(cached)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for directory in (preset, linked, tmp_path / "dangling"):
        model.save_to_preset(directory)
        assert not directory.is_symlink()
        assert not any(path.is_symlink() for path in directory.iterdir())
        assert SSMClassifier.from_preset(directory).num_classes == 3
    for name, save in (("a.keras", model.save), ("a.weights.h5", model.save_weights)):
        (tmp_path / name).symlink_to(cached / "model.weights.h5")
        save(tmp_path / name)
        assert not (tmp_path / name).is_symlink()


def test_a_preset_is_a_directory(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    for target in (path, path / "below"):
        with pytest.raises(ValueError, match=r"directory. Received: .*file"):
            make_model().save_to_preset(target)
    assert path.read_text() == "mine" and os.listdir(tmp_path) == ["file"]


def test_what_is_no_part_of_a_preset_stays(preset, monkeypatch):
    (preset / ".git").mkdir()
    (preset / ".git" / "HEAD").write_text("ref")
    (preset / "task.weights.json").write_text("{}")
    (preset / "tokenizer.json").write_text("{}")  # would be read on load
    preset.chmod(0o750)
    monkeypatch.chdir(preset)
    make_model().backbone.save_to_preset(".")
    assert Path.cwd().samefile(preset) and preset.stat().st_mode & 0o777 == 0o750
    assert (preset / ".git" / "HEAD").read_text() == "ref"
    assert not (preset / "tokenizer.json").exists() and not (preset / "task.json").exists()
    assert (preset / "task.weights.json").exists() and presets.verify(preset)
    assert [p.name for p in preset.parent.iterdir()] == [preset.name]


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "set aside"])
def test_writers_and_readers_at_the_same_time(versions, exchange, monkeypatch):
    if not exchange:
        monkeypatch.setattr(atomic_directory, "_exchanged", lambda scratch, destination: False)
    preset = versions / "root" / "preset"
    replace(versions / "old", preset)

    def write(i):
        for version in ("new", "old", "new"):
            replace(versions / version, preset)

    def read(i):
        return [presets.verify(presets.resolve(preset))["name"] for _ in range(10) if exchange]

    with ThreadPoolExecutor(6) as pool:
        writers = [pool.submit(write, i) for i in range(3)]
        readers = [pool.submit(read, i) for i in range(3)]
        for job in writers + readers:
            job.result()
    assert presets.verify(preset) and os.listdir(preset.parent) == ["preset"]


def test_a_living_writer_is_not_swept_away(tmp_path):
    with writing_file(tmp_path / "file") as first:
        first.write_text("first")
        with writing_file(tmp_path / "file") as second:
            second.write_text("second")
        assert (tmp_path / "file").read_text() == "second"
    assert (tmp_path / "file").read_text() == "first" and os.listdir(tmp_path) == ["file"]


def test_a_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o640)
    with writing_file(path) as file:
        file.write_text("new")
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o640


def test_what_was_saved_is_on_the_disk(tmp_path, monkeypatch):
    synced, fsync = set(), os.fsync

    def recording(handle):
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", recording)
    model = make_model()
    for name, save in (
        ("preset", model.save_to_preset),
        ("a.keras", model.save),
        ("a.weights.h5", model.save_weights),
    ):
        path = tmp_path / name
        for _ in range(2):  # the second replaces the first
            synced.clear()
            save(path)
            saved = [path, path.parent, *(path.iterdir() if path.is_dir() else ())]
            assert {entry.stat().st_ino for entry in saved} <= synced


def test_a_preset_that_came_and_went_while_it_was_read_is_read_again(
    versions, tmp_path, monkeypatch
):
    place = tmp_path / "place"
    replace(versions / "old", place)
    read, check = [], sample_check.check

    def interfered(*arguments):
        read.append(None)
        if len(read) == 1:
            replace(versions / "new", place)
            replace(versions / "old", place)
            raise ValueError("half of another preset. Received: other outputs")
        return check(*arguments)

    monkeypatch.setattr(sample_check, "check", interfered)
    SSMClassifier.from_preset(place)
    assert len(read) == 2


def test_weights_that_are_not_finite_leave_the_old_preset(tmp_path):
    model = make_model()
    model.save_to_preset(tmp_path / "mine")
    before = (tmp_path / "mine" / "preset.json").read_bytes()
    weight = model.backbone.weights[-1]
    weight.assign(weight * float("nan"))
    for part in (model, model.backbone):
        with pytest.raises(ValueError, match=rf"must be finite.*{weight.path}"):
            part.save_to_preset(tmp_path / "mine")
    assert (tmp_path / "mine" / "preset.json").read_bytes() == before
    SSMClassifier.from_preset(tmp_path / "mine")


def test_a_model_goes_into_a_file_that_loads(tmp_path):
    for name in ("model.h5", "model.hdf5", "model"):
        with pytest.raises(ValueError, match=rf"must end in '.keras'.*Received: .*{name}'"):
            make_model().save(tmp_path / name)
    assert not os.listdir(tmp_path)
