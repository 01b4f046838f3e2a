"""Publishing through the Hub's real client: checked, in one commit, and compared afterwards."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

import keras_ssm
from keras_ssm import cli, presets
from keras_ssm import hub as hub_package
from keras_ssm.layers import S4D
from keras_ssm.models import SSMBackbone, SSMCausalLM, SSMCausalLMPreprocessor, SSMClassifier
from keras_ssm.tokenizers import JSONTokenizer
from tests.backend_tools import relative_error
from tests.hub_client import use_token
from tests.small_preset import INFO, X, make_model
from tests.test_docs import BLOCK
from tests.tokenizer_tools import train

pytestmark = pytest.mark.once("torch")

publish = hub_package.publish
REPO, HANDLE = "me/small", "hf://me/small"


@pytest.fixture
def quick(monkeypatch):
    """Takes the recorded outputs for those of the model, where a test is about the repository."""

    def recorded(directory, dtype=None):
        return np.array(presets.read(directory)["sample"]["outputs"], "float32")

    monkeypatch.setattr(hub_package.preset_check, "run", recorded)


def commits(hub, repo=REPO):
    return len(hub.repositories[repo].commits)


def posts(hub):
    return [path for method, path in hub.requests if method in ("POST", "PUT")]


def test_other_predictions_after_the_download_are_an_error(hub, preset, quick, monkeypatch):
    """Of the files that come back, not of those that were sent."""
    outputs = hub_package.preset_check.run(preset)
    answers = iter([outputs, outputs + 1e-3 * np.abs(outputs).max()])
    monkeypatch.setattr(hub_package.preset_check, "run", lambda *arguments: next(answers))
    with pytest.raises(ValueError, match=r"must equal .*json equal, .* differ by 1\.0e-03"):
        publish(preset, REPO)


@pytest.mark.parametrize("lfs", [(), (".h5",)], ids=["regular", "lfs"])
def test_published_and_loaded(hub, preset, saved, lfs):
    hub.lfs = lfs
    publication = publish(preset, REPO)
    repository = hub.repositories[REPO]
    document = presets.read(preset)
    assert commits(hub) == 2  # the empty repository's, and one for everything
    assert set(publication.uploaded) == {*document["files"], "preset.json", "README.md"}
    assert (
        publication.commit == repository.find("main")
        and publication.card == "generated"
        and not publication.deleted
    )
    assert repository.files()["model.weights.h5"] == (preset / "model.weights.h5").read_bytes()
    assert any("/storage/" in path for path in posts(hub)) == bool(lfs)
    model = SSMClassifier.from_preset(HANDLE)
    assert relative_error(model.predict(X, verbose=0), saved[1]) < 1e-6
    assert not (preset / "README.md").exists()  # nothing is written into the directory


@pytest.mark.parametrize("lfs", [(), (".h5",)], ids=["regular", "lfs"])
def test_publishing_twice_changes_nothing(quick, hub, preset, lfs):
    hub.lfs = lfs
    first = publish(preset, REPO)
    hub.requests.clear()
    second = publish(preset, REPO)
    assert commits(hub) == 2 and second.commit == first.commit
    assert not second.uploaded and not second.deleted and not posts(hub)


def test_only_what_changed_goes_up(quick, hub, preset, monkeypatch):
    publish(preset, REPO)
    weights = hub.repositories[REPO].files()["model.weights.h5"]
    make_model().backbone.save_to_preset(preset, info={"name": "small"})
    publication = publish(preset, REPO)
    assert publication.deleted == ("preprocessor.json", "task.json", "task.weights.h5")
    assert "preset.json" in publication.uploaded and commits(hub) == 3
    files = hub.repositories[REPO].files()
    assert ".gitattributes" in files and len(files["model.weights.h5"]) == len(weights)
    assert SSMBackbone.from_preset(HANDLE).count_params()


def test_files_of_others_stay(quick, hub, preset):
    hub.add(REPO, {"train.py": b"1", "logs/x.json": b"{}", "training_args.json": b"{}"})
    assert publish(preset, REPO).deleted == ()
    files = hub.repositories[REPO].files()
    assert {"train.py", "logs/x.json", "training_args.json"} <= set(files)
    assert SSMClassifier.from_preset(HANDLE).count_params()


def test_another_model_is_not_replaced(quick, hub, preset):
    hub.add(REPO, {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"0"})
    other = {**presets.read(preset), "name": "other"}
    hub.add("me/other", {"preset.json": json.dumps(other).encode()})
    for repo in (REPO, "me/other"):
        with pytest.raises(ValueError, match=r"holds another model; `overwrite`.*Received"):
            publish(preset, repo)
        assert commits(hub, repo) == 1
        assert publish(preset, repo, overwrite=True).commit


def test_branches_and_tags(quick, hub, preset):
    main = publish(preset, REPO).commit
    repository = hub.repositories[REPO]
    repository.tags["v1"] = main
    (preset / "README.md").write_text("---\nlicense: mit\n---\nmine\n")
    publication = publish(preset, REPO, revision="next")
    assert (
        repository.branches == {"main": main, "next": publication.commit}
        and publication.commit != main
    )
    assert presets.resolve(HANDLE, "next").name == publication.commit
    for revision in ("v1", main):
        with pytest.raises(ValueError, match="`revision` must be a branch"):
            publish(preset, REPO, revision=revision)


def test_private_repositories(quick, hub, preset, monkeypatch):
    use_token(monkeypatch, None)
    publish(preset, REPO, private=True, token="hf_write")
    assert hub.repositories[REPO].private
    with pytest.raises(ValueError, match=r"private.*Received"):
        SSMClassifier.from_preset(HANDLE)
    hub.add("me/open", {})
    with pytest.raises(ValueError, match=r"is public.*Received: private=True"):
        publish(preset, "me/open", private=True, token="hf_write")
    assert commits(hub, "me/open") == 1


@pytest.mark.parametrize("exists", [False, True], ids=["new", "exists"])
@pytest.mark.parametrize("token", [None, "hf_wrong", "hf_read"])
def test_the_token_must_allow_it(quick, hub, preset, token, exists, monkeypatch):
    use_token(monkeypatch, token)
    if exists:
        hub.add(REPO, {})
    with pytest.raises(ValueError, match=r"not published.*[Tt]oken.*Received"):
        publish(preset, REPO)
    assert not exists or commits(hub) == 1


@pytest.mark.parametrize("repo", ["small", "a/b/c", "me/", "me/s m", "-/x..y", None, "hf://me/x"])
def test_names_of_repositories_are_checked_first(hub, preset, repo):
    with pytest.raises(ValueError, match=r"`repo_id` must be.*Received: repo_id="):
        publish(preset, repo)
    assert not hub.requests


@pytest.mark.parametrize(
    "place", ["/create", "/preupload/main", "/commit/main", "/batch", "/storage"]
)
def test_a_failed_upload_leaves_the_repository_as_it_was(quick, hub, preset, place):
    hub.lfs = (".h5",)
    if place == "/storage":
        place = f"/storage/{presets.sha256(preset / 'model.weights.h5')}"
    if place != "/create":
        hub.add(REPO, {".gitattributes": b""})
    hub.break_(place, 500)
    with pytest.raises(ValueError, match=r"was not published.*Received"):
        publish(preset, REPO)
    assert place == "/create" or commits(hub) == 1
    hub.faults.clear()
    assert publish(preset, REPO).uploaded


def test_a_hub_that_is_away(quick, hub, preset):
    hub.stop()
    with pytest.raises(ValueError, match=r"was not published.*cannot be reached.*Received"):
        publish(preset, REPO)


def test_a_race_is_lost_not_overwritten(quick, hub, preset, monkeypatch):
    publish(preset, REPO)
    repository = hub.repositories[REPO]
    (preset / "README.md").write_text("---\nlicense: mit\n---\nmine\n")
    read = hub_package.repository.Repository.read

    def meanwhile(self, name):
        content = read(self, name)
        repository.commit({**repository.files(), "theirs.txt": b"1"})
        return content

    monkeypatch.setattr(hub_package.repository.Repository, "read", meanwhile)
    with pytest.raises(ValueError, match=r"Somebody else changed the repository.*Received"):
        publish(preset, REPO)
    assert "theirs.txt" in repository.files()


@pytest.mark.parametrize("name", ["model.weights.h5", "preset.json"])
def test_what_comes_back_is_compared(hub, preset, name):
    publish(preset, REPO)
    content = hub.repositories[REPO].files()[name]
    hub.repositories.clear()
    hub.break_(name, "changed")
    with pytest.raises(ValueError, match="Received"):
        publish(preset, REPO)
    assert hub.repositories[REPO].files()[name] == content


def test_a_preset_must_compute_what_it_did(hub, preset):
    document = presets.read(preset)
    document["sample"]["outputs"][0][0] += 0.01
    presets.write(preset, document)
    with pytest.raises(ValueError, match=r"must compute its recorded outputs.*Received"):
        publish(preset, REPO)
    del document["sample"]
    presets.write(preset, document)
    with pytest.raises(ValueError, match=r"must hold recorded outputs.*Received"):
        publish(preset, REPO)
    (preset / "preset.json").unlink()
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=r"preset\.json"):
        publish(preset, REPO)
    with pytest.raises(ValueError, match="`preset_dir` must be a directory"):
        publish(HANDLE, REPO)
    assert not hub.requests


def test_other_dtypes_and_backbones(hub, tmp_path):
    quantized = make_model()
    quantized.quantize("int8")
    quantized.save_to_preset(tmp_path / "int8", info={"name": "int8"})
    half = keras_ssm.models.SSMBackbone(
        keras_ssm.layers.S5(state_dim=4, seed=0),
        num_layers=1,
        hidden_dim=4,
        vocabulary_size=5,
        dtype="mixed_bfloat16",
    )
    half.save_to_preset(tmp_path / "half")
    for name in ("int8", "half"):
        assert publish(tmp_path / name, f"me/{name}").error < 1e-6
    assert 'SSMBackbone.from_preset("hf://me/half")' in hub_package.card(
        tmp_path / "half", "me/half"
    )


# The card


def run_snippet(text):
    (code,) = BLOCK.findall(text)
    names = {}
    exec(code, names)
    return names


def test_card(hub, preset, capsys):
    publish(preset, REPO)
    text = hub.repositories[REPO].files()["README.md"].decode()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["library_name"] == "keras_ssm" and front["license"] == "apache-2.0"
    assert {"keras", "keras-hub", "state-space-model", "s4d"} <= set(front["tags"])
    (result,) = front["model-index"][0]["results"]
    assert result["dataset"]["name"] == "noise of two features"
    (metric,) = result["metrics"]
    assert (metric["type"], metric["value"]) == ("accuracy", 0.5)
    assert metric["name"] == "accuracy on 3 rows"
    for part in ("# small", "python train.py", "CC0-1.0", "## Limits", "2206.11893", "50.0 %"):
        assert part in text
    assert isinstance(run_snippet(text)["model"], SSMClassifier)
    assert "(1, 3)" in capsys.readouterr().out


def test_a_converted_checkpoint_says_where_it_is_from(tmp_path):
    source = Path(__file__).parents[1] / "golden" / "checkpoints" / "a_example_s4d_postnorm.pth"
    keras_ssm.convert.convert_checkpoint(source, tmp_path / "converted", prenorm=False)
    text = hub_package.card(tmp_path / "converted", "me/converted")
    assert f"file `{source.name}`" in text and f"sha256 `{presets.sha256(source)}`" in text


def test_a_card_says_nothing_that_was_not_recorded(tmp_path):
    make_model().save_to_preset(tmp_path / "bare")
    text = hub_package.card(tmp_path / "bare", "me/bare")
    front = yaml.safe_load(text.split("---\n")[1])
    assert not {"license", "model-index", "datasets", "metrics"} & set(front)
    assert "None was stated" in text and "was not recorded" in text


@pytest.mark.parametrize("name", sorted(keras_ssm.list_presets()))
def test_cards_of_the_package_are_generated(name):
    directory = presets.resolve(name)
    assert (directory / "README.md").read_text(encoding="utf-8") == hub_package.card(directory)


def test_cards_by_hand_are_kept(quick, hub, preset):
    mine = "---\nlicense: mit\n---\nmine\n"
    (preset / "README.md").write_text(mine)
    assert publish(preset, REPO).card == "yours"
    repository = hub.repositories[REPO]
    assert repository.files()["README.md"].decode() == mine
    assert (preset / "README.md").read_text() == mine
    # Edited on the site: kept, until asked otherwise.
    theirs = mine + "and theirs\n"
    repository.commit({**repository.files(), "README.md": theirs.encode()})
    assert publish(preset, REPO).card == "kept"
    (preset / "README.md").unlink()
    assert publish(preset, REPO).card == "kept"
    assert repository.files()["README.md"].decode() == theirs
    assert publish(preset, REPO, overwrite_card=True).card == "generated"
    assert repository.files()["README.md"].decode() == hub_package.card(preset, REPO)
    # A generated one is written anew, also where it lies in the directory, for its repository.
    (preset / "README.md").write_text(hub_package.card(preset, "someone/else"))
    assert publish(preset, REPO).uploaded == ()
    (preset / "README.md").write_text(hub_package.card(preset, REPO).replace("# small", "# Mine"))
    assert publish(preset, REPO).card == "yours"
    assert b"# Mine" in repository.files()["README.md"]


def test_a_card_with_bad_front_matter_is_refused_by_the_hub(quick, hub, preset):
    (preset / "README.md").write_text("no front matter")
    with pytest.raises(ValueError, match=r"not published.*Received"):
        publish(preset, REPO)
    assert commits(hub) == 1


# The command


def invoke(*arguments):
    return CliRunner().invoke(cli.main, ["publish", *map(str, arguments)])


def test_command(hub, preset):
    result = invoke(preset, REPO, "--dry-run")
    assert result.exit_code == 0 and "would publish" in result.output and not hub.requests
    result = invoke(preset, REPO, "--private", "--revision", "next", "--token", "hf_write")
    assert result.exit_code == 0, result.output
    assert hub.repositories[REPO].private and "next" in hub.repositories[REPO].branches
    assert "downloaded again and compared" in result.output and "+ README.md" in result.output
    repeated = invoke(preset, REPO, "--revision", "next")
    assert repeated.exit_code == 0 and "holds this preset already" in repeated.output
    shown = invoke(preset, REPO, "--show-card")
    assert shown.output == hub_package.card(preset, REPO)


def test_errors_of_the_command(quick, hub, preset):
    for arguments in ((), (preset,), ("--all", preset, REPO)):
        assert invoke(*arguments).exit_code == 2
    for arguments in ((preset, REPO, "--token", "hf_read"), ("nothing", REPO), (preset, "a b")):
        result = invoke(*arguments)
        assert result.exit_code == 1 and "Error:" in result.output and "Received" in result.output
        assert "not published: " in result.output and isinstance(result.exception, SystemExit)


def test_publish_all(quick, hub, tmp_path, monkeypatch, preset):
    monkeypatch.setattr(presets.registry, "zoo", lambda: tmp_path / "zoo")
    for name in ("one", "two"):
        shutil.copytree(preset, tmp_path / "zoo" / name)
    assert invoke("--all", "--organisation", "me").exit_code == 0
    assert set(hub.repositories) == {"me/one", "me/two"}
    (tmp_path / "zoo" / "one" / "task.weights.h5").unlink()
    result = invoke("--all")
    assert result.exit_code == 1 and "not published: keras-ssm/one" in result.output
    assert set(hub.repositories) == {"me/one", "me/two", "keras-ssm/two"}


def test_the_zoo_is_ready(hub):
    """Every preset of the package, as it would be published, loads by its handle."""
    name = "s5_digits"
    assert publish(name, f"{presets.ORGANISATION}/{name}").card == "generated"
    model = SSMClassifier.from_preset(keras_ssm.list_presets()[name]["handle"])
    sample = presets.read(presets.resolve(name))["sample"]
    found = model(np.array(sample["inputs"], "float32"))
    assert relative_error(np.array(sample["outputs"]), found) < 1e-4


def test_the_tokenizer_of_a_language_model_travels(hub, tmp_path):
    train(tmp_path / "tokenizer.json")
    tokenizer = JSONTokenizer(tmp_path / "tokenizer.json")
    backbone = SSMBackbone(
        S4D(state_dim=4), 1, hidden_dim=4, vocabulary_size=tokenizer.vocabulary_size()
    )
    model = SSMCausalLM(backbone, SSMCausalLMPreprocessor(tokenizer, sequence_length=8))
    model.save_to_preset(tmp_path / "preset", info={**INFO, "scores": []})
    publish(tmp_path / "preset", "me/text")
    assert "assets/tokenizer/tokenizer.json" in hub.repositories["me/text"].files()
    loaded = SSMCausalLM.from_preset("hf://me/text").preprocessor
    assert loaded.tokenizer("a  b") == tokenizer("a  b") and loaded.sequence_length == 8
    assert JSONTokenizer.from_preset("hf://me/text")("a  b") == tokenizer("a  b")
