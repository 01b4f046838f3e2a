import contextlib
import ctypes
import errno
import os
import re
import shutil
import sys
from pathlib import Path

from keras_ssm.scratch import (
    REPLACED,
    hidden_name,
    is_live,
    leftovers,
    remove,
    scratch_beside,
    sync,
    sync_tree,
)

_REPLACED_NAME = re.compile(rf"\.(.+)\.{REPLACED}\.[0-9a-f]+")


@contextlib.contextmanager
def writing_directory(destination, stays=lambda name: True):
    """A scratch directory that becomes `destination` when its writer succeeds.

    Where the operating system exchanges two directories in one step, the old or the new one
    stands there at every moment. Elsewhere the old one is first set aside under a hidden name,
    where `standing` finds it if the writer is killed before the new one is in place.
    A link is replaced, never what it points to.

    Args:
        destination: str or `Path`. One that is being written already is yielded as it is.
        stays: callable. Maps the name of a file of the old directory to whether the new one
            keeps it, if it brings none of that name. Defaults to every file.

    Yields:
        `Path` of the scratch directory.

    Raises:
        ValueError: if the destination is a file, or lies in a cache of the Hub.
    """
    destination = Path(destination).expanduser().absolute()
    if is_live(destination):
        yield destination
        return
    if destination.exists() and not destination.is_dir():
        raise ValueError(f"The destination must be a directory. Received: the file '{destination}'")
    with scratch_beside(destination) as scratch:
        _bring_back(destination)
        yield scratch
        if destination.is_dir() and not os.access(destination, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(destination))
        for _ in range(100):  # other writers may replace it meanwhile
            with contextlib.suppress(FileNotFoundError):
                if (old := standing(destination)).is_dir():
                    _carry(old, scratch, stays)
                break
        sync_tree(scratch)
        _exchange(scratch, destination)
        sync(destination.parent)


def standing(destination):
    """Where the content of a directory stands: there, or aside if its replacement broke off.

    Args:
        destination: `Path`.

    Returns:
        `Path`; the destination itself if there is nothing of that name.
    """
    if os.path.lexists(destination):
        return destination
    aside = leftovers(destination.absolute(), REPLACED)
    return aside[-1] if aside else destination


def directories(root):
    """Dict of names to the directories of a folder; hidden ones count where they stand in.

    Args:
        root: `Path`. The folder.
    """
    newest = {}
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        if not path.name.startswith("."):
            newest[path.name] = path
        elif (match := _REPLACED_NAME.fullmatch(path.name)) and match[1] not in newest:
            newest[match[1]] = standing(root / match[1])
    return {name: path for name, path in newest.items() if path.is_dir()}


def _bring_back(destination):
    """Undoes a replacement that broke off, and removes what others left."""
    aside = leftovers(destination, REPLACED)
    if aside and not os.path.lexists(destination):
        with contextlib.suppress(OSError):  # another writer was faster
            os.rename(aside.pop(), destination)
    for path in aside:
        remove(path)


def _carry(old, new, stays):
    """Gives the new directory what it keeps of the old one, as further links to the same files."""
    for path in old.iterdir():
        target = new / path.name
        if target.is_dir() and path.is_dir() and not path.is_symlink():
            _carry(path, target, lambda name, folder=path.name: stays(f"{folder}/{name}"))
        elif not os.path.lexists(target) and stays(path.name):
            if path.is_dir() and not path.is_symlink():
                target.mkdir()
                _carry(path, target, lambda name, folder=path.name: stays(f"{folder}/{name}"))
                shutil.copystat(path, target)
                if not any(target.iterdir()) and any(path.iterdir()):
                    target.rmdir()
            else:
                _link(path, target)
    shutil.copymode(old, new)


def _link(path, target):
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError:  # another file system, or one without links
        shutil.copy2(path, target, follow_symlinks=False)


def _exchange(scratch, destination):
    below = _working_directory_below(destination)
    for _ in range(100):  # other writers may come and go between two steps
        if not os.path.lexists(destination):
            if _renamed(scratch, destination):
                break
        elif _exchanged(scratch, destination) or _set_aside(scratch, destination):
            break
    else:
        raise OSError(errno.EBUSY, "others write there all the time", str(destination))
    if below is not None:
        os.chdir(destination / below)


def _working_directory_below(destination):
    """The working directory relative to one that is to be replaced; `None` if it lies outside."""
    with contextlib.suppress(OSError, ValueError):
        return Path.cwd().relative_to(destination.resolve())
    return None


def _renamed(scratch, destination):
    try:
        os.rename(scratch, destination)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            return False  # another writer was faster
        raise
    return True


def _exchanged(scratch, destination):
    """Exchanges two directories in one step; `False` where that does not exist."""
    try:
        if sys.platform == "darwin":
            rename, directory_of, swap = ctypes.CDLL(None, use_errno=True).renamex_np, (), 2
        else:
            rename, directory_of, swap = ctypes.CDLL(None, use_errno=True).renameat2, (-100,), 2
    except (AttributeError, OSError, TypeError):
        return False
    paths = os.fsencode(scratch), os.fsencode(destination)
    arguments = [part for path in paths for part in (*directory_of, ctypes.c_char_p(path))]
    return rename(*arguments, ctypes.c_uint(swap)) == 0


def _set_aside(scratch, destination):
    """Replaces a directory in two steps; `False` if another writer came in between."""
    aside = hidden_name(destination, REPLACED)
    try:
        os.rename(destination, aside)
    except FileNotFoundError:
        return False
    try:
        placed = _renamed(scratch, destination)
    except OSError:
        os.rename(aside, destination)
        raise
    remove(aside)  # a directory that another writer placed meanwhile is newer, too
    return placed
