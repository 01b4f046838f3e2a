from typing import Any, NamedTuple

import numpy as np


class Series(NamedTuple):
    """One series of a `Panel`: T rows, V variables, and its covariates.

    Args:
        name: str, int or `None`. The series' `unique_id`.
        values: float64 array `(T, V)`. What is to be forecast; NaN where missing.
        historic: float64 array `(T, P)`. Covariates that are known up to the last row.
        known: float64 array `(T + F, K)`. Covariates that are known F rows ahead.
        static: float64 array `(S,)`. Covariates of the series as a whole.
        index: pandas index of T rows without gaps, or `None`.

    Example:
        ```python
        none = np.zeros((5, 0))
        assert Series(None, np.zeros((5, 1)), none, none, np.zeros(0), None).values.shape == (5, 1)
        ```
    """

    name: Any
    values: np.ndarray
    historic: np.ndarray
    known: np.ndarray
    static: np.ndarray
    index: Any = None
