"""Compares the files of a snapshot with the sizes and checksums that the Hub states."""

import hashlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from keras_ssm.presets.preset_files import sha256

# The cache names its files by these: SHA-256 of large files, Git's SHA-1 of the others.
_CHECKSUM = re.compile("[0-9a-f]{64}|[0-9a-f]{40}")


def unlike_the_hub(
    directory: Path, names: Collection[str], listing: Mapping | None
) -> dict[str, str]:
    """Compares files with their sizes and checksums.

    Args:
        directory: `Path` of the snapshot.
        names: collection of str. The files.
        listing: dict of names to entries of the Hub, or `None` where it cannot be reached: the
            cache then names the checksums, where it holds links.

    Returns:
        Dict of the name of each file that is missing or another to what is wrong with it.
    """
    complaints = {}
    for name in names:
        path = directory / name
        if not path.is_file():
            complaints[name] = f"'{directory}' is incomplete. Received: no file {name!r}"
            continue
        size, expected = _expected(path, listing)
        received = path.stat().st_size
        if size is not None and received != size:
            complaints[name] = (
                f"File '{name}' of '{directory}' must have {size} bytes, as on the Hub. "
                f"Received: {received}"
            )
        elif expected is not None and (digest := _digest(path, expected)) != expected:
            complaints[name] = (
                f"File '{name}' of '{directory}' is damaged or was altered: its checksum on the "
                f"Hub is {expected}. Received: {digest}"
            )
    return complaints


def _expected(path, listing):
    """Size and checksum of a file, as far as they are known."""
    if listing is None:
        name = path.resolve().name
        return None, name if _CHECKSUM.fullmatch(name) else None
    entry = listing[path.name]
    return entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id


def _digest(path, expected):
    if len(expected) == 64:
        return sha256(path)
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with open(path, "rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()
