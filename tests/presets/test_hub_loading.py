"""Presets from a Hub: one commit, every file verified, nothing else, or a clear error."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import huggingface_hub
import pytest
from huggingface_hub import constants

from keras_ssm import presets
from keras_ssm.models import SequencePreprocessor, SSMBackbone, SSMClassifier
from tests.backend_tools import relative_error
from tests.hub_client import environment, offline, use_token
from tests.hub_server import HubServer
from tests.small_preset import X, alter, run_python

pytestmark = pytest.mark.once("torch")

HANDLE = "hf://me/small"


def files_of(directory):
    paths = [path for path in Path(directory).rglob("*") if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


def downloaded(server, *methods):
    """Names of the files asked for, by any method or by one of `methods`."""
    return {
        path.split("/", 5)[-1]
        for method, path in server.requests
        if "/resolve/" in path and (not methods or method in methods)
    }


@pytest.fixture
def small(hub, saved):
    """The repository `me/small` with the small preset, and files that no preset needs."""
    extra = {"huge.bin": b"0" * 1000, "train.py": b"raise SystemExit('run')", "README.md": b"me"}
    return hub.add("me/small", {**files_of(saved[0]), **extra})


def test_loads_what_was_saved_and_nothing_else(hub, small, saved):
    model = SSMClassifier.from_preset(HANDLE)
    assert relative_error(model.predict(X, verbose=0), saved[1]) < 1e-6
    assert SSMBackbone.from_preset(HANDLE).count_params() == model.backbone.count_params()
    assert SequencePreprocessor.from_preset(HANDLE).scale == 0.5
    assert downloaded(hub) == set(files_of(saved[0]))
    commits = {path.split("/")[4] for _, path in hub.requests if "/resolve/" in path}
    assert commits == {"main", small.find("main")}  # the branch once, then its commit
    assert all("/main/preset.json" in p for _, p in hub.requests if "/resolve/main/" in p)


def test_a_file_of_the_snapshot_that_is_not_listed_is_refused(hub, small, saved):
    """Another program may have downloaded what a preset that is loaded would read."""
    hub.add("me/more", {**files_of(saved[0]), "tokenizer.json": b"{}"})
    assert presets.resolve("hf://me/more").is_dir()
    huggingface_hub.hf_hub_download("me/more", "tokenizer.json")
    with pytest.raises(ValueError, match=r"Received: unlisted files \['tokenizer.json'\]"):
        presets.resolve("hf://me/more")


@pytest.mark.parametrize("lfs", [(), (".h5",)], ids=["regular", "lfs"])
def test_storage(hub, small, saved, lfs):
    hub.lfs = lfs
    assert files_of(presets.resolve(HANDLE)) == files_of(saved[0])
    assert any("/storage/" in path for _, path in hub.requests) == bool(lfs)


def test_offline_after_one_load(hub, small, saved, monkeypatch):
    with offline(monkeypatch), pytest.raises(ValueError, match=r"cannot be reached.*Received"):
        presets.resolve(HANDLE)
    presets.resolve(HANDLE)
    hub.requests.clear()
    with offline(monkeypatch):
        model = SSMClassifier.from_preset(HANDLE)
    assert relative_error(model.predict(X, verbose=0), saved[1]) < 1e-6 and not hub.requests


def test_a_download_that_was_verified_serves_while_the_hub_is_down(hub, small, monkeypatch):
    first = presets.resolve(HANDLE)
    hub.break_("preset.json", 500)
    assert presets.resolve(HANDLE) == first
    hub.stop()
    assert presets.resolve(HANDLE) == first


def test_revisions(hub, small, saved):
    first = small.find("main")
    small.tags["v1"] = first
    files = files_of(saved[0])
    document = {**json.loads(files["preset.json"]), "name": "second"}
    second = small.commit({**files, "preset.json": json.dumps(document).encode()})
    small.branches["old/one"] = first
    for revision, commit in {
        None: second, "main": second, second: second, "v1": first, first: first, "old/one": first
    }.items():  # fmt: skip
        directory = presets.resolve(HANDLE, revision)
        assert directory.name == commit
        assert presets.read(directory)["name"] == ("second" if commit == second else "small")
    assert SSMClassifier.from_preset(HANDLE, revision="v1").count_params()
    with pytest.raises(ValueError, match=r"no such branch, tag or commit.*Received"):
        SSMClassifier.from_preset(HANDLE, revision="v3")
    for local in (saved[0], "s4d_digits"):
        with pytest.raises(ValueError, match="`revision` goes with a preset on the Hub"):
            SSMClassifier.from_preset(local, revision="main")


def test_private_repositories_need_a_token(hub, small, monkeypatch):
    small.private = True
    use_token(monkeypatch, None)
    with pytest.raises(ValueError, match=r"it is private and the token.*Received"):
        presets.resolve(HANDLE)
    use_token(monkeypatch, "hf_wrong")
    with pytest.raises(ValueError, match=r"[Tt]oken.*Received"):
        presets.resolve(HANDLE)
    use_token(monkeypatch, "hf_read")
    assert presets.resolve(HANDLE).is_dir()


NAMES = ["preset.json", "config.json", "task.json", "model.weights.h5", "task.weights.h5"]


# Without a preset.json it is a plain preset: below.
FAULTS = [(n, f) for n in NAMES for f in (500, "missing", "changed")]
FAULTS.remove(("preset.json", "missing"))


@pytest.mark.parametrize(("name", "fault"), FAULTS)
def test_a_bad_download_is_refused(hub, small, saved, name, fault):
    """Also where the file is of those that keras_hub itself takes for optional."""
    if fault == "missing":
        del small.files()[name]
    else:
        hub.break_(name, fault)
    for load in (SSMClassifier.from_preset, SSMBackbone.from_preset):
        with pytest.raises(ValueError, match="Received"):
            load(HANDLE)
    hub.faults.clear()
    if fault != "missing":  # and no bad file was kept
        assert files_of(presets.resolve(HANDLE)) == files_of(saved[0])


@pytest.mark.parametrize("lfs", [(), (".h5",)], ids=["regular", "lfs"])
def test_a_download_that_breaks_off_goes_on_where_it_was(hub, small, saved, lfs, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1)  # the client keeps whole chunks
    hub.lfs = lfs
    size = len(small.files()["model.weights.h5"])
    place = (
        f"/storage/{presets.sha256(saved[0] / 'model.weights.h5')}" if lfs else "model.weights.h5"
    )
    hub.break_(place, "cut", times=2)  # twice, only half of the requested bytes arrive
    assert files_of(presets.resolve(HANDLE)) == files_of(saved[0])
    assert hub.ranges == [size // 2, size // 2 + (size - size // 2) // 2]


def test_files_that_arrived_before_a_failure_are_not_fetched_again(hub, small, saved):
    others = set(files_of(saved[0])) - {"task.weights.h5"}

    def fail_last():
        """The client drops what it has not asked for when one file fails, so that one is last."""
        deadline = time.monotonic() + 60
        while not others <= downloaded(hub, "GET") and time.monotonic() < deadline:
            time.sleep(0.01)
        return 500

    hub.break_("task.weights.h5", fail_last)
    with pytest.raises(ValueError, match=r"could not be downloaded.*Received"):
        presets.resolve(HANDLE)
    hub.faults.clear()
    hub.requests.clear()
    presets.resolve(HANDLE)
    assert downloaded(hub, "GET") == {"task.weights.h5"}


def test_timeouts(hub, small, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.1)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    hub.break_("model.weights.h5", 0.3, times=1)
    assert presets.resolve(HANDLE)  # one slow answer is asked for again
    shutil.rmtree(constants.HF_HUB_CACHE)
    hub.stop()
    with pytest.raises(ValueError, match=r"cannot be reached.*Received"):
        presets.resolve(HANDLE)


@pytest.mark.parametrize("name", ["preset.json", "config.json", "task.weights.h5"])
def test_a_damaged_cache_is_repaired_once(hub, small, saved, name, monkeypatch):
    directory = presets.resolve(HANDLE)
    if name == "preset.json":
        (directory / name).resolve().write_text("{")
    else:
        alter((directory / name).resolve())
    with offline(monkeypatch), pytest.raises(ValueError, match=rf"{name}.*damaged.*Received"):
        presets.resolve(HANDLE)
    assert files_of(presets.resolve(HANDLE)) == files_of(saved[0])


def test_a_newer_format_is_refused_before_its_files_come(hub, small):
    document = json.loads(small.files()["preset.json"])
    document["format_version"] = presets.format_version() + 1
    small.files()["preset.json"] = json.dumps(document).encode()
    with pytest.raises(ValueError, match=r"newer keras_ssm.*Received"):
        SSMClassifier.from_preset(HANDLE)
    assert downloaded(hub) == {"preset.json"}


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "*", "a\\b", "./a"])
def test_names_outside_the_directory_are_refused(hub, small, name):
    document = json.loads(small.files()["preset.json"])
    document["files"][name] = "0" * 64
    small.files()["preset.json"] = json.dumps(document).encode()
    with pytest.raises(ValueError, match=r"below its directory.*Received"):
        presets.resolve(HANDLE)
    assert downloaded(hub) == {"preset.json"}


def test_twenty_parallel_loads_into_one_cache(hub, small, saved):
    with ThreadPoolExecutor(20) as pool:
        directories = list(pool.map(presets.resolve, [HANDLE] * 20))
    assert len(set(directories)) == 1 and files_of(directories[0]) == files_of(saved[0])


NO_KERAS = "import keras_ssm_command\nfrom keras_ssm import presets\n"


def test_parallel_processes(saved, tmp_path):
    server = HubServer({"me/small": saved[0]}, lfs=(".h5",))
    code = f"{NO_KERAS}print(presets.resolve({HANDLE!r}))"
    with ThreadPoolExecutor(3) as pool:
        jobs = [
            pool.submit(run_python, code, **environment(server, tmp_path / "cache"))
            for _ in range(3)
        ]
        results = [job.result() for job in jobs]
    server.stop()
    assert not any(result.returncode for result in results), results[0].stderr[-2000:]
    (directory,) = {result.stdout.strip() for result in results}
    assert files_of(directory) == files_of(saved[0])


def test_unknown_repositories(hub):
    for name in ("hf://me/nothing", "hf://not/a/name", "hf://", "hf://me/../x"):
        with pytest.raises(ValueError, match=r"could not be downloaded.*Received"):
            presets.resolve(name)


# Presets of keras_hub, without a preset.json


@pytest.fixture
def plain(small):
    for name in ("preset.json", "metadata.json"):
        del small.files()[name]
    return small


def test_a_plain_preset_loads_if_it_is_complete(hub, plain, saved, monkeypatch):
    with pytest.warns(UserWarning, match=r"no preset\.json"):
        model = SSMClassifier.from_preset(HANDLE)
    assert relative_error(model.predict(X, verbose=0), saved[1]) < 1e-6
    assert not downloaded(hub) & {"huge.bin", "train.py"}
    with offline(monkeypatch), pytest.warns(UserWarning, match=r"no preset\.json"):
        assert presets.resolve(HANDLE).is_dir()


PLAIN = ["config.json", "preprocessor.json", "model.weights.h5", "task.weights.h5", "task.json"]


@pytest.mark.filterwarnings("ignore:.*no preset.json")
@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("fault", [500, "missing", "short"])
def test_an_incomplete_plain_preset_is_refused(hub, plain, name, fault):
    files = plain.files()
    if fault == "missing":
        del files[name]
    elif fault == "short":
        files[name] = files[name][: len(files[name]) // 2]
    else:
        hub.break_(name, fault)
    with pytest.raises(ValueError, match="Received"):
        SSMClassifier.from_preset(HANDLE)


@pytest.mark.filterwarnings("ignore:.*no preset.json", "ignore:Skipping nested container")
@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("model.weights.h5", "layers/dense"),
        ("model.weights.h5", "layers/ssm_block"),
        ("model.weights.h5", "layers/ssm_block/mixer/vars/8"),
        ("task.weights.h5", "layers/dense"),
        ("task.weights.h5", "layers"),
    ],
)
def test_weights_that_lack_a_part_are_refused(preset, name, group):
    """Keras leaves what is missing as it was initialised, with a warning at most in some cases."""
    (preset / "preset.json").unlink()
    with h5py.File(preset / name, "r+") as file:
        del file[group]
    with pytest.raises(ValueError, match=r"Received|expected|could not"):
        SSMClassifier.from_preset(preset)


def test_another_librarys_repository_is_refused(hub):
    hub.add("me/bert", {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"0"})
    with pytest.raises(ValueError, match=r"no preset of Keras classes.*Received"):
        SSMClassifier.from_preset("hf://me/bert")
    assert "model.safetensors" not in downloaded(hub)


# Classes


def with_config(preset, change):
    """Changes config.json and task.json as a stranger would, checksums included."""
    for name in ("config.json", "task.json"):
        content = json.loads((preset / name).read_text())
        change(content if name == "config.json" else content["config"]["backbone"])
        (preset / name).write_text(json.dumps(content))
    document = presets.read(preset)
    presets.describe(preset, {k: v for k, v in document.items() if k != "files"})


FOREIGN = {
    "unknown": {"class_name": "S9", "registered_name": "keras_ssm>S9", "module": "keras_ssm"},
    "foreign": {"class_name": "Popen", "registered_name": None, "module": "subprocess"},
    "utility": {"class_name": "get_file", "registered_name": None, "module": "keras.utils"},
    "lambda": {"class_name": "__lambda__", "registered_name": None, "module": None},
    "layer": {"class_name": "Lambda", "registered_name": None, "module": "keras.layers"},
    "no name": {"class_name": ["S4D"], "registered_name": None, "module": "keras_ssm"},
    "program": {"class_name": "TFSMLayer", "registered_name": None, "module": "keras.layers"},
    "function": {
        "class_name": "function", "config": "system", "module": "os", "registered_name": "system"
    },
}  # fmt: skip


@pytest.mark.parametrize("entry", FOREIGN.values(), ids=FOREIGN)
def test_classes_that_are_not_known_are_refused(preset, entry):
    with_config(preset, lambda c: c["config"].update(mixer={"config": {}, **entry}))
    for load in (SSMClassifier.from_preset, SSMBackbone.from_preset):
        with pytest.raises(ValueError, match=r"config.json.*Received: ") as error:
            load(preset)
        assert str(entry.get("registered_name") or entry["class_name"]) in str(error.value)


def test_weights_of_another_shape_are_refused(preset):
    with_config(preset, lambda c: c["config"].update(hidden_dim=5))
    with pytest.raises(ValueError):
        SSMBackbone.from_preset(preset)
