"""An electrocardiogram, forecast a second ahead while it is read."""

import time

import keras
import numpy as np
from scipy import signal

from keras_ssm import datasets, plotting
from keras_ssm.demo.comparing import largest_difference, loaded
from keras_ssm.models import SSMForecaster

RATE = 90  # rows a second, as the preset was trained
CHUNK = RATE // 10  # a tenth of a second
UNIT_ROWS = 10 * RATE  # rows whose mean and deviation are the units
PICTURED_ROWS = 25 * RATE  # where the picture's forecast begins


def run(preset, out, console):
    """Loads a preset, streams with a stop between, compares with simpler forecasts, and plots."""
    record = datasets.ecg()
    rows = signal.decimate(record.samples.astype("float64"), 4, ftype="fir", axis=0)
    seconds = len(rows) / RATE
    console.rule(f"[bold]{preset}[/bold] on {keras.config.backend()}")
    model = loaded(SSMForecaster, preset, console)
    console.print(
        f"record 106 of MIT-BIH: {seconds:.0f} s of {len(record.leads)} leads, "
        f"{record.classes.count('N')} normal beats and {record.classes.count('V')} of the "
        "ventricles; the preset has not learned from it"
    )

    units = (rows[:UNIT_ROWS].mean(axis=0), rows[:UNIT_ROWS].std(axis=0))
    stream = model.stream(units=units)
    stream(rows[:CHUNK])  # compiles before the time is taken
    stream.reset()
    middle = len(rows) // CHUNK // 2 * CHUNK
    start, first_half = time.perf_counter(), read(stream, rows[:middle])
    chunk_time = (time.perf_counter() - start) / (middle // CHUNK)
    stream.save(out / "half.npz")
    size = (out / "half.npz").stat().st_size
    console.print(
        f"a tenth of a second of both leads was read in {1000 * chunk_time:.1f} ms, the state is a "
        f"file of {size / 1000:.0f} kB"
    )
    stream = model.stream(units=units)
    stream.load(out / "half.npz")
    forecasts = np.concatenate([first_half, read(stream, rows[middle:])])
    whole = model.stream(units=units)(rows)[0]
    error = largest_difference(forecasts, whole)
    console.print(
        "streamed with a stop in the middle: the forecasts differ from those of the whole "
        f"recording at once by {error:.1e} of the largest"
    )
    if error > 1e-4:
        raise RuntimeError(f"streamed and parallel forecasts differ by {error:.1e}")

    for name, value in errors(forecasts, rows, units).items():
        console.print(f"square error over the next second: {value:.3f}  {name}", highlight=False)

    forecast = model.predict(rows[:PICTURED_ROWS], levels=80)
    directory = out / f"{model.backbone.facts()['system'].lower()}_ecg_copy"
    model.save_to_preset(directory)
    reloaded = SSMForecaster.from_preset(directory).predict(rows[:PICTURED_ROWS], levels=80)
    error = largest_difference(reloaded["mean"], forecast["mean"])
    if error > 1e-5:
        raise RuntimeError(f"the saved copy forecasts otherwise: {error:.1e}")
    console.print(
        f"saved to {directory} and loaded again: predictions equal (largest difference {error:.1e})"
    )
    pictures = {
        "forecast.png": plotting.plot_forecast(
            rows[:PICTURED_ROWS], forecast, rows[PICTURED_ROWS : PICTURED_ROWS + model.horizon]
        ),
        "eigenvalues.png": plotting.plot_eigenvalues(model),
        "kernels.png": plotting.plot_kernels(model.backbone.blocks[0].mixer),
    }
    for name, figure in pictures.items():
        figure.savefig(out / name, dpi=120)
    console.print(f"pictures: {', '.join(str(out / name) for name in pictures)}")


def read(stream, rows):
    """Reads rows in chunks; returns the forecast after each, `(rows, horizon, variables)`."""
    parts = [stream(rows[i : i + CHUNK])[0] for i in range(0, len(rows), CHUNK)]
    return np.concatenate(parts)


def errors(forecasts, rows, units):
    """Mean square errors, in the given units, of the forecasts and of two that need no model.

    Args:
        forecasts: array `(rows, horizon, variables)`. After each row.
        rows: array `(rows, variables)`.
        units: tuple of two arrays `(variables,)`.

    Returns:
        Dict from the name of a forecast to its error over all rows after the first `UNIT_ROWS`.
    """
    horizon = forecasts.shape[1]
    windows = np.lib.stride_tricks.sliding_window_view(rows[UNIT_ROWS:], horizon, axis=0)
    actual = np.moveaxis(windows, 2, 1)
    origins = slice(UNIT_ROWS - 1, UNIT_ROWS - 1 + len(actual))
    by_name = {
        "the preset": forecasts[origins],
        "the last value, repeated": rows[origins, None],
        "the mean of the first seconds": units[0],
    }
    return {
        name: float((((forecast - actual) / units[1]) ** 2).mean())
        for name, forecast in by_name.items()
    }
