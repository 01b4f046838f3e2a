"""Data of every kind becomes series, and a forecast the kind of data that came in."""

import json
import sys

import numpy as np
import pandas as pd
import pytest

from keras_ssm.forecasting import Panel

pytestmark = pytest.mark.once("torch")

NAN = np.nan


def steps(panel, rows=2, *names):
    """Forecasts that count, for each series of a panel."""
    width = len(panel.variables)
    count = [np.arange(rows * width, dtype=float).reshape(rows, width) for _ in panel.series]
    return panel.frame(dict.fromkeys(("mean", *names), count), rows)


def hourly(rows=30, start="2024-03-30 12:00", **kwargs):
    index = pd.date_range(start, periods=rows, freq="h", name="when", **kwargs)
    return pd.DataFrame({"a": np.arange(rows, dtype=float), "b": 1.0}, index=index)


def long(lengths=(6, 4), freq="MS"):
    frames = []
    for number, rows in enumerate(lengths):
        dates = pd.date_range("2020-01-31", periods=rows, freq=freq)
        kinds = ["x", "y"][number % 2]
        part = {"unique_id": f"s{number}", "ds": dates, "y": np.arange(rows) + 10.0 * number}
        frames.append(pd.DataFrame({**part, "promo": np.arange(rows) % 2, "kind": kinds}))
    return pd.concat(frames, ignore_index=True)


def test_arrays():
    vector = Panel.read(np.arange(5))
    assert vector.kind == "numpy" and vector.variables == [0] and vector.season() is None
    assert vector.series[0].values.dtype == np.float64
    np.testing.assert_array_equal(vector.series[0].values[:, 0], np.arange(5))
    np.testing.assert_array_equal(steps(vector), [0, 1])
    given = np.array([[1.0, NAN], [2.0, 3.0]], "float32")
    matrix = Panel.read(given)
    np.testing.assert_array_equal(matrix.series[0].values, given)
    assert steps(matrix).shape == (2, 2)
    assert set(steps(matrix, 2, "lo-90", "hi-90")) == {"mean", "lo-90", "hi-90"}
    several = Panel.read([np.zeros((5, 2)), np.zeros((3, 2), int)])
    assert [len(series.values) for series in several.series] == [5, 3]
    assert [part.shape for part in steps(several)] == [(2, 2)] * 2
    assert [part.shape for part in steps(Panel.read([np.zeros(4), [1, 2]]))] == [(2,)] * 2
    assert steps(Panel.read(np.zeros((3, 5, 2)))).shape == (3, 2, 2)
    masked = np.ma.masked_array([1, 2, 3], [False, True, False])
    np.testing.assert_array_equal(Panel.read(masked).series[0].values[:, 0], [1, NAN, 3])


def test_covariates_of_arrays():
    data = np.arange(15.0).reshape(5, 3)
    panel = Panel.read(
        data, historic=[0], known=[2], future=[[20.0], [23.0]], static=np.ones((1, 2))
    )
    series = panel.series[0]
    assert panel.variables == [1]
    np.testing.assert_array_equal(series.historic[:, 0], data[:, 0])
    np.testing.assert_array_equal(series.known[:, 0], [2, 5, 8, 11, 14, 20, 23])
    np.testing.assert_array_equal(series.static, [1, 1])
    panel.check_future(2)
    with pytest.raises(ValueError, match=r"all 3 rows of the horizon.*Received: 2 rows"):
        panel.check_future(3)


def test_wide_frames():
    frame = hourly()
    panel = Panel.read(frame)
    assert (panel.kind, panel.freq, panel.season()) == ("wide", "h", 24)
    forecast = steps(panel)
    assert list(forecast.columns) == ["a", "b"] and forecast.index.name == "when"
    assert forecast.index[0] == frame.index[-1] + pd.Timedelta("1h")
    bands = steps(panel, 2, "lo-90", "hi-90")
    assert list(bands) == ["a", "b", "a-lo-90", "a-hi-90", "b-lo-90", "b-hi-90"]
    one = Panel.read(frame["a"])
    assert isinstance(steps(one), pd.Series) and steps(one).name == "a"
    assert list(steps(one, 2, "lo-90")) == list(steps(Panel.read(frame[["a"]]), 2, "lo-90"))
    assert list(steps(one, 2, "lo-90")) == ["a", "lo-90"]
    numbered = steps(Panel.read(pd.DataFrame({"y": [1.0, 2.0, 3.0]})))
    assert isinstance(numbered.index, pd.RangeIndex) and list(numbered.index) == [3, 4]
    chosen = Panel.read(frame, target="b")
    assert chosen.variables == ["b"] and chosen.series[0].historic.shape == (30, 0)
    nullable = frame.astype({"a": "Int64"}).assign(a=lambda f: f["a"].mask(f["a"] == 3))
    np.testing.assert_array_equal(Panel.read(nullable).series[0].values[2:5, 0], [2, NAN, 4])


def test_gaps_become_rows_and_dates_are_sorted():
    frame = hourly(200)
    for missing in ([5], [3, 4, 5, 50], list(range(20, 120))):
        remaining = frame.drop(frame.index[missing])
        panel = Panel.read(remaining.sample(frac=1, random_state=0))
        assert panel.freq == "h"
        series = panel.series[0]
        pd.testing.assert_index_equal(series.index, frame.index, exact=False)
        assert np.flatnonzero(np.isnan(series.values[:, 0])).tolist() == missing
        np.testing.assert_array_equal(series.values[0], frame.iloc[0])
        assert steps(panel).index[0] == frame.index[-1] + pd.Timedelta("1h")


@pytest.mark.parametrize(
    ("freq", "season"),
    [
        ("15min", 96), ("h", 24), ("6h", 4), ("D", 7), ("2D", None), ("B", 5), ("W-SAT", 52),
        ("2W", 26), ("MS", 12), ("ME", 12), ("BME", 12), ("QS", 4), ("QE-FEB", 4), ("YS", None),
        ("YE", None), ("s", 3600), ("ms", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_frequencies(freq, season, zone):
    whole = pd.date_range("2024-02-26", periods=60, freq=freq, tz=zone)
    gaps = whole.delete([4, 5, 6, 40])
    for index in (whole, gaps):
        panel = Panel.read(pd.Series(np.arange(len(index)), index))
        assert panel.season() == season, panel.freq
        found = panel.series[0].index
        assert len(found) == 60 and (found == whole).all()
    after = pd.date_range("2024-02-26", periods=63, freq=freq, tz=zone)[60:]
    assert (steps(panel, 3).index == after).all()
    reloaded = Panel.read(pd.Series([1.0], whole[-1:]), like=json.loads(json.dumps(panel.roles)))
    assert (steps(reloaded, 3).index == after).all()


def test_clocks_that_change():
    """Days are those of the clock on the wall, hours are 60 minutes."""
    days = pd.Series([1.0, 2.0, 3.0], pd.date_range("2024-03-28", periods=3, tz="Europe/Berlin"))
    assert [str(t) for t in steps(Panel.read(days)).index] == [
        "2024-03-31 00:00:00+01:00",
        "2024-04-01 00:00:00+02:00",
    ]
    night = hourly(3, "2024-10-26 23:00", tz="Europe/Berlin")  # 23, 0, 1 o'clock
    assert [t.hour for t in steps(Panel.read(night), 4).index] == [2, 2, 3, 4]
    assert len(Panel.read(night.iloc[[0, 1, 2]]).series[0].values) == 3


def test_numbers_and_periods_count_rows_too():
    years = pd.Series([5.0, 11.0, 16.0, 23.0], [1700.0, 1701.0, 1702.0, 1704.0])
    panel = Panel.read(years)
    np.testing.assert_array_equal(panel.series[0].values[:, 0], [5, 11, 16, NAN, 23])
    assert list(steps(panel).index) == [1705.0, 1706.0]
    assert list(steps(Panel.read(years.iloc[[0, 2]], freq=2)).index) == [1704.0, 1706.0]
    months = pd.Series([1.0, 2.0, 4.0], pd.PeriodIndex(["2024-11", "2024-12", "2025-02"], freq="M"))
    panel = Panel.read(months)
    assert panel.season() == 12 and len(panel.series[0].values) == 4
    assert [str(p) for p in steps(panel).index] == ["2025-03", "2025-04"]
    assert len(Panel.read(months, like=panel.roles).series[0].values) == 4


def test_long_frames():
    data = long()
    panel = Panel.read(
        data, known=["promo"], static=["kind"], categorical=["kind"], future=ahead(data)
    )
    assert (panel.kind, panel.freq, panel.variables) == ("long", "MS", ["y"])
    first, second = panel.series
    assert (first.name, second.name) == ("s0", "s1") and len(second.values) == 4
    assert panel.categorical == {"historic": {}, "known": {}, "static": {0: 3}}
    np.testing.assert_array_equal([first.static, second.static], [[1], [2]])
    assert first.known.shape == (8, 1)
    forecast = steps(panel, 2, "lo-80")
    assert list(forecast) == ["unique_id", "ds", "y", "lo-80"]
    assert forecast["unique_id"].tolist() == ["s0", "s0", "s1", "s1"]
    assert [str(d.date()) for d in forecast["ds"]] == [
        "2020-08-01", "2020-09-01", "2020-06-01", "2020-07-01",
    ]  # fmt: skip
    assert Panel.read(data.drop(columns="kind")).series[0].historic.shape == (6, 1)
    table = pd.DataFrame({"size": [3.0, 4.0]}, index=["s1", "s0"])
    panel = Panel.read(data.drop(columns="kind"), static=table)
    assert [series.static.tolist() for series in panel.series] == [[4], [3]]
    single = Panel.read(data.iloc[:6].drop(columns=["unique_id", "kind"]))
    assert list(steps(single)) == ["ds", "y"]
    two = Panel.read(data.drop(columns="kind"), target=["y", "promo"])
    assert list(steps(two, 2, "lo-80")) == [
        "unique_id",
        "ds",
        "y",
        "promo",
        "y-lo-80",
        "promo-lo-80",
    ]


def ahead(data, rows=2):
    """Known covariates of the rows after the last one of each series."""
    parts = []
    for name, group in data.groupby("unique_id"):
        dates = pd.date_range(group["ds"].max(), periods=rows + 1, freq="MS")[1:]
        parts.append(pd.DataFrame({"unique_id": name, "ds": dates, "promo": 1}))
    return pd.concat(parts)


def test_the_data_of_predict_match_those_of_fit():
    data = long()
    fitted = Panel.read(data, known=["promo"], static=["kind"], categorical=["kind"])
    like = json.loads(json.dumps(fitted.roles))
    later = data.iloc[3:6]
    panel = Panel.read(later, future=ahead(later), like=like)
    np.testing.assert_array_equal(panel.series[0].static, fitted.series[0].static)
    assert panel.categorical == fitted.categorical and panel.roles == fitted.roles
    for wrong, message in [
        (later.assign(other=1), "columns that `fit` has seen.*also \\['other'\\]"),
        (later.drop(columns="promo"), "without \\['promo'\\]"),
        (later.assign(kind="z"), "categories that `fit` has seen: x, y. Received: z"),
    ]:
        with pytest.raises(ValueError, match=message):
            Panel.read(wrong, like=like)
    wide = Panel.read(hourly()).roles
    assert Panel.read(np.zeros((4, 2)), like=wide).variables == ["a", "b"]
    assert Panel.read(hourly(), like=Panel.read(np.zeros((4, 2))).roles).kind == "wide"
    with pytest.raises(ValueError, match="columns that `fit` has seen"):
        Panel.read(np.zeros((4, 3)), like=wide)


def refused():
    frame, data = hourly(), long()
    dates = frame.index
    mixed = [pd.Timestamp("2024-01-01", tz="UTC"), pd.Timestamp("2024-01-02", tz="Asia/Tokyo")]
    yield "no rows", np.zeros((0, 2)), {}, "`data` must have rows"
    yield "no rows of a frame", frame.iloc[:0], {}, "`data` must have rows"
    yield "no series", [], {}, "`data` must have rows"
    yield "an empty series", [np.zeros(3), np.zeros(0)], {}, "an empty series, number 1"
    yield "all NaN", np.array([[1.0, NAN], [2.0, NAN]]), {}, "column 1 must have a value"
    yield (
        "one all NaN",
        data.assign(y=data["y"].where(data["unique_id"] == "s0")),
        {"categorical": "kind"},
        "column 'y' of the series 's1' must have a value",
    )
    yield "infinite", np.array([1.0, np.inf]), {}, "must be finite"
    yield "complex", np.array([1.0, 1j]), {}, "real numbers.*complex128"
    yield "text", frame.assign(b="x"), {}, "column 'b' must have real numbers"
    yield "text in an array", np.array(["a", "b"]), {}, "real numbers"
    yield "dates as values", frame.assign(b=dates), {}, "column 'b' must have real numbers"
    yield "ragged", [[[1.0, 2.0], [3.0]]], {}, "`data\\[0\\]` must be an array"
    yield "a list of frames", [frame, frame], {}, "one with a column `unique_id`"
    yield "duplicates", pd.concat([frame, frame.iloc[3:4]]), {}, "each date once.*2024-03-30 15:00"
    yield "duplicates of a series", pd.concat([data, data.iloc[-1:]]), {}, "'s1'.*each date once"
    yield "no date", frame.set_axis(dates.where(dates != dates[3])), {}, "date in every row"
    yield "text as dates", frame.set_axis(dates.astype(str)), {}, "`pd.to_datetime` makes of text"
    yield "time zones", pd.Series([1, 2], pd.Index(mixed, dtype=object)), {}, "in one time zone"
    yield (
        "irregular",
        frame.set_axis(dates + pd.to_timedelta(np.arange(30) ** 2, "s")),
        {},
        ("regular frequency"),
    )
    yield (
        "too few dates",
        frame.iloc[[0, 3]].set_axis(pd.DatetimeIndex(["2024-01-01", "2024-01-05"])),
        {},
        "`freq=` names it",
    )
    yield "another frequency", frame, {"freq": "2h"}, "rows at the frequency 2h alone"
    yield "no frequency", frame, {"freq": "often"}, "frequency of pandas"
    yield "too fine a frequency", frame, {"freq": "s"}, "must have most of its rows"
    yield "a frequency of an array", np.zeros(3), {"freq": "h"}, "`freq` must be None"
    yield "unknown columns", frame, {"historic": ["c"]}, "without \\['c'\\]"
    yield "two roles", frame, {"target": "a", "known": ["a"]}, "each column once"
    yield "no variable", frame, {"historic": ["a", "b"]}, "leave a variable"
    yield "no dates", data.drop(columns="ds"), {}, "dates in the column 'ds'"
    yield "text as a covariate", data, {}, "'kind'.*`categorical` names"
    yield "a variable as category", frame, {"categorical": "a"}, "must name covariates"
    yield (
        "static that changes",
        data,
        {"static": ["promo"], "categorical": ["kind"]},
        ("'promo', which changes"),
    )
    yield "static of too few series", [np.zeros(3)] * 2, {"static": np.ones((1, 1))}, "one row for"


@pytest.mark.parametrize(
    ("data", "arguments", "message"), [pytest.param(*r[1:], id=r[0]) for r in refused()]
)
def test_refused(data, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        Panel.read(data, **arguments)
    assert "Received: " in str(error.value)


def later(rows=3, **kwargs):
    return hourly(rows, "2024-03-31 18:00", **kwargs)[["b"]]


def future_refused():
    yield "too late", later().iloc[1:], "every row after the last one.*19:00:00 where .*18:00:00"
    yield "gap", later().iloc[[0, 2]], "every row after the last one"
    yield "aware after naive", later(tz="UTC"), "time zone and kind of `data`"
    yield "numbers after dates", later().reset_index(drop=True), "time zone and kind of `data`"
    yield "NaN", later().assign(b=NAN), "must have every value"
    yield "column", later().rename(columns={"b": "c"}), "`future` must have the columns \\['b'\\]"
    yield "more columns", later().assign(c=1), "also \\['c'\\]"
    yield "array", np.zeros((3, 1)), "of the kind of `data`"


@pytest.mark.parametrize(
    ("future", "message"), [pytest.param(*r[1:], id=r[0]) for r in future_refused()]
)
def test_futures_refused(future, message):
    assert len(Panel.read(hourly(), known=["b"], future=later()).series[0].known) == 33
    with pytest.raises(ValueError, match=message) as error:
        Panel.read(hourly(), known=["b"], future=future)
    assert "Received: " in str(error.value)


def test_futures_of_some_series_are_refused():
    data = long().drop(columns="kind")
    with pytest.raises(ValueError, match=r"rows of every series.*'s1'"):
        Panel.read(data, known=["promo"], future=ahead(data.iloc[:6]))
    everything = pd.concat([data, ahead(data)])  # rows of the history are passed over
    assert Panel.read(data, known=["promo"], future=everything).series[0].known.shape == (8, 1)


def test_arrays_need_no_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)  # importing it is an error
    panel = Panel.read(np.arange(8.0).reshape(4, 2), known=[1], future=[[9.0]])
    assert panel.season() is None and panel.freq is None
    assert panel.frame({"mean": [np.zeros((2, 1))]}).shape == (2, 1)
