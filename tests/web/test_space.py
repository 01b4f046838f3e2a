"""The page as a Space: its files, and publishing through the Hub's real client."""

import sys
import tomllib

import pytest
import yaml
from click.testing import CliRunner

from keras_ssm import cli, presets, web
from keras_ssm.web import space
from tests.hub_client import use_token
from tests.small_preset import ROOT

pytestmark = pytest.mark.once("torch")

REPO = "me/page"
STORED = f"spaces/{REPO}"  # as the loopback Hub keeps it


@pytest.fixture(autouse=True)
def one_preset(monkeypatch):
    """One preset and few of the package's files, for tests that are about the Hub."""
    monkeypatch.setattr(
        space, "choices", lambda: {"Draw": web.choice.Choice(("s4d_digits",), "none")}
    )


@pytest.fixture
def few(monkeypatch):
    sources = space._sources

    def some(without):
        return [path for path in sources(without) if path.parent.name in ("web", "presets")]

    monkeypatch.setattr(space, "_sources", some)


def test_a_space_has_the_package_and_its_preset(tmp_path):
    """Beside `app.py`, which imports it from there: `tools/try_page.py --directory` runs it."""
    files = web.write_space(tmp_path / "space", backend="torch")
    assert {"README.md", "app.py", "requirements.txt", "keras_ssm/__init__.py"} <= set(files)
    assert "keras_ssm/presets/zoo/s4d_digits/preset.json" in files
    assert "keras_ssm/datasets/ecg_106.LICENCE.txt" in files
    assert not any("__pycache__" in name or "s5_digits" in name for name in files)
    presets.verify(tmp_path / "space" / "keras_ssm" / "presets" / "zoo" / "s4d_digits")
    for name in files:
        if name.endswith(".py") and name != "app.py":
            assert (tmp_path / "space" / name).read_bytes() == (ROOT / name).read_bytes()
    with pytest.raises(ValueError, match="must be new or empty"):
        web.write_space(tmp_path / "space")


def test_front_matter_and_requirements(few, tmp_path):
    web.write_space(tmp_path, backend="jax")
    readme = (tmp_path / "README.md").read_text()
    front = yaml.safe_load(readme.split("---\n")[1])
    assert front["sdk"] == "gradio" and front["sdk_version"] == space.GRADIO
    assert front["app_file"] == "app.py" and front["license"] == "apache-2.0"
    assert len(front["short_description"]) <= 60 and "models" not in front  # of none published
    assert "`s4d_digits`" in readme and "CC BY 4.0" in readme
    lines = (tmp_path / "requirements.txt").read_text().splitlines()
    assert any(line.startswith("jax==") for line in lines)
    assert not any(line.startswith(("gradio", "torch", "--extra")) for line in lines)
    assert '"KERAS_BACKEND", "jax"' in (tmp_path / "app.py").read_text()
    web.write_space(tmp_path / "torch", backend="torch")
    assert "/whl/cpu" in (tmp_path / "torch" / "requirements.txt").read_text()


def test_what_is_needed_is_what_the_package_declares():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["web"]
    names = {line.partition(">")[0] for line in declared}
    assert {*space.NEEDS, "gradio"} == names
    assert f"gradio=={space.GRADIO}\n" in (ROOT / "constraints.txt").read_text()


def test_something_that_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(space, "NEEDS", ("no-such-thing",))
    with pytest.raises(ValueError, match=r"keras-ssm\[torch,web\]'. Received: no no-such-thing"):
        web.write_space(tmp_path / "space", backend="torch")


def test_published_twice_and_changed(hub, few, monkeypatch):
    done = web.publish_space(REPO, backend="torch")
    repository = hub.repositories[STORED]
    assert len(repository.commits) == 2 and done.commit == repository.find("main")
    assert repository.files()["app.py"] == (ROOT / "keras_ssm/web/app.py").read_bytes()
    again = web.publish_space(REPO, backend="torch")
    assert again.commit == done.commit and not again.uploaded and not again.deleted
    assert "holds this page already" in again.describe()[0]
    files = {**repository.files(), "keras_ssm/web/old.py": b"1", "mine.txt": b"2"}
    repository.commit(files)
    last = web.publish_space(REPO, backend="torch")
    assert last.deleted == ("keras_ssm/web/old.py",) and not last.uploaded
    assert "mine.txt" in repository.files()


def test_dry_run_asks_nobody(hub, few, monkeypatch):
    use_token(monkeypatch, None)
    result = CliRunner().invoke(cli.main, ["publish", "--space", REPO, "--dry-run"])
    assert result.exit_code == 0, result.output
    assert f"would publish to the Space {REPO} (main)" in result.output
    assert "+ app.py" in result.output and "files of the package" in result.output
    assert not hub.requests and not hub.repositories


def test_a_space_of_others_and_no_token(hub, few, monkeypatch):
    hub.add(STORED, {"app.py": b"import gradio\n"})
    with pytest.raises(ValueError, match=r"holds another application; `overwrite`"):
        web.publish_space(REPO)
    hub.add("spaces/me/static", {"README.md": b"---\nsdk: static\n---\n", "index.html": b"<p>"})
    with pytest.raises(ValueError, match=r"holds another application.*index.html"):
        web.publish_space("me/static")
    assert web.publish_space(REPO, overwrite=True).commit
    with pytest.raises(ValueError, match="exists and is public"):
        web.publish_space(REPO, private=True)
    with pytest.raises(ValueError, match="`repo_id` must be"):
        web.publish_space("page")
    use_token(monkeypatch, None)
    result = CliRunner().invoke(cli.main, ["publish", "--space", "me/other"])
    assert result.exit_code == 1 and "was not published" in result.output


def test_what_comes_back_is_compared(hub, few):
    hub.break_("resolve/" + "requirements.txt", "changed")
    hub.break_("/requirements.txt", "changed")
    with pytest.raises(ValueError, match=r"must equal what was published. Received: 1 files"):
        web.publish_space(REPO)


def test_options_that_do_not_go_together():
    for arguments in (["--all"], ["s4d_digits", "me/a"], ["--show-card"]):
        result = CliRunner().invoke(cli.main, ["publish", "--space", REPO, *arguments])
        assert result.exit_code == 2 and "publishes the page" in result.output
    for arguments in (["--web", "--preset", "s4d_digits"], ["--port", "8000"]):
        assert CliRunner().invoke(cli.main, ["demo", *arguments]).exit_code == 2


def test_the_page_without_gradio_is_a_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = CliRunner().invoke(cli.main, ["demo", "--web"])
    assert result.exit_code == 1 and len(result.output.splitlines()) == 1
    assert "pip install 'keras-ssm[web]'" in result.output
    with pytest.raises(ImportError, match=r"keras-ssm\[web\]"):
        web.page()
