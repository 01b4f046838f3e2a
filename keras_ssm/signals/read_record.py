from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_ssm.signals.aami import aami_class
from keras_ssm.types import PathLike


class Record(NamedTuple):
    """A record of biosignals, and the beats that were annotated in it.

    Fields:
        samples: float32 array `(length, leads)` in physical units; NaN where none was recorded.
        sampling_rate: float. Samples a second.
        leads: tuple of str. Names of the signals.
        units: tuple of str. Their units, such as `"mV"`.
        places: int array `(annotations,)` or `None`. Sample of each annotation.
        symbols: tuple of str or `None`. Its symbol.
        classes: tuple or `None`. Its `aami_class`; `None` for what is no beat.
    """

    samples: np.ndarray
    sampling_rate: float
    leads: tuple[str, ...]
    units: tuple[str, ...]
    places: np.ndarray | None = None
    symbols: tuple[str, ...] | None = None
    classes: tuple[str | None, ...] | None = None


def read_record(path: PathLike, annotator: str | None = None) -> Record:
    """Reads a record in the format of PhysioNet (WFDB), with the package wfdb.

    Args:
        path: str or `Path`. The record's files without their endings, or its `.hea` file.
        annotator: str or `None`. Ending of the annotations that are read as well, `"atr"` for the
            reference ones.

    Returns:
        `Record`.

    Raises:
        ImportError: if wfdb is not installed.
        ValueError: for a record or annotations that are missing or damaged, or signals of
            different rates.

    Example:
        ```python
        import wfdb
        ecg = np.sin(np.arange(720) / 60)[:, None]
        wfdb.wrsamp("100", fs=360, units=["mV"], sig_name=["MLII"], p_signal=ecg, fmt=["16"])
        record = keras_ssm.signals.read_record("100")
        record.leads, record.units  # ("MLII",), ("mV",)
        ```

    Reference:
        [WFDB](https://physionet.org/physiotools/wag/), header(5), annot(5).
    """
    try:
        import wfdb
    except ImportError as error:
        raise ImportError(
            "Records of PhysioNet are read by wfdb: pip install 'keras-ssm[ecg]'"
        ) from error
    path = Path(path)
    path = path.with_suffix("") if path.suffix == ".hea" else path
    needed = [".hea"] if annotator is None else [".hea", f".{annotator}"]
    for ending in needed:
        if not Path(f"{path}{ending}").is_file():
            raise ValueError(
                "`path` must be a record, without the endings of its files. "
                f"Received: '{path}', and no file '{path}{ending}'"
            )
    annotation = None
    try:
        record = wfdb.rdrecord(str(path))
        if annotator is not None:
            annotation = wfdb.rdann(str(path), annotator)
    except Exception as error:  # wfdb raises errors of many kinds for damaged files
        raise ValueError(
            f"`path` must be a whole record. Received: '{path}': {type(error).__name__}: {error}"
        ) from error
    samples = record.p_signal
    if samples is None or not samples.size:
        raise ValueError(f"`path` must be a record with signals. Received: '{path}' without")
    if annotation is not None and len(annotation.sample) and max(annotation.sample) >= len(samples):
        raise ValueError(
            f"The annotations '{annotator}' must lie within the {len(samples)} samples of "
            f"'{path}'. Received: one at {max(annotation.sample)}"
        )
    symbols = None if annotation is None else tuple(annotation.symbol)
    return Record(
        np.asarray(samples, "float32"),
        float(record.fs),
        tuple(record.sig_name),
        tuple(record.units),
        None if annotation is None else np.asarray(annotation.sample, "int64"),
        symbols,
        None if symbols is None else tuple(map(aami_class, symbols)),
    )
