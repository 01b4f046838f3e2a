"""Linear least squares with a penalty, solved exactly in float64."""

from collections.abc import Iterable

import numpy as np

from keras_ssm.checks import check_number

# Penalties among which validation chooses, times the sum of squares of an average column. Smooth
# signals need tiny ones.
ALPHAS = tuple(10.0 ** (exponent / 2) for exponent in range(-16, 5))


def ridge_weights(windows: np.ndarray, targets: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    """Returns the weights W that minimise |windows W - targets|^2 + alpha |W|^2.

    A target that is NaN counts in no sum: each step of the horizon is solved from the windows
    that have it.

    Args:
        windows: array `(n, lookback)`. Finite.
        targets: array `(n, horizon)`. NaN where unknown.
        alpha: float. Penalty, at least 0. Defaults to `1.0`.

    Returns:
        float64 array `(lookback, horizon)`.

    Raises:
        ValueError: if shapes do not fit, the windows are not finite, alpha is negative, or a step
            of the horizon has no target at all.

    Example:
        ```python
        x = np.random.default_rng(0).normal(size=(50, 3))
        weights = ridge_weights(x, x @ np.ones((3, 2)), alpha=0.0)
        assert np.allclose(weights, 1.0)
        ```

    Reference:
        A. E. Hoerl and R. W. Kennard (1970), Ridge regression, Technometrics 12.
    """
    check_number("alpha", alpha, low=0)
    sums = RidgeSums()
    sums.add(windows, targets)
    return sums.solve(alpha)


def best_ridge(
    train: Iterable[tuple[np.ndarray, np.ndarray]],
    validation: Iterable[tuple[np.ndarray, np.ndarray]],
    alphas: Iterable[float] | None = None,
) -> tuple[np.ndarray, float]:
    """Returns the weights whose penalty does best on the validation part, and that penalty.

    Args:
        train: pairs of arrays `(n, lookback)` and `(n, horizon)`, as `ridge_weights` takes them.
        validation: pairs of the same kind.
        alphas: floats or `None`. Penalties to try. Defaults to `None`: from 1e-8 to 100 times
            the sum of squares of an average column of the windows.

    Returns:
        Tuple of a float64 array `(lookback, horizon)` and the penalty.

    Raises:
        ValueError: as `ridge_weights`.

    Example:
        ```python
        x = np.random.default_rng(0).normal(size=(60, 3))
        pairs = [(x[:40], x[:40, :1])], [(x[40:], x[40:, :1])]
        weights, alpha = best_ridge(*pairs)
        assert weights.shape == (3, 1) and alpha > 0
        ```
    """
    fitted, held_out = RidgeSums(), RidgeSums()
    for pairs, sums in ((train, fitted), (validation, held_out)):
        for windows, targets in pairs:
            sums.add(windows, targets)
    if alphas is None:
        scale = fitted.scale()
        alphas = [alpha * scale for alpha in ALPHAS]
    solutions = [(float(alpha), fitted.solve(alpha)) for alpha in alphas]
    alpha, weights = min(solutions, key=lambda pair: held_out.error(pair[1]))
    return weights, alpha


class RidgeSums:
    """The sums of products from which weights and their error follow, without the windows.

    A step of the horizon with unknown targets has sums of its own: those of all windows less
    those of the windows that lack it.
    """

    blocks = 4096  # windows at a time

    def __init__(self):
        self.inputs = 0.0  # (lookback, lookback)
        self.products = 0.0  # (lookback, horizon)
        self.squares = 0.0  # (horizon,)
        self.count = 0  # (horizon,)
        self.windows = 0
        self.lacking = {}  # step -> (lookback, lookback)
        self._factors = None

    def add(self, windows, targets):
        """Adds windows `(n, lookback)` and targets `(n, horizon)`, NaN where unknown."""
        windows, targets = np.asarray(windows), np.asarray(targets)
        shapes = windows.ndim == targets.ndim == 2 and len(windows) == len(targets)
        if not shapes or windows.shape[1] == 0 or targets.shape[1] == 0:
            raise ValueError(
                "`windows` must be `(n, lookback)` and `targets` `(n, horizon)`. Received: "
                f"windows.shape={windows.shape}, targets.shape={targets.shape}"
            )
        for start in range(0, len(windows), self.blocks):
            x = windows[start : start + self.blocks].astype("float64")
            y = targets[start : start + self.blocks].astype("float64")
            if not np.isfinite(x).all() or np.isinf(y).any():
                raise ValueError(
                    "`windows` must be finite, and `targets` finite or NaN. Received: "
                    f"{np.sum(~np.isfinite(x))} and {np.isinf(y).sum()} other values"
                )
            unknown = np.isnan(y)
            y[unknown] = 0.0
            for step in np.flatnonzero(unknown.any(axis=0)):
                less = x[unknown[:, step]]
                self.lacking[step] = self.lacking.get(step, 0.0) + less.T @ less
            self.inputs = self.inputs + x.T @ x
            self.products = self.products + x.T @ y
            self.squares = self.squares + np.sum(y * y, axis=0)
            self.count = self.count + np.sum(~unknown, axis=0)
            self.windows += len(x)
        self._factors = None

    def scale(self):
        """The sum of squares of an average column of the windows, which a penalty is added to."""
        self._check()
        return max(np.trace(self.inputs) / len(self.inputs), np.finfo("float64").tiny)

    def solve(self, alpha):
        """The weights `(lookback, horizon)` of a penalty."""
        self._check()
        if self._factors is None:
            factors_of_step = {step: np.linalg.eigh(self._inputs(step)) for step in self.lacking}
            self._factors = np.linalg.eigh(self.inputs), factors_of_step
        shared, factors_of_step = self._factors
        weights = _solve(*shared, self.products, alpha)
        for step, factors in factors_of_step.items():
            weights[:, step] = _solve(*factors, self.products[:, step], alpha)
        return weights

    def error(self, weights):
        """Mean square error over all targets that are known."""
        self._check()
        explained = np.sum(weights * (self.inputs @ weights - 2.0 * self.products), axis=0)
        for step in self.lacking:
            step_weights = weights[:, step]
            explained[step] = step_weights @ (
                self._inputs(step) @ step_weights - 2.0 * self.products[:, step]
            )
        return float(np.sum(self.squares + explained) / np.sum(self.count))

    def _inputs(self, step):
        return self.inputs - self.lacking.get(step, 0.0)

    def _check(self):
        if np.min(self.count) == 0:
            raise ValueError(
                "`targets` must be known at every step of the horizon in some window. Received: "
                f"known={np.asarray(self.count).tolist()} of {self.windows} windows"
            )


def _solve(values, vectors, products, alpha):
    """The least squares of smallest norm where alpha is 0 and the inputs lack directions."""
    floor = values.max() * len(values) * np.finfo("float64").eps
    values = np.where(values > floor, values, 0.0) + alpha
    inverse = np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)
    projected = vectors.T @ products
    return vectors @ (inverse * projected.T).T
