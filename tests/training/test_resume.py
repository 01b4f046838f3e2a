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


def interrupted(system, out, patch, last):
    """Runs until a file is to be put into its place for the time `last`."""
    replace, count = os.replace, 0

    def ending(*args, **kwargs):
        nonlocal count
        count += 1
        if count == last:
            raise KeyboardInterrupt
        return replace(*args, **kwargs)

    with patch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "replace", ending)
        TOOL["train"](system, out, EPOCHS)
    return count


@pytest.mark.everywhere
def test_interrupted_runs_go_on_bit_for_bit(tmp_path, peace, monkeypatch):
    # Of an epoch: its row, the best weights if they are, the backup.
    interrupted("best", tmp_path / "run", monkeypatch, last=6)
    TOOL["train"]("best", tmp_path / "run", EPOCHS)
    assert TOOL["differences"](peace("best"), tmp_path / "run") == []


def test_averages_of_weights_go_on_bit_for_bit(tmp_path, peace, monkeypatch):
    for last in (1, 5):  # the very first, before any backup, and a later one
        interrupted("averaged", tmp_path / "run", monkeypatch, last)
    TOOL["train"]("averaged", tmp_path / "run", EPOCHS)
    assert TOOL["differences"](peace("averaged"), tmp_path / "run") == []


def test_a_killed_process_leaves_what_the_next_goes_on_from(tmp_path, peace):
    out = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-m", "tests.killed_training", "best", out, "7"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -9, done.stderr
    assert list(out.rglob(".*.saving.*")) and not (out / "results.json").exists()
    TOOL["train"]("best", out, EPOCHS)
    assert TOOL["differences"](peace("best"), out) == []
