"""docs/publishing.md runs as it stands, against a loopback Hub."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from keras_ssm import cli

pytestmark = pytest.mark.once("torch")

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"```(\w+)[^\n]*\n(.*?)```", re.DOTALL)
# Commits and rounding errors, which differ from run to run.
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
    assert commands == 7 and compared == 3
    assert here.repositories["me/my_digits"].private
