import contextlib
import os
import shutil
from pathlib import Path

from keras_ssm.scratch import scratch_beside, sync


@contextlib.contextmanager
def writing_file(destination):
    """A scratch file that becomes `destination` when its writer succeeds.

    At every moment the old file or the whole new one stands there, also after the process was
    killed or the power failed. A link is replaced, never what it points to.

    Args:
        destination: str or `Path`. Replaced if it is there; its directory is made.

    Yields:
        `Path` of the scratch file, empty, with the name of the destination.

    Raises:
        ValueError: if the destination is a directory, or lies in a cache of the Hub.
    """
    destination = Path(destination).expanduser().absolute()
    if destination.is_dir():
        raise ValueError(f"The destination must be a file. Received: the directory '{destination}'")
    with scratch_beside(destination) as scratch:
        file = scratch / destination.name
        file.touch()
        yield file
        if destination.exists():
            shutil.copymode(destination, file)
        sync(file)
        os.replace(file, destination)
        sync(destination.parent)
