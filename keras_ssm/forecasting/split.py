"""Which rows at the end of series are held out."""

import numpy as np


def validation_rows(panel, validation, horizon, reads=2):
    """Rows at the end of each series that are for validation.

    A series that is too short for both parts is trained on whole.

    Args:
        panel: `Panel`.
        validation: int of rows, float share of the rows of each series, 0 for none, or `None` for
            a fifth where enough is left.
        horizon: int. Rows of a forecast.
        reads: int. Rows before it, without which nothing can be learned. Defaults to `2`: two
            forecasts of one row, or one of two.

    Returns:
        List of int, one for each series.

    Raises:
        ValueError: for a share outside (0, 1), fewer rows than the horizon, or series that are too
            short altogether.
    """
    lengths = [len(series.values) for series in panel.series]
    least = horizon + reads
    if max(lengths) < least:
        raise ValueError(
            f"`data` must have a series of at least {least} rows, {reads} more than the horizon. "
            f"Received: at most {max(lengths)} rows"
        )
    if validation is None:
        wanted = [max(horizon, n // 5) for n in lengths]
        return [held if n - held >= least else 0 for n, held in zip(lengths, wanted, strict=True)]
    is_count = isinstance(validation, (int, np.integer)) and not isinstance(validation, bool)
    is_share = isinstance(validation, (float, np.floating)) and 0 < validation < 1
    if not (is_share or (is_count and (validation == 0 or validation >= horizon))):
        raise ValueError(
            f"`validation` must be a number of rows, at least the horizon of {horizon}, a share "
            "between 0 and 1, 0 for none, or None for a fifth. "
            f"Received: validation={validation!r}"
        )
    if is_count and validation == 0:
        return [0] * len(lengths)
    wanted = [max(horizon, round(n * validation)) if is_share else int(validation) for n in lengths]
    rows = [held if n - held >= least else 0 for n, held in zip(lengths, wanted, strict=True)]
    if not any(rows):
        raise ValueError(
            f"`validation` must leave {least} rows of some series to learn from, {reads} more "
            f"than the horizon. Received: validation={validation}, at most {max(lengths)} rows"
        )
    return rows
