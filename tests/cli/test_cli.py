"""The command line: quick without a backend, true to the presets, and clear where it fails."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

import keras_ssm
from keras_ssm import cli, presets
from keras_ssm.cli import command_group
from tests.small_preset import ROOT

pytestmark = pytest.mark.once("torch")

AS_MODULE = ["-m", "keras_ssm"]
# The script `keras-ssm` as pip writes it.
MODULE, _, FUNCTION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]["scripts"]["keras-ssm"].partition(":")
AS_SCRIPT = ["-c", f"from {MODULE} import {FUNCTION}; {FUNCTION}()"]


def run(*arguments, stdout=subprocess.PIPE, python=AS_MODULE, **environment):
    return subprocess.run(
        [sys.executable, *python, *arguments],
        env={**os.environ, **environment},
        cwd=ROOT,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("python", "arguments"),
    [
        (AS_SCRIPT, ["--help"]),
        (AS_SCRIPT, ["list"]),
        (AS_MODULE, ["info", "s4d_digits"]),
        (AS_MODULE, ["--version"]),
    ],
)
def test_answers_without_a_backend(python, arguments):
    result = run(*arguments, python=["-X", "importtime", *python])
    assert result.returncode == 0, result.stderr
    assert "keras-ssm" in result.stdout or "s4d_digits" in result.stdout
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "keras_ssm.cli.commands" in imported
    assert not {"keras", "keras_hub", "tensorflow", "jax", "torch"} & imported


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["info", "nothing"],  # refused: 1
        ["publish", "s4d_digits"],  # misused: 2
        [],
    ],
    ids="-".join,
)
def test_the_module_is_the_command(arguments):
    """Output, error and exit code are the same to the letter."""
    module, command = (run(*arguments, python=python) for python in (AS_MODULE, AS_SCRIPT))
    assert (module.stdout, module.stderr) == (command.stdout, command.stderr)
    assert module.returncode == command.returncode
    assert "Traceback" not in module.stderr and "keras_ssm" not in module.stdout.split("\n")[0]


def test_names_of_the_package():
    code = (
        "import keras_ssm_command, keras_ssm, sys\n"
        "assert 'models' in dir(keras_ssm) and 'keras' not in sys.modules\n"
        "assert keras_ssm.list_presets and keras_ssm.initializers.diagonal\n"
        "assert not hasattr(keras_ssm, 'nothing')\n"
    )
    result = run(python=["-c", code])
    assert result.returncode == 0, result.stderr
    assert set(keras_ssm.__all__) <= set(dir(keras_ssm))


def one_line(result):
    """Asserts a refusal in one line; returns it."""
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


@pytest.mark.parametrize(
    ("backend", "arguments"),
    [
        ("nope", ["demo"]),
        ("nope", ["convert", "a.pth", "out"]),
        ("nope", ["publish", "s4d_digits", "me/digits", "--show-card"]),
        ("openvino", ["demo"]),  # known to Keras, and not installed
    ],
)
def test_an_unusable_backend_is_a_line(backend, arguments, tmp_path):
    result = run(*arguments, KERAS_BACKEND=backend, HOME=str(tmp_path))
    assert f"KERAS_BACKEND={backend}, " in one_line(result)


def test_a_backend_that_only_keras_has_is_a_line(monkeypatch):
    monkeypatch.setattr("keras.config.backend", lambda: "numpy")
    result = CliRunner().invoke(cli.main, ["convert", "a.pth", "out"])
    assert result.exit_code == 1 and len(result.output.splitlines()) == 1
    assert "jax, tensorflow or torch" in result.output


FULL = Path("/dev/full")


@pytest.mark.parametrize("arguments", [["list"], ["--help"]] if FULL.exists() else [])
def test_a_full_device_is_a_line(arguments):
    with FULL.open("w") as full:
        assert "No space left" in one_line(run(*arguments, stdout=full))


@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["list", "--markdown"]])
def test_a_closed_pipe_ends_the_command_without_a_word(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = run(*arguments, stdout=writer)
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.parametrize(
    ("library", "extra", "arguments"),
    [
        ("matplotlib", "demo", ["demo"]),
        ("sklearn", "demo", ["demo", "--preset", "s4d_digits"]),
        ("matplotlib", "demo", ["benchmark", "--quick", "--out", "."]),
        ("jax", "jax", ["benchmark", "--quick", "--backend", "jax"]),
        ("yaml", "convert", ["convert", "a.msgpack", "out", "--set", "prenorm=true"]),
        ("msgpack", "convert", ["convert", "a.msgpack", "out"]),
        ("safetensors", "convert", ["convert", "a.safetensors", "out"]),
    ],
)
def test_a_missing_library_is_a_line(library, extra, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.msgpack").write_bytes(b"\x81\xa1a\x01")
    Path("a.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}  ")
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    assert line.startswith("Error: ")
    assert f"pip install 'keras-ssm[{extra}]'" in line and library in line


def test_list_and_info():
    runner = CliRunner()
    listed = runner.invoke(cli.main, ["list"])
    shown = runner.invoke(cli.main, ["info", "s4d_digits"])
    assert listed.exit_code == shown.exit_code == 0
    document = presets.list_presets()["s4d_digits"]
    assert "s4d_digits" in listed.output
    assert f"{document['parameters']:,}" in shown.output
    assert "Apache-2.0" in shown.output and "hidden_dim" in shown.output


def test_unknown_preset_is_a_clear_error():
    for command in (["info", "nothing"], ["demo", "--preset", "nothing"]):
        result = CliRunner().invoke(cli.main, command)
        assert result.exit_code == 1
        assert "Received: preset='nothing'" in result.output


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "s5_digits" else pytest.mark.slow)
        for name, info in presets.list_presets().items()
        if info["recipe"]["recipe"] == "digits" and info["task"] == "SSMClassifier"
    ],
)
def test_demo(name, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    result = CliRunner().invoke(cli.main, ["demo", "--preset", name, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "predictions equal" in result.output
    for picture in ("streaming.png", "eigenvalues.png", "kernels.png"):
        assert (tmp_path / picture).stat().st_size > 10_000
    assert json.loads((tmp_path / f"{name}_tuned" / "preset.json").read_text())["files"]


def test_numbers_with_an_exponent_are_settings():
    texts = "2e-3", "1E5", "-2.e+1", "0.5", "3", "e5", "2e"
    values = [command_group.setting(f"name={text}") for text in texts]
    assert values == [("name", value) for value in (0.002, 1e5, -20.0, 0.5, 3, "e5", "2e")]
