"""A training that is killed where it replaces a file; a process of its own.

Arguments: a system of `tools/kill_training.py`, and the directory of the run. It is killed when the
second backup is to be put into the place of the first.
"""

import os
import runpy
import signal
import sys
from pathlib import Path

TOOL = runpy.run_path(str(Path(__file__).parents[1] / "tools" / "kill_training.py"))


def main(system, out):
    replace, count = os.replace, 0

    def dying(source, destination, **kwargs):
        nonlocal count
        count += Path(destination) == Path(out, "backup", "latest.weights.h5")
        if count == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(source, destination, **kwargs)

    os.replace = dying
    TOOL["train"](system, out, epochs=3)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
