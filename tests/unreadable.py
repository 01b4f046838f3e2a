"""Files that are none of what they are called."""

import zipfile

import numpy as np


def unreadable_arrays(folder):
    """Contents of files `.npz` that NumPy cannot read: others, broken ones, and far too large."""
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    header = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    with zipfile.ZipFile(folder / "large.npz", "w") as file:
        file.writestr("tokens.npy", header)
    np.savez_compressed(folder / "damaged.npz", tokens=np.arange(100))
    damaged = bytearray((folder / "damaged.npz").read_bytes())
    at = damaged.find(b"tokens.npy") + len(b"tokens.npy") + 20
    damaged[at : at + 8] = b"\xff" * 8
    return b"", b"text", b"PK\x03\x04", (folder / "large.npz").read_bytes(), bytes(damaged)
