"""Runs that were interrupted, or killed, end with the numbers of one that was left in peace."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "kill_training.py"))
EPOCHS = 3

pytestmark = [pytest.mark.once("torch"), pytest.mark.usefixtures("undrawn")]


@pytest.fixture(scope="module")
def peace(tmp_path_factory):
    """The directories of runs that nobody disturbs, by their systems."""
    folder = tmp_path_factory.mktemp("peace")

    def run(system):
        TOOL["train"](system, folder / system, EPOCHS)
        return folder / system

    return run


def interrupted(system, out, patch, name, time):
    """Runs until a file of this name is put into its place for the time `time`."""
    replace, count = os.replace, 0

    def ending(source, destination, **kwargs):
        nonlocal count
        count += str(destination).endswith(f"run/{name}")
        if count == time:
            raise KeyboardInterrupt
        return replace(source, destination, **kwargs)

    with patch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "replace", ending)
        TOOL["train"](system, out, EPOCHS)


def test_interrupted_runs_go_on_bit_for_bit(tmp_path, peace, monkeypatch):
    out = tmp_path / "run"
    interrupted("best", out, monkeypatch, "backup/latest.weights.h5", time=2)
    assert len((out / "log.csv").read_text().splitlines()) == 3  # one more than is in the backup
    TOOL["train"]("best", out, EPOCHS)
    assert TOOL["differences"](peace("best"), out) == []


def test_averages_of_weights_go_on_bit_for_bit(tmp_path, peace, monkeypatch):
    out = tmp_path / "run"
    interrupted("averaged", out, monkeypatch, "run.json", time=1)  # the very first file
    interrupted("averaged", out, monkeypatch, "log.csv", time=2)
    TOOL["train"]("averaged", out, EPOCHS)
    assert TOOL["differences"](peace("averaged"), out) == []


def test_a_killed_process_leaves_what_the_next_goes_on_from(tmp_path, peace):
    out = tmp_path / "run"
    process = subprocess.run(
        [sys.executable, "-m", "tests.killed_training", "best", out],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert process.returncode == -9, process.stderr
    assert list(out.rglob(".*.saving.*")) and not (out / "results.json").exists()
    TOOL["train"]("best", out, EPOCHS)
    assert TOOL["differences"](peace("best"), out) == []
