"""A training that is killed where it replaces a file; a process of its own.

Arguments: a system of `tools/kill_training.py`, the directory of the run, and at which of its
replacements it is killed.
"""

import os
import runpy
import signal
import sys
from pathlib import Path

TOOL = runpy.run_path(str(Path(__file__).parents[1] / "tools" / "kill_training.py"))


def main(system, out, last):
    replace, count = os.replace, 0

    def dying(*args, **kwargs):
        nonlocal count
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(*args, **kwargs)

    os.replace = dying
    TOOL["train"](system, out, epochs=3)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
