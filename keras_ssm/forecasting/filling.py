"""Replaces missing values, for models that need numbers."""

import numpy as np


def filled_forward(values):
    """Each missing value as the last one seen; those before the first as that one.

    Args:
        values: array `(time, V)`, NaN where missing.

    Returns:
        Array of the same shape, finite where a column has a value.
    """
    known = ~np.isnan(values)
    rows = np.arange(len(values))[:, None]
    source_rows = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
    source_rows = np.where(source_rows < 0, known.argmax(axis=0), source_rows)
    return np.take_along_axis(values, source_rows, axis=0)


def filled_by_season(values, season):
    """Each missing value as the one a season before; where none was seen, the last one seen.

    Args:
        values: array `(time, V)`, NaN where missing.
        season: int. Rows of a season.

    Returns:
        Array of the same shape, finite where a column has a value.
    """
    phases = -len(values) % season
    padded = np.concatenate([values, np.full((phases, values.shape[1]), np.nan)])
    folded = padded.reshape(-1, season * values.shape[1])
    known = ~np.isnan(folded)
    source_rows = np.maximum.accumulate(
        np.where(known, np.arange(len(folded))[:, None], -1), axis=0
    )
    filled = np.take_along_axis(folded, np.maximum(source_rows, 0), axis=0)
    filled = np.where(source_rows < 0, np.nan, filled).reshape(padded.shape)[: len(values)]
    return np.where(np.isnan(filled), filled_forward(values), filled)
