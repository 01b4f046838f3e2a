"""What the documentation shows runs."""

import ast
import functools
import importlib
import inspect
import re
import shlex
import shutil
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

import keras_ssm
from keras_ssm import cli
from tests import own_files
from tests.backend_tools import BACKEND

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
BACKEND_SAID = re.compile(r"^# KERAS_BACKEND=(\w+)$", re.MULTILINE)
BACKEND_IMPORT = re.compile(r"^import (jax|tensorflow|torch)\b", re.MULTILINE)

# The command of test_benchmark.py calls it with nearly the same arguments each time.
SLOW_EXAMPLES = {"keras_ssm.benchmark.run:run-0"}


def documented():
    """Every class, function and method of the package with a Python block in its docstring.

    Each time on PyTorch, and those of a backend's own module on that one.
    """
    others = {"jax", "tensorflow", "torch"} - {BACKEND}
    package = Path(keras_ssm.__file__).parent
    for path in sorted(package.rglob("*.py")):
        names = path.relative_to(package).with_suffix("").parts
        if (others | {"triton", "__main__"}) & {*names}:
            continue  # another backend's library, kernels with tests of their own, the command
        names = [name for name in names if name != "__init__"]
        marks = [] if BACKEND in names else [pytest.mark.once("torch")]
        module = importlib.import_module(".".join(["keras_ssm", *names]))
        for thing in vars(module).values():
            if getattr(thing, "__module__", None) != module.__name__:
                continue
            members = [thing]
            if inspect.isclass(thing):
                members += [m for m in vars(thing).values() if hasattr(m, "__doc__")]
            for member in members:
                for number, code in enumerate(
                    BLOCK.findall(inspect.cleandoc(member.__doc__ or ""))
                ):
                    function = getattr(member, "__func__", member)
                    name = getattr(function, "__qualname__", thing.__name__)
                    example = f"{module.__name__}:{name}-{number}"
                    slow = [pytest.mark.slow] if example in SLOW_EXAMPLES else []
                    yield pytest.param(module, code, id=example, marks=marks + slow)


@pytest.fixture
def quiet(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.print", lambda *args, **kwargs: None)
    if BACKEND == "torch":
        import torch

        # Traced like that of a person, but no C++ compiler is needed, which may be missing, and
        # whose command PyTorch writes without quotes around a path with a space.
        traced = functools.partial(torch.compile, backend="eager")
        monkeypatch.setattr(torch, "compile", traced)


def a_model(of_language):
    """The `model` that a docstring speaks of."""
    if not of_language:
        return keras_ssm.models.SSMClassifier.from_preset("s4d_digits")
    mixer = keras_ssm.layers.Mamba2(state_dim=4, head_dim=4)
    backbone = keras_ssm.models.SSMBackbone(mixer, 1, hidden_dim=4, vocabulary_size=256)
    return keras_ssm.models.SSMCausalLM(backbone)


@pytest.mark.parametrize(("module", "code"), [*documented()])
def test_docstring_examples_run(module, code, quiet):
    names = {**vars(module), "np": np, "keras": keras, "keras_ssm": keras_ssm, "ops": keras.ops}
    if re.search(r"\bmodel\b", code):
        names["model"] = a_model(".language." in module.__name__)
    exec(textwrap.dedent(code), names)


PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")),
    *sorted(f"presets/{n}/README.md" for n in keras_ssm.list_presets()),
]
SLOW = {"docs/exporting.md"}  # files of a small model are written by test_exports.py each time
SLOW_CARDS = {
    "presets/mamba2_tinyshakespeare/README.md"
}  # test_own_files.py runs its code each time
ELSEWHERE = {"docs/publishing.md"}  # its blocks run against a Hub: test_publishing_page.py


# Cards of one recipe have the same code: of each the first one runs.
CARDS = {
    info["data"]["name"].split(",")[0]: f"presets/{name}/README.md"
    for name, info in sorted(keras_ssm.list_presets().items(), reverse=True)
}.values()


def blocks():
    """The Python blocks of each page, one after the other, as a person types them.

    Blocks for one backend, which import it or say `# KERAS_BACKEND=` first, run alone and there.
    """
    for path in PAGES:
        found = BLOCK.findall((ROOT / path).read_text(encoding="utf-8"))
        if path.startswith("presets/") and path not in CARDS:
            continue
        common = []
        for number, code in enumerate(found if path not in ELSEWHERE else ()):
            backends = {*BACKEND_IMPORT.findall(code), *BACKEND_SAID.findall(code)}
            if backends:
                marks = [pytest.mark.only(*backends)]
                marks += [pytest.mark.slow] if path in SLOW else []
                yield pytest.param([code], id=f"{path}-{number}", marks=marks)
            else:
                common.append(code)
        if common:
            marks = [pytest.mark.once("torch")]
            marks += [pytest.mark.slow] if path in SLOW_CARDS else []
            yield pytest.param(common, id=path, marks=marks)


@pytest.mark.parametrize("codes", [*blocks()])
def test_pages_run(codes, quiet, request):
    if "presets/" in request.node.callspec.id:
        own_files.write_all()
    names = {}
    for code in codes:
        exec(code, names)


LINK = re.compile(r"\]\(<?([^)>\s]+)>?\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
FENCE = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)


def anchors(path):
    """The names that a page's headings can be reached by."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    titles = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title) for title in HEADING.findall(text))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.once("torch")
@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    page = ROOT / page
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        target, _, anchor = link.partition("#")
        target = page if not target else page.parent / target
        assert target.exists(), f"{page}: {link}"
        assert not anchor or anchor in anchors(target), f"{page}: {link}"


@pytest.mark.once("torch")
def test_the_readme_lists_the_presets():
    table = keras_ssm.presets.markdown_tasks()
    assert table.strip() in (ROOT / "README.md").read_text(encoding="utf-8")


# The files that docs/converting.md names.
CHECKPOINTS = {
    "ckpt.pth": "checkpoints/a_example_s4d_postnorm.pth",
    "ckpt_s4.pth": "checkpoints/b_example_s4block_dplr.pth",
    "last.ckpt": "checkpoints/c_s4_lra_cifar_pl_omegaconf.ckpt",
    "recorded.npz": "models/c_s4_lra_cifar.npz",
    "v3.ckpt": "checkpoints/c_s4_lra_listops_v3layout.ckpt",
    "dss.ckpt": "checkpoints/d_dss_lra_listops.ckpt",
    "s5.msgpack": "checkpoints/s5_last_ln_post.msgpack",
    "s5_arguments.json": "checkpoints/s5_last_ln_post.msgpack.json",
}


@pytest.mark.once("torch")
def test_commands_of_converting_run(quiet):
    for name, recorded in CHECKPOINTS.items():
        shutil.copy(ROOT / "tests" / "golden" / recorded, name)
    text = (ROOT / "docs" / "converting.md").read_text(encoding="utf-8")
    lines = "".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).splitlines()
    assert len(lines) > 8
    for line in lines:
        result = CliRunner().invoke(cli.main, shlex.split(line)[1:])
        assert result.exit_code == 0, (line, result.output)


@pytest.mark.once("torch")
def test_public_names_have_docstrings():
    for package in (
        "convert",
        "hub",
        "initializers",
        "layers",
        "models",
        "ops",
        "optimizers",
        "presets",
        "signals",
        "tokenizers",
    ):
        module = getattr(keras_ssm, package, None) or importlib.import_module(
            f"keras_ssm.{package}"
        )
        for name in getattr(module, "__all__", []):
            thing = getattr(module, name)
            assert not callable(thing) or inspect.getdoc(thing), f"{package}.{name}"


@pytest.mark.once("torch")
def test_every_page_and_public_class_has_its_place_on_the_site():
    listed = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert {page for page in listed if not page.startswith("project/")} == {
        path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")
    }
    outside = {page.removeprefix("project/") for page in listed if page.startswith("project/")}
    assert all((ROOT / page).exists() or (ROOT / page[:-3]).exists() for page in outside)
    for module in (keras_ssm.layers, keras_ssm.models):
        folder = module.__name__.rpartition(".")[2]
        for name in module.__all__:
            page = ROOT / "docs" / "reference" / folder / f"{name}.md"
            assert f"::: {module.__name__}.{name}\n" in page.read_text()
    for name in set(keras_ssm.__all__) - {"__version__", "layers", "list_presets", "models"}:
        page = ROOT / "docs" / "reference" / f"{name}.md"
        assert f"::: keras_ssm.{name}\n" in page.read_text()


@pytest.mark.once("torch")
def test_reference_pages_name_what_their_modules_bind():
    """The site reads the source and runs none of it: names that a module makes late are none."""
    for page in (ROOT / "docs" / "reference").rglob("*.md"):
        for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE):
            module, _, member = name.rpartition(".")
            source = ROOT / name.replace(".", "/")
            if source.is_dir() or source.with_suffix(".py").is_file():
                continue
            source = ROOT / module.replace(".", "/")
            source = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
            bound = set()
            for node in ast.parse(source.read_text()).body:
                bound |= {getattr(node, "name", None)}
                bound |= {alias.asname or alias.name for alias in getattr(node, "names", ())}
                bound |= {target.id for target in getattr(node, "targets", ()) if target}
            assert member in bound, f"{page.name}: {name}"
