import contextlib
import os
import tempfile
from pathlib import Path


@contextlib.contextmanager
def writing_file(destination):
    """A scratch file that becomes `destination` when its writer succeeds.

    Args:
        destination: str or `Path`. Replaced if it is there; its directory is made.

    Yields:
        `Path` of the scratch file.

    Raises:
        ValueError: if the destination is a directory.
    """
    destination = Path(destination).expanduser().absolute()
    if destination.is_dir():
        raise ValueError(f"The destination must be a file. Received: the directory '{destination}'")
    destination.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{destination.name}.", dir=destination.parent)
    os.close(handle)
    scratch = Path(name)
    try:
        yield scratch
        scratch.chmod(0o644)
        os.replace(scratch, destination)
    finally:
        scratch.unlink(missing_ok=True)
