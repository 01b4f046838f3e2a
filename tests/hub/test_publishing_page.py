"""docs/publishing.md and examples/publish.py run as they stand, against a loopback Hub."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from keras_ssm import cli
from keras_ssm.models import SSMClassifier

pytestmark = pytest.mark.once("torch")

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"```(\w+)[^\n]*\n(.*?)```", re.DOTALL)
# What differs from run to run: commits and rounding errors.
VARYING = re.compile(r"[0-9a-f]{40}|\d\.\de[+-]\d\d")


@pytest.fixture
def here(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return hub


def test_the_page(here):
    text = (ROOT / "docs" / "publishing.md").read_text(encoding="utf-8")
    shown, commands, compared = "", 0, 0
    for kind, body in BLOCK.findall(text):
        if kind == "python":
            exec(body, {})
        elif kind == "bash":
            for line in body.splitlines():
                result = CliRunner().invoke(cli.main, shlex.split(line)[1:])
                assert result.exit_code == 0, (line, result.output)
                shown, commands = result.stdout, commands + 1
        else:  # the output of the last command
            assert VARYING.sub("*", body) == VARYING.sub("*", shown)
            compared += 1
    assert commands == 5 and compared == 3
    assert here.repositories["me/my_digits"].private


@pytest.mark.parametrize("flags", [["--dry-run"], ["--private"]], ids=["dry", "private"])
def test_the_example(here, flags, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["publish.py", "me/sines", *flags])
    runpy.run_path(str(ROOT / "examples" / "publish.py"), run_name="__main__")
    printed = capsys.readouterr().out
    accuracy = float(re.match(r"([\d.]+)% of 512 waves", printed)[1])
    assert accuracy > 90
    if flags == ["--dry-run"]:
        assert "would publish" in printed and not here.requests
    else:
        assert "downloaded again and compared" in printed and here.repositories["me/sines"].private
        assert SSMClassifier.from_preset("hf://me/sines").num_classes == 2
