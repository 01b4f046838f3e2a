"""Published language models from a Hub: one commit, what is needed of it, sizes and checksums."""

import pytest

from keras_ssm import presets
from keras_ssm.convert import convert_checkpoint
from keras_ssm.models import SSMBackbone, SSMCausalLM
from tests import hyena_files
from tests.backend_tools import relative_error, to_numpy
from tests.hub_client import offline
from tests.hub_repository import digest
from tests.published_models import CODESTRAL, copied, in_shards, logits, make_model, written

pytestmark = pytest.mark.once("torch")

HANDLE = "hf://me/mamba"
MAMBA = [format for format in presets.PUBLISHED_FORMATS if format.startswith("mamba")]
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def model():
    return make_model("mamba2", hidden_dim=32, **CODESTRAL)


@pytest.fixture(scope="module")
def directories(model, tmp_path_factory):
    """Directories of the model by their formats."""
    root = tmp_path_factory.mktemp("published")
    found = {to: written(model, root / to, to) for to in MAMBA}
    return {**found, "shards": in_shards(copied(found["mamba-hf"], root / "shards"))}


def files_of(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def downloaded(server):
    """Names of the files asked for, but for that which says whether it is a preset of ours."""
    requested = {path.split("/", 5)[-1] for _, path in server.requests if "/resolve/" in path}
    return requested - {"preset.json"}


@pytest.fixture
def small(hub, directories):
    """The repository `me/mamba` in the format of transformers, its weights in large storage."""
    hub.lfs = (".safetensors", ".bin")
    files = files_of(directories["mamba-hf"])
    others = {"README.md": b"me", "pytorch_model.bin": b"0" * 1000, "training_args.bin": b"0"}
    return hub.add("me/mamba", {**files, **others, "tokenizer_config.json": b"{}"})


NEEDED = {"config.json", "generation_config.json", WEIGHTS, "tokenizer_config.json"}


@pytest.mark.parametrize("kind", [*MAMBA, "shards"])
def test_every_format_by_name(kind, hub, directories, model):
    files = files_of(directories[kind])
    hub.add("me/mamba", {**files, "consolidated.bin": b"0", "optimizer.pt": b"0"})
    found = SSMCausalLM.from_preset(HANDLE)
    assert relative_error(logits(found), logits(model)) < 1e-6
    assert downloaded(hub) == set(files) - {"tokenizer.model.v3"}
    commits = {path.split("/")[4] for _, path in hub.requests if "/resolve/" in path}
    assert len(commits - {"main"}) == 1


@pytest.mark.parametrize("write", [hyena_files.write_hf, hyena_files.write_original])
def test_models_of_dna_by_name(write, hub, tmp_path):
    tensors = hyena_files.make_tensors()
    files = files_of(write(tmp_path / "it", tensors))
    code = {"modeling_hyena.py": b"raise SystemExit", "tokenization_hyena.py": b"1 / 0"}
    hub.add("me/mamba", {**files, **code})
    found = SSMCausalLM.from_preset(HANDLE)
    expected = hyena_files.published_logits(tensors)
    assert relative_error(to_numpy(found(hyena_files.IDS)), expected) < 2e-5
    assert downloaded(hub) == set(files)


def test_only_what_is_needed_comes(hub, small, tmp_path):
    SSMBackbone.from_preset(HANDLE, load_weights=False)
    assert downloaded(hub) == NEEDED - {WEIGHTS}
    SSMBackbone.from_preset(HANDLE)
    assert downloaded(hub) == NEEDED
    report, _ = convert_checkpoint(HANDLE, tmp_path / "preset")
    origin = presets.read(tmp_path / "preset")["converted_from"]
    assert origin["directory"] == HANDLE and report.format == "mamba-hf"


def test_a_revision(hub, small, directories, model):
    first = small.find("main")
    small.commit({"config.json": b'{"model_type": "jamba"}', WEIGHTS: b"0"})
    with pytest.raises(ValueError, match="Received: model_type='jamba'"):
        SSMCausalLM.from_preset(HANDLE)
    found = SSMCausalLM.from_preset(HANDLE, revision=first)
    assert relative_error(logits(found), logits(model)) < 1e-6
    with pytest.raises(ValueError, match=r"no such branch, tag or commit.*Received"):
        SSMCausalLM.from_preset(HANDLE, revision="v3")


def test_offline_and_while_the_hub_is_down(hub, small, monkeypatch):
    with offline(monkeypatch), pytest.raises(ValueError, match=r"cannot be reached.*Received"):
        presets.find(HANDLE)
    presets.find(HANDLE, weights=False)
    with offline(monkeypatch), pytest.raises(ValueError, match=r"cannot be reached.*Received"):
        presets.find(HANDLE)
    directory = presets.find(HANDLE).directory
    hub.requests.clear()
    with offline(monkeypatch):
        SSMCausalLM.from_preset(HANDLE)
    assert not hub.requests
    hub.stop()
    assert presets.find(HANDLE).directory == directory


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_damaged_cache_is_repaired_once(name, hub, small, monkeypatch):
    path = presets.find(HANDLE).directory / name
    good = path.read_bytes()
    for bad in (good[:-1] + bytes([good[-1] ^ 1]), good[:-5]):
        path.resolve().write_bytes(bad)
        with offline(monkeypatch), pytest.raises(ValueError, match=rf"{name}.*damaged.*Received"):
            presets.find(HANDLE)
        assert presets.find(HANDLE).directory / name == path and path.read_bytes() == good


@pytest.mark.parametrize("fault", ["changed", "cut", 500])
@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_bad_download_is_refused_and_not_kept(name, fault, hub, small):
    place = f"/storage/{digest(small.files()[name])}" if name == WEIGHTS else name
    hub.break_(place, fault)
    with pytest.raises(ValueError, match="Received"):
        SSMCausalLM.from_preset(HANDLE)
    hub.faults.clear()
    assert (presets.find(HANDLE).directory / name).read_bytes() == small.files()[name]


def test_repositories_that_are_incomplete(hub, directories):
    files = files_of(directories["shards"])
    hub.add("me/mamba", {k: v for k, v in files.items() if "00002" not in k})
    with pytest.raises(ValueError, match=r"incomplete.*no file 'model-00002"):
        SSMCausalLM.from_preset(HANDLE)
    hub.add("me/mamba", {"config.json": files["config.json"], "model.gguf": b"0"})
    with pytest.raises(ValueError, match=r"must hold its weights as well.*model.gguf"):
        SSMCausalLM.from_preset(HANDLE)
