"""The index of a pandas series: its frequency, its gaps, how it goes on."""

import numpy as np

# Missing rows for each row that exists, up to which a frequency is accepted.
MOST_GAPS = 100

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")


def pandas():
    """The package, or an error that says which extra brings it."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "Data frames need pandas: pip install 'keras-ssm[forecasting]'"
        ) from error
    return pandas


def check_index(index, name, what):
    """Raises a `ValueError` unless an index can count the rows of a series, each once.

    Args:
        index: pandas index.
        name: str. The argument, for the error.
        what: str. The series, for the error.
    """
    pd = pandas()
    if isinstance(index, pd.MultiIndex) or not (
        isinstance(index, (pd.DatetimeIndex, pd.PeriodIndex))
        or (pd.api.types.is_numeric_dtype(index) and not pd.api.types.is_bool_dtype(index))
    ):
        mixed = len({_zone(value) for value in index[:1000]} - {None}) > 1
        advice = (
            "in one time zone: `pd.to_datetime(..., utc=True)` makes one of several"
            if mixed
            else "which `pd.to_datetime` makes of text, or numbers"
        )
        raise ValueError(
            f"{what} of `{name}` must have dates, {advice}. "
            f"Received: dtype={index.dtype}, {list(index[:3])}"
        )
    if index.hasnans:
        raise ValueError(
            f"{what} of `{name}` must have a date in every row. "
            f"Received: {int(index.isna().sum())} rows without one"
        )
    if not index.is_unique:
        twice = index[index.duplicated()]
        raise ValueError(
            f"{what} of `{name}` must have each date once. "
            f"Received: {len(twice)} duplicates, the first of {twice[0]}"
        )


def same_kind(index, other):
    """Whether two indexes have dates, periods or numbers alike, and time zones or none."""
    pd = pandas()
    kinds = [
        (
            isinstance(i, pd.DatetimeIndex),
            getattr(i, "freq", None) if isinstance(i, pd.PeriodIndex) else None,
            getattr(i, "tz", None) is None,
        )
        for i in (index, other)
    ]
    return kinds[0] == kinds[1]


def _zone(value):
    zone = getattr(value, "tzinfo", None)
    return None if zone is None else str(zone)


def frequency(index, freq, owner):
    """The frequency of a sorted index, as what `regular` takes: an offset, or a number.

    Args:
        index: pandas index.
        freq: str, offset, number or `None`, which infers it: the coarsest one on which all rows
            lie, so that rows may be missing.
        owner: str. The series, for errors.
    """
    pd = pandas()
    if isinstance(index, pd.PeriodIndex):
        if freq not in (None, index.freqstr) and _offset(freq) != index.freq:
            raise ValueError(
                f"`freq` must be that of the periods, {index.freqstr}. Received: freq={freq!r}"
            )
        return index.freq
    if isinstance(index, pd.DatetimeIndex):
        step = _offset(freq) if freq is not None else _inferred(index)
        if step is None:
            raise ValueError(
                f"{owner} must have dates of a regular frequency, of which some may be missing; "
                "`freq=` names it where there are too few to tell, and periods "
                "(`.to_period('M')`) count months of any day. "
                f"Received: {len(index)} dates, {', '.join(map(str, index[:4]))}"
            )
        return step
    if freq is None:
        return _most_common(np.diff(index.to_numpy())) if len(index) > 1 else 1
    real = isinstance(freq, (int, float, np.integer, np.floating)) and not isinstance(freq, bool)
    if not real or not 0 < freq < np.inf:
        raise ValueError(
            f"`freq` must be a positive number for {owner}, whose index has numbers. "
            f"Received: freq={freq!r}"
        )
    return freq


def _offset(freq):
    pd = pandas()
    try:
        offset = pd.tseries.frequencies.to_offset(freq)
        reparsed = pd.tseries.frequencies.to_offset(offset.freqstr)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"`freq` must be a frequency of pandas, such as 'h', 'D' or 'MS'. Received: {freq!r}"
        ) from error
    if reparsed != offset or offset.n < 1:
        raise ValueError(
            "`freq` must be a frequency of pandas that its name tells whole, and run forwards. "
            f"Received: {freq!r}"
        )
    return offset


def _most_common(steps):
    values, counts = np.unique(steps, return_counts=True)
    return values[counts.argmax()].item()


def _inferred(index):
    """The frequency of dates, of which some may be missing, or `None`."""
    if index.freq is not None:
        return index.freq
    if len(index) < 3:
        return None
    return next((offset for offset in _candidates(index) if lies_on(index, offset)), None)


def _candidates(index):
    """Frequencies that a sorted index may have, the coarsest first."""
    pd = pandas()
    wall = index.tz_localize(None)  # days of local time
    day = 86_400 * 10**9
    step = _most_common((wall[1:] - wall[:-1]).as_unit("ns").asi8)
    month, weekday = MONTHS[index[0].month - 1], DAYS[index[0].weekday()]
    months = round(step / (30.44 * day))
    names = []
    if months == 12:
        names += [f"{kind}-{month}" for kind in ("YS", "YE", "BYS", "BYE")]
    if months == 3:
        # A quarter is named by the month in which one begins, or by that in which one ends.
        names += [f"{kind}-{month}" for kind in ("QS", "QE", "BQS", "BQE")]
    if months:
        names += [f"{months}{kind}" for kind in ("MS", "ME", "BMS", "BME")]
    if step % (7 * day) == 0:
        names += [f"{step // (7 * day)}W-{weekday}"]
    if step == day:
        names += ["B"]
    offsets = [pd.tseries.frequencies.to_offset(name) for name in names]
    if step % day == 0:
        return [*offsets, pd.offsets.Day(step // day)]
    real = index if index.tz is None else index.tz_convert("UTC")
    step = _most_common((real[1:] - real[:-1]).as_unit("ns").asi8)
    return [*offsets, pd.tseries.frequencies.to_offset(pd.Timedelta(step, "ns"))]


def lies_on(index, freq):
    """Whether all rows of a sorted index lie on a frequency that starts with the first."""
    pd = pandas()
    if isinstance(index, pd.PeriodIndex):
        return True
    if not isinstance(index, pd.DatetimeIndex):
        steps = (index.to_numpy() - index[0]) / freq
        return bool(np.allclose(steps, np.round(steps), rtol=0, atol=1e-6))
    if not freq.is_on_offset(index[0]):
        return False
    return bool(index.isin(_grid(index, freq)).all())


def _grid(index, freq):
    """The index without gaps, from the first row to the last."""
    pd = pandas()
    if isinstance(index, pd.PeriodIndex):
        return pd.period_range(index[0], index[-1], freq=freq)
    if isinstance(index, pd.DatetimeIndex):
        return pd.date_range(index[0], index[-1], freq=freq).as_unit(index.unit)
    count = round((index[-1] - index[0]) / freq) + 1
    if count == len(index):
        return index
    return pd.Index(index[0] + freq * np.arange(count)).astype(index.dtype)


def regular(index, freq, owner):
    """A sorted index with its gaps filled.

    Args:
        index: pandas index.
        freq: what `frequency` returns.
        owner: str. The series, for errors.

    Returns:
        Index of the same kind and name.

    Raises:
        ValueError: if a row lies beside the frequency, or nearly all rows would be missing.
    """
    pd = pandas()
    name = getattr(freq, "freqstr", freq)
    if isinstance(index, pd.DatetimeIndex) and isinstance(freq, pd.offsets.Tick):
        rows = (index[-1] - index[0]) / pd.Timedelta(freq.nanos, "ns")
    elif isinstance(index, (pd.DatetimeIndex, pd.PeriodIndex)):
        rows = 0  # of days and longer there are never too many
    else:
        rows = (index[-1] - index[0]) / freq
    if rows > MOST_GAPS * (len(index) + 100):
        raise ValueError(
            f"{owner} must have most of its rows at the frequency {name}: `freq=` names another. "
            f"Received: {len(index)} rows of {rows:.0f}"
        )
    if not lies_on(index, freq):
        raise ValueError(
            f"{owner} must have rows at the frequency {name} alone: `freq=` names another. "
            f"Received: {', '.join(map(str, index[:4]))} ... {index[-1]}"
        )
    return _grid(index, freq).rename(index.name)


def continued(index, horizon, freq):
    """The rows after the last one of an index.

    Args:
        index: pandas index without gaps.
        horizon: int. Rows.
        freq: what `frequency` returns, or the name of it.

    Returns:
        Index of the same kind, name, unit and time zone: months end when they end, and days are
        those of the clock on the wall.
    """
    pd = pandas()
    last = index[-1]
    if isinstance(index, pd.PeriodIndex):
        return pd.period_range(last + 1, periods=horizon, freq=index.freq, name=index.name)
    if isinstance(index, pd.DatetimeIndex):
        after = pd.date_range(last, periods=horizon + 1, freq=freq, name=index.name)[1:]
        return after.as_unit(index.unit)
    if isinstance(index, pd.RangeIndex) or freq == int(freq):
        freq = int(freq)
    if isinstance(index, pd.RangeIndex):
        return pd.RangeIndex(last + freq, last + freq * (horizon + 1), freq, name=index.name)
    return pd.Index(last + freq * np.arange(1, horizon + 1), name=index.name).astype(index.dtype)


# Rows in one season of calendar frequencies: that of a week, or of a year.
SEASONS = {"B": 5, "W": 52, "ME": 12, "MS": 12, "BME": 12, "BMS": 12, "M": 12}
SEASONS |= {"QE": 4, "QS": 4, "BQE": 4, "BQS": 4, "Q": 4}


def season(freq):
    """The rows of one season: a day of hours or minutes, a week of days, a year of months.

    Args:
        freq: what `frequency` returns, or the name of it.

    Returns:
        int, or `None` where the frequency has none: years, numbers, or rows of which no whole
        number fills the season.
    """
    if freq is None or (not isinstance(freq, str) and not hasattr(freq, "freqstr")):
        return None
    pd = pandas()
    offset = pd.tseries.frequencies.to_offset(freq)
    base = offset.freqstr.lstrip("0123456789").split("-")[0]
    if base in SEASONS:
        return _rows(SEASONS[base], offset.n)
    if not isinstance(offset, (pd.offsets.Tick, pd.offsets.Day)):
        return None
    second = 10**9
    day = 86_400 * second
    step = offset.n * day if isinstance(offset, pd.offsets.Day) else offset.nanos
    if step % (7 * day) == 0:
        return _rows(52, step // (7 * day))
    if step % day == 0:
        return _rows(7, step // day)
    if step < second:
        return None
    return _rows(day if step >= 60 * second else 3600 * second, step)


def _rows(period, step):
    return period // step if period % step == 0 and period > step else None
