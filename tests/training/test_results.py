"""What results say of where they come from, and tables that many runs share."""

import csv
import shutil
import subprocess

import pytest

from keras_ssm.training import append_rows, train
from keras_ssm.training.results import commit
from tests.training.toy import Toy

pytestmark = [pytest.mark.once("torch"), pytest.mark.usefixtures("undrawn")]

RESULTS = {
    "recipe": "toy",
    "system": "s4d",
    "seed": 0,
    "command": "keras-ssm train toy",
    "scores": {"test": {"loss": 0.5}},
    "wall_seconds": 1.0,
    "processor_seconds": 1.0,
}


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_results_say_by_what_they_were_made(tmp_path, data):
    found = train(Toy(), "plain", data, tmp_path / "run", command="keras-ssm train toy")
    assert found["versions"]["keras"] and found["versions"]["python"]
    assert found["backend"] == "torch" and found["machine"] and found["parameters"] > 0
    assert found["processor_seconds"] >= 0 and found["command"] and "commit" in found


def test_the_commit_is_that_of_the_package_alone(tmp_path):
    git = shutil.which("git")
    inner = tmp_path / "env" / "site-packages"
    inner.mkdir(parents=True)
    if git is None:
        assert commit(tmp_path) is None
        return

    def run(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        process = subprocess.run([git, "-C", tmp_path, *identity, *words], capture_output=True)
        return process.stdout.decode().strip()

    run("init")
    (tmp_path / "file").write_text("one")
    run("add", "file")
    run("commit", "-m", "one")
    head = run("rev-parse", "HEAD")
    assert len(head) == 40 and commit(tmp_path) == head
    assert commit(inner) is None  # installed within a checkout of something else
    (tmp_path / "file").write_text("two")
    assert commit(tmp_path) == f"{head} with changes"


def test_a_table_keeps_other_runs_and_columns_of_its_own(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("preset,seed,metric,value,command,remark\ns4d_toy,0,loss,9,older,kept\n")
    for seed, value in ((0, 0.5), (1, 0.25), (0, 0.75)):
        scores = {"test": {"loss": value}}
        append_rows(path, {**RESULTS, "seed": seed, "scores": scores})
    other = {**RESULTS, "command": "keras-ssm train toy hidden_dim=2"}
    append_rows(path, other)
    rows = read(path)
    assert [(row["seed"], row["value"]) for row in rows] == [
        ("0", "9"),
        ("1", "0.25"),
        ("0", "0.75"),  # in place of the first
        ("0", "0.5"),  # of other settings
    ]
    for order, value in (("a=1 b=2", 1.0), ("b=2 a=1", 2.0)):  # the same run, said otherwise
        command = f"keras-ssm train toy {order}"
        append_rows(path, {**RESULTS, "command": command, "scores": {"test": {"loss": value}}})
    assert [row["value"] for row in read(path)][4:] == ["2.0"]
    assert rows[0]["remark"] == "kept" and rows[0]["machine"] == ""
