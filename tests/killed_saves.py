"""Kills saves over a preset at every change of a directory; a process of its own, without Keras.

Argument: a directory with the presets `old` and `new`. It prints how many saves were killed where
directories are exchanged and where they are not, and raises if what is left is neither preset.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import keras_ssm_command  # noqa: F401  (first: then the package imports no backend)
from keras_ssm import atomic_directory, list_presets, presets

os.fsync = lambda handle: None  # a kill is no power failure
EVENTS = ("mkdir", "rename", "replace", "link", "unlink", "rmdir", "fsync")


def replace(source, target):
    with presets.writing(target) as scratch:
        shutil.copytree(source, scratch, dirs_exist_ok=True)


def was_killed(step, action):
    """Runs an action in a fork that is killed before its event `step`."""
    if child := os.fork():
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    count = 0

    def dying(event):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count > step:
                os.kill(os.getpid(), signal.SIGKILL)
            return event(*args, **kwargs)

        return call

    for name in EVENTS:
        setattr(os, name, dying(getattr(os, name)))
    action()
    os._exit(0)


def main(versions, exchange):
    if not exchange:  # as on systems that cannot exchange two directories
        atomic_directory._exchanged = lambda scratch, destination: False
    root = versions / "root"
    preset, found, step, killed = root / "preset", set(), 0, True
    os.environ["KERAS_SSM_PRESETS"] = str(root)
    while killed:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(versions / "old", preset)
        (preset / "README.md").write_text("a card")
        killed = was_killed(step, lambda: replace(versions / "new", preset))
        step += 1
        for name in (preset, "preset"):
            directory = presets.resolve(name)
            version = json.loads((directory / "metadata.json").read_text())["version"]
            assert presets.verify(directory)["name"] == version
            assert (directory / "README.md").read_text() == "a card"
        found.add(version)
        listed = [n for n, e in list_presets().items() if e["source"] != "package"]
        assert listed == ["preset"], listed
        replace(versions / "old", preset)  # cleans up
        assert os.listdir(root) == ["preset"], os.listdir(root)
    assert found == {"old", "new"}, found
    print(step)


if __name__ == "__main__":
    for exchange in (True, False):
        main(Path(sys.argv[1]), exchange)
