from pathlib import Path

import numpy as np

from keras_ssm.signals import Record, aami_class

FILE = Path(__file__).parent / "ecg_106.npz"
RATE = 360.0


def ecg() -> Record:
    """Returns 40 seconds of a real electrocardiogram, which come with this package.

    They are 14,400 samples of two leads of record 106 of the MIT-BIH Arrhythmia Database, from
    26 minutes and 4 seconds on, with the beats as cardiologists marked them: 31 normal ones and 9
    from the ventricles. It is the first stretch, in the order of the records, of the last fifth of
    one that has both kinds of beats and no other: recipes learn from what comes before that fifth.

    Returns:
        `keras_ssm.signals.Record`: float32 millivolts `(14400, 2)` at 360 Hz, the names of the
        leads, and place, symbol and class of each annotation.

    Example:
        ```python
        record = ecg()
        assert record.samples.shape == (14400, 2) and record.leads == ("MLII", "V1")
        assert record.classes.count("V") == 9
        ```

    Reference:
        G. B. Moody and R. G. Mark (2001), The impact of the MIT-BIH Arrhythmia Database.
        [Data](https://doi.org/10.13026/C2F305), ODC-By 1.0; see `ecg_106.LICENCE.txt`.
    """
    with np.load(FILE) as file:
        counts, places = file["signal"], file["places"].astype("int64")
        symbols = tuple(file["symbols"].tolist())
    samples = ((counts.astype("float32") - 1024) / 200).astype("float32")
    classes = tuple(map(aami_class, symbols))
    return Record(samples, RATE, ("MLII", "V1"), ("mV", "mV"), places, symbols, classes)
