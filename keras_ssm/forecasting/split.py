"""Which rows at the end of a series are held out."""

import numpy as np


def held_rows(rows, validation, horizon, reads=1):
    """The rows at the end of a series that are not learned from.

    Args:
        rows: int. Rows of the series.
        validation: int, float or `None`. Rows, or their share. `None`: a fifth and a horizon at
            least, or none where too few would be left to learn from.
        horizon: int. Rows of a forecast.
        reads: int. Rows that a forecast reads. Defaults to `1`.

    Returns:
        int.

    Raises:
        ValueError: for another type, or if the part has no whole horizon, or is the whole series.
    """
    if validation is None:
        held = max(horizon, rows // 5)
        return held if rows - held >= reads + horizon else 0
    share = isinstance(validation, (float, np.floating)) and 0 < validation < 1
    count = isinstance(validation, (int, np.integer)) and not isinstance(validation, bool)
    if not share and not count:
        raise ValueError(
            "`validation` must be a number of rows or a share between 0 and 1. "
            f"Received: validation={validation!r}"
        )
    held = round(rows * validation) if share else int(validation)
    if held == 0 and count:
        return 0
    if not horizon <= held < rows:
        raise ValueError(
            f"`validation` must have at least the horizon of {horizon} rows and leave some of "
            f"{rows}. Received: validation={validation!r}, which is {held} rows"
        )
    return held
