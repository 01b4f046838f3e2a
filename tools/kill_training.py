"""Kills a training at random moments, lets it go on, and compares it with one left in peace.

    KERAS_BACKEND=jax python tools/kill_training.py --kills 20

A small model with dropout, a schedule and rows of different lengths is trained in forks of this
process. Each is killed by SIGKILL at a random moment of its training, and the next goes on. The
epochs' losses and scores, the weights at the end and the seed generators must be those of a run
that was not killed, bit for bit. Half of the kills are those of a run that keeps the best weights
and stops early, the others those of a run whose optimizer averages the weights. Exit 1 if anything
differs.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from keras_ssm.optimizers import ssm_optimizer
from keras_ssm.training import (
    ClassificationRecipe,
    Part,
    Splits,
    cosine,
)
from keras_ssm.training import train as run_recipe

SYSTEMS = ("best", "averaged")


class Killed(ClassificationRecipe):
    """Which of two frequencies a noisy row of 6 to 12 steps has."""

    name = "killed"
    classes = ("slow", "fast")
    settings = {
        "epochs": 40,
        "batch_size": 8,
        "lengths": 2,
        "num_layers": 1,
        "hidden_dim": 4,
        "state_dim": 4,
        "dropout": 0.3,
        "norm": "batch",
        "learning_rate": 1e-2,
        "ssm_learning_rate": 1e-3,
        "weight_decay": 0.05,
        "select": "cross-entropy",
        "patience": 30,
    }
    systems = {"best": {}, "averaged": {"select": "last", "patience": 0}}

    def read(self, directory):
        return Splits(*(self.rows(np.random.default_rng(i), 40) for i in range(3)))

    def rows(self, rng, count):
        y = rng.integers(2, size=count)
        x = [np.sin(np.arange(rng.integers(6, 13)) * (1 + label)) for label in y]
        x = [(row + rng.normal(0, 0.5, row.shape)).astype("float32")[:, None] for row in x]
        return Part(x, y)

    def make_backbone(self, system, seed, settings):
        return super().make_backbone("s4d", seed, settings)

    def prepare(self, model, settings, steps):
        rate = cosine(settings["learning_rate"], steps)
        slow = cosine(settings["ssm_learning_rate"], steps)
        averages = settings["select"] == "last"
        model.compile(ssm_optimizer(rate, slow, use_ema=averages, ema_momentum=0.9))

    def facts(self, system, settings):
        return {"data": {"name": "sines"}}


def train(system, out, epochs=40):
    """A run that is not killed from here."""
    return run_recipe(Killed(), system, ".", out, seed=3, overrides={"epochs": epochs})


def child(system, out, stderr):
    """Returns the process that trains, which writes to a file what it says.

    It is a fork of this one, which has imported everything and computed nothing.
    """
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.dup2(stderr.fileno(), 2)
        train(system, out)
        code = 0
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def wait_for_epoch(process, out):
    """Waits until a child has written an epoch, or has ended; returns its status if so."""
    log, before = out / "log.csv", _written(out / "log.csv")
    while _written(log) == before:
        time.sleep(0.002)
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return status
    return None


def _written(path):
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def run(system, out, kills=0, moments=None, window=1.0):
    """Lets a training come to its end through so many kills.

    Returns:
        Tuple: the seconds of the last child after its first epoch, and what each kill left: the
        number of epochs in the learning curve and the names of hidden scratch directories.
    """
    struck = []
    while True:
        with tempfile.TemporaryFile("w+") as stderr:
            process = child(system, out, stderr)
            status = wait_for_epoch(process, out)
            started = time.monotonic()
            if status is None and len(struck) < kills:
                time.sleep(moments.uniform(0.0, window))
                os.kill(process, signal.SIGKILL)
            status = os.waitpid(process, 0)[1] if status is None else status
            if status == 0:
                return time.monotonic() - started, struck
            if not os.WIFSIGNALED(status):
                stderr.seek(0)
                raise SystemExit(f"a training failed:\n{stderr.read()}")
        hidden = [path.name for path in out.rglob(".*.saving.*")]
        struck.append((len((out / "log.csv").read_text().splitlines()) - 1, hidden))


def differences(one, other):
    """Names of what differs between two runs."""
    logs = [(run / "log.csv").read_text() for run in (one, other)]
    found = [] if logs[0] == logs[1] else ["log.csv"]
    results = [json.loads((run / "results.json").read_text()) for run in (one, other)]
    found += [key for key in ("scores", "steps") if results[0][key] != results[1][key]]
    for path in sorted(one.rglob("*.h5")):
        name = path.relative_to(one)
        mine, theirs = arrays(path), arrays(other / name)
        same = mine.keys() == theirs.keys() and all(
            np.array_equal(value, theirs[key]) for key, value in mine.items()
        )
        found += [] if same else [str(name)]
    return found


def arrays(path):
    """The arrays of an HDF5 file by their names."""
    found = {}

    def take(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(take)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    moments = random.Random(args.seed)
    failed = False
    for i, system in enumerate(SYSTEMS):
        kills = (args.kills + 1 - i) // 2
        with tempfile.TemporaryDirectory() as folder:
            peace, war = Path(folder) / "peace", Path(folder) / "war"
            seconds, _ = run(system, peace)
            # Each child does at least an epoch; half of a training is left to the last one.
            window = max(0.05, 0.6 * seconds / max(1, kills))
            _, struck = run(system, war, kills, moments, window)
            found = differences(peace, war)
            writing = sum(bool(hidden) for _, hidden in struck)
            epochs = [epoch for epoch, _ in struck]
            print(
                f"{system}: {len(struck)} kills, after epochs {epochs}, {writing} of them while a "
                f"file was written; {'differs: ' + ', '.join(found) if found else 'all equal'}",
                flush=True,
            )
            failed |= bool(found) or len(struck) < kills
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
