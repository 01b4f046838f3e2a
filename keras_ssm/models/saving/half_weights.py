"""Weights in files of half the size: rounded before anything is recorded, then written so."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from keras_ssm.checks import check_choice

DTYPES = (None, "float16")


@contextlib.contextmanager
def rounded_weights(model: keras.Model, dtype: str | None) -> Iterator[None]:
    """A scope in which the weights of a model are rounded; after it they are what they were.

    Args:
        model: the model.
        dtype: str or `None`. `"float16"`; `None` rounds nothing.

    Raises:
        ValueError: for another dtype, or weights that are too large for it.
    """
    check_choice("weights_dtype", dtype, DTYPES)
    if dtype is None:
        yield
        return
    kept = [(v, keras.ops.convert_to_numpy(v)) for v in model.variables if "float" in v.dtype]
    with np.errstate(over="ignore"):
        rounded = [(v, value.astype(dtype).astype(value.dtype)) for v, value in kept]
    for variable, value in rounded:
        if not np.isfinite(value).all():
            raise ValueError(
                f"`weights_dtype` must hold all weights. Received: weights_dtype={dtype!r} and "
                f"'{variable.path}', beyond {np.finfo(dtype).max:,.0f} or not finite"
            )
    try:
        for variable, value in rounded:
            variable.assign(value)
        yield
    finally:
        for variable, value in kept:
            variable.assign(value)


def write_halved(directory: Path, dtype: str | None) -> None:
    """Writes the weights files of a directory anew, their floats in a dtype that holds them.

    Args:
        directory: `Path`. Holds files `.weights.h5` of a model of `rounded_weights`.
        dtype: str or `None`. As there.
    """
    if dtype is None:
        return
    import h5py

    for path in sorted(Path(directory).glob("*.weights*.h5")):
        scratch = path.with_suffix(".part")
        with h5py.File(path, "r") as old, h5py.File(scratch, "w") as new:
            _copy(old, new, dtype)
        scratch.replace(path)


def _copy(old, new, dtype):
    for name, value in old.attrs.items():
        new.attrs[name] = value
    for name, entry in old.items():
        if hasattr(entry, "items"):
            _copy(entry, new.create_group(name), dtype)
            continue
        wide = entry.dtype.kind == "f" and entry.dtype.itemsize > np.dtype(dtype).itemsize
        copy = new.create_dataset(name, data=entry[()].astype(dtype) if wide else entry[()])
        for key, value in entry.attrs.items():
            copy.attrs[key] = value
