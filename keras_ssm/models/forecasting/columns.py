"""Which columns of a table a forecaster reads, and how many features they make."""

from collections.abc import Mapping, Sequence

import numpy as np


class Columns:
    """The columns that a forecaster reads, by their kind.

    Args:
        target: sequence of names or `None`. What is forecast; `None` for all other columns.
        historic, known, static: sequences of names of covariates.
        categorical: dict from the name of a covariate to the list of its values, or to how many
            there are; or `None`.

    Raises:
        ValueError: for names that are there twice, or categories of no covariate.
    """

    def __init__(
        self,
        target: Sequence | None = None,
        historic: Sequence = (),
        known: Sequence = (),
        static: Sequence = (),
        categorical: Mapping | None = None,
    ):
        self.target = None if target is None else _names(target)
        self.historic = _names(historic)
        self.known = _names(known)
        self.static = _names(static)
        self.categorical = {
            _plain(name): values if isinstance(values, int) else [_plain(value) for value in values]
            for name, values in dict(categorical or {}).items()
        }
        covariates = [*self.historic, *self.known, *self.static]
        twice = sorted({str(name) for name in covariates if covariates.count(name) > 1})
        if twice:
            raise ValueError(
                "A covariate must be one of `historic`, `known` and `static`. "
                f"Received: {', '.join(twice)} more than once"
            )
        unknown = [name for name in self.categorical if name not in covariates]
        if unknown:
            raise ValueError(
                "`categorical` must name covariates: "
                f"{covariates}. Received: {', '.join(map(str, unknown))}"
            )
        for name, values in self.categorical.items():
            counted = isinstance(values, int) and values > 0
            if not counted and (not values or len(set(values)) != len(values)):
                raise ValueError(
                    "`categorical` must give the values of a column, each once, or their number. "
                    f"Received: {name}={values}"
                )

    @property
    def width(self) -> int:
        """Features of a step: the value, and all covariates."""
        return 1 + self._width(self.historic) + self.future + self._width(self.static)

    @property
    def future(self) -> int:
        """Features of a step of the horizon: the covariates that are known."""
        return self._width(self.known)

    @property
    def known_features(self) -> slice:
        """Where the known covariates stand among those of a step."""
        first = self._width(self.historic)
        return slice(first, first + self.future)

    def features(self, kind: str, values: np.ndarray) -> np.ndarray:
        """Numbers as they are, and categories as one column for each of their values.

        Args:
            kind: str. `"historic"`, `"known"` or `"static"`.
            values: float array `(..., columns)`; categories as ids from 1, 0 where missing.

        Returns:
            Float array `(..., features)`; a category that is missing is all zero.
        """
        parts = [np.zeros((*values.shape[:-1], 0))]
        for i, name in enumerate(getattr(self, kind)):
            column = values[..., i]
            if name in self.categorical:
                ids = np.arange(1, self._count(name) + 1)
                parts.append((column[..., None] == ids).astype("float64"))
            else:
                parts.append(column[..., None])
        return np.concatenate(parts, axis=-1)

    def numbers(self) -> np.ndarray:
        """Which of the covariates' features are numbers, as a boolean array."""
        names = [*self.historic, *self.known, *self.static]
        flags = [[name not in self.categorical] * self._count(name) for name in names]
        return np.array([flag for part in flags for flag in part], bool)

    def check(self, roles: dict) -> None:
        """Raises a `ValueError` for categories of data that the forecaster has not.

        Args:
            roles: `Panel.roles`.
        """
        for name, categories in roles["categories"]:
            allowed = self.categorical[name]
            allows = (
                len(categories) <= allowed
                if isinstance(allowed, int)
                else set(categories) <= set(allowed)
            )
            if not allows:
                raise ValueError(
                    f"The column {name!r} must have the categories of the forecaster: {allowed}. "
                    f"Received: {categories}"
                )

    def get_config(self) -> dict:
        """The arguments of the constructor, as a configuration keeps them."""
        return {
            "target": self.target,
            "historic": self.historic,
            "known": self.known,
            "static": self.static,
            # As pairs: names may be numbers, of which JSON would make texts.
            "categorical": [[name, values] for name, values in self.categorical.items()] or None,
        }

    def _count(self, name):
        values = self.categorical.get(name, 1)
        return values if isinstance(values, int) else len(values)

    def _width(self, names):
        return sum(self._count(name) for name in names)


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value


def _names(names):
    if isinstance(names, str) or not hasattr(names, "__iter__"):
        names = (names,)
    return [_plain(name) for name in names]
