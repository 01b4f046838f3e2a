"""The command line: quick without a backend, and true to the presets."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from keras_ssm import cli, presets


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["info", "s4d_digits"], ["--version"]])
def test_answers_without_a_backend(arguments):
    code = (
        "import sys; sys.argv = ['keras-ssm', *sys.argv[1:]]\n"
        "from keras_ssm.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "assert not {'keras', 'keras_hub', 'tensorflow', 'jax', 'torch'} & set(sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout


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
        for name in presets.list_presets()
        if name.endswith("_digits")
    ],
)
def test_demo(name, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    result = CliRunner().invoke(cli.main, ["demo", "--preset", name, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "predictions equal" in result.output
    kernels = [] if name.startswith("s5") else ["kernels.png"]
    for picture in ("streaming.png", "eigenvalues.png", *kernels):
        assert (tmp_path / picture).stat().st_size > 10_000
    assert json.loads((tmp_path / f"{name}_tuned" / "preset.json").read_text())["files"]
