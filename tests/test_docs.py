"""What the documentation shows runs."""

import functools
import importlib
import inspect
import pkgutil
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
from tests.backend_tools import BACKEND

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
BACKEND_IMPORT = re.compile(r"^import (jax|tensorflow|torch)\b", re.MULTILINE)


def documented():
    """Every class, function and method of the package with a Python block in its docstring.

    Each time on PyTorch, and those of a backend's own module on that one.
    """
    for module in pkgutil.walk_packages(keras_ssm.__path__, "keras_ssm."):
        other = {"jax", "tensorflow", "torch"} - {BACKEND}
        name = module.name.rsplit(".")[-1]
        if name in other or name.startswith("triton_"):
            continue  # another backend's library, or kernels, which have tests of their own
        marks = [] if name == BACKEND else [pytest.mark.once("torch")]
        module = importlib.import_module(module.name)
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
                    yield pytest.param(module, code, id=example, marks=marks)


@pytest.fixture
def quiet(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.print", lambda *args, **kwargs: None)
    if BACKEND == "torch":
        import torch

        # Traced like that of a person, but no C++ compiler is needed, which may be missing, and
        # whose command PyTorch writes without quotes around a path with a space.
        traced = functools.partial(torch.compile, backend="aot_eager")
        monkeypatch.setattr(torch, "compile", traced)


@pytest.mark.parametrize(("module", "code"), [*documented()])
def test_docstring_examples_run(module, code, quiet):
    names = {**vars(module), "np": np, "keras": keras, "keras_ssm": keras_ssm, "ops": keras.ops}
    if re.search(r"\bmodel\b", code):
        names["model"] = keras_ssm.models.SSMClassifier.from_preset("s4d_digits")
    exec(textwrap.dedent(code), names)


PAGES = [
    "README.md",
    "docs/choosing.md",
    "docs/converting.md",
    "docs/streaming.md",
    *sorted(f"presets/{n}/README.md" for n in keras_ssm.list_presets()),
]


def blocks():
    """Every Python block of the pages: on the backends that it imports, else once."""
    for path in PAGES:
        for number, code in enumerate(BLOCK.findall((ROOT / path).read_text(encoding="utf-8"))):
            backends = BACKEND_IMPORT.findall(code)
            mark = pytest.mark.only(*backends) if backends else pytest.mark.once("torch")
            yield pytest.param(code, id=f"{path}-{number}", marks=mark)


@pytest.mark.parametrize("code", [*blocks()])
def test_pages_run(code, quiet):
    exec(code, {})


# What the files of docs/converting.md are.
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
    ):
        module = getattr(keras_ssm, package, None) or importlib.import_module(
            f"keras_ssm.{package}"
        )
        for name in getattr(module, "__all__", []):
            thing = getattr(module, name)
            assert not callable(thing) or inspect.getdoc(thing), f"{package}.{name}"
