"""Scratch directories that stand beside what they become, and go with their writer.

A scratch directory is hidden and locked while its writer lives. What a killed writer left is
removed by the next that writes to the same place.
"""

import contextlib
import itertools
import os
import secrets
import shutil
import time

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

SAVING = "saving"  # prefix of a new version, while it is written
REPLACED = "replaced"  # prefix of the old version, while it is replaced in two steps

_HUB_CACHE = ("blobs", "refs", "snapshots")
_SECONDS_OF_A_DAY = 86_400

_live = set()


def is_live(path):
    """Whether a path is a scratch directory of this process."""
    return str(path) in _live


def hidden_name(destination, kind):
    """A new hidden name beside a destination."""
    return destination.parent / f"{_prefix(destination, kind)}{secrets.token_hex(4)}"


def leftovers(destination, kind):
    """The hidden directories of one kind beside a destination, the newest last."""
    prefix = _prefix(destination, kind)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        paths = [path for path in destination.parent.iterdir() if path.name.startswith(prefix)]
        return sorted(paths, key=lambda path: path.lstat().st_mtime)
    return []


def _prefix(destination, kind):
    return f".{destination.name[:200]}.{kind}."


@contextlib.contextmanager
def scratch_beside(destination):
    """A hidden directory beside a destination that is gone afterwards, whatever it holds then.

    Args:
        destination: `Path`, absolute. Its directory is made.

    Yields:
        `Path` of the empty scratch directory.

    Raises:
        ValueError: if the destination lies in a cache of the Hub, or below a file.
    """
    _refuse_cache(destination)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(
            f"The destination must lie in a directory. Received: '{destination}', below a file"
        ) from None
    for path in leftovers(destination, SAVING):
        _sweep(path)
    scratch, lock = _claim(destination)
    _live.add(str(scratch))
    try:
        yield scratch
    finally:
        _live.discard(str(scratch))
        remove(scratch)
        if lock is not None:
            os.close(lock)


def remove(path):
    """Removes a directory with what it holds, or a link but not what it points to."""
    if path.is_symlink():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def sync(path):
    """Waits until a file, or the list of files of a directory, is on the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows does not sync directories
        return
    try:
        os.fsync(handle)
    except OSError:
        if not os.path.isdir(path):  # some file systems cannot sync directories
            raise
    finally:
        os.close(handle)


def sync_tree(directory):
    """Waits until a directory is on the disk with all that it holds."""
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                sync(path)
        sync(folder)


def _refuse_cache(destination):
    parts = (destination.parent.resolve() / destination.name).parts
    for repository, inside in itertools.pairwise(parts):
        if repository.startswith(("models--", "datasets--")) and inside in _HUB_CACHE:
            raise ValueError(
                "The destination must lie outside the cache of the Hub, whose files other "
                f"programs share: save it elsewhere. Received: '{destination}'"
            )


def _claim(destination):
    """A new scratch directory and the handle that locks it, or `None` where there are no locks."""
    while True:
        scratch = hidden_name(destination, SAVING)
        os.mkdir(scratch)
        lock = _lock(scratch)
        # Between the two lines another process may have removed it as a leftover.
        if fcntl is None or scratch.is_dir():
            return scratch, lock


def _lock(path):
    """A handle with the lock of a directory; `None` if a living writer has it."""
    if fcntl is None:
        return None
    handle = None
    try:
        handle = os.open(path, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if handle is not None:
            os.close(handle)
        return None
    return handle


def _sweep(path):
    """Removes what a killed writer left; what a living one uses stays."""
    if fcntl is None:
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > _SECONDS_OF_A_DAY:
                remove(path)
    elif (lock := _lock(path)) is not None:
        remove(path)
        os.close(lock)
