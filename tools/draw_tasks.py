"""Draws the pictures of docs/tasks: `python tools/draw_tasks.py`. They take some minutes."""

from pathlib import Path

import keras
import numpy as np

from keras_ssm import layers, models, plotting
from keras_ssm.plotting.figures import subplots

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"


def main():
    pictures = {
        "regression.png": regression,
        "forecast.png": forecast,
        "scikit_learn.png": confusion,
    }
    for name, draw in pictures.items():
        figure = draw()
        figure.savefig(IMAGES / name, dpi=100)
        print(IMAGES / name)


def waves(count, seed):
    """Noisy waves of different lengths, sampled a hundred times a second, and their hertz."""
    rng = np.random.default_rng(seed)
    hertz = rng.uniform(2.0, 12.0, size=count)
    times = [np.arange(n) / 100 for n in rng.integers(60, 120, size=count)]
    rows = [
        np.sin(2 * np.pi * f * t + rng.uniform(0, 6)) + 0.1 * rng.normal(size=len(t))
        for f, t in zip(hertz, times, strict=True)
    ]
    return rows, hertz


def regression():
    """Frequencies that a regressor finds, over the true ones."""
    keras.utils.set_random_seed(0)
    x, y = waves(400, seed=0)
    test, hertz = waves(200, seed=1)
    backbone = models.SSMBackbone(layers.S4D(state_dim=16, seed=0), num_layers=1, hidden_dim=16)
    model = models.SSMRegressor(backbone)
    model.fit(x, y, batch_size=16, epochs=60, verbose=0)
    found = model.predict(test, verbose=0)[:, 0]
    figure, axes = subplots(1, 1, figsize=(5, 5))
    axis = axes[0, 0]
    axis.plot([2, 12], [2, 12], "k--", linewidth=0.9)
    axis.plot(hertz, found, ".", markersize=5)
    error = np.abs(found - hertz).mean()
    axis.set(xlabel="frequency, Hz", ylabel="found by the model, Hz")
    axis.set_title(f"200 test waves, mean absolute error {error:.2f} Hz")
    figure.tight_layout()
    return figure


def forecast():
    """Two years of carbon dioxide with their intervals, and what came."""
    from statsmodels.datasets import co2

    keras.utils.set_random_seed(0)
    data = co2.load_pandas().data
    train = data[:-228]
    model = models.SSMForecaster(lookback=104, horizon=104)
    model.fit(train, epochs=10, verbose=0)
    figure = plotting.plot_forecast(train, model.predict(levels=(80, 95)), data)
    figure.axes[0].set_ylabel("CO2, parts per million")
    figure.tight_layout()
    return figure


def shapes(count, seed):
    """Noisy waves of four shapes and of different lengths, and the names of the shapes."""
    rng = np.random.default_rng(seed)
    rows, names = [], rng.choice(["sine", "square", "saw", "triangle"], size=count)
    for name in names:
        turn = (np.arange(rng.integers(60, 120)) / rng.uniform(12, 24) + rng.uniform()) % 1
        wave = {
            "sine": np.sin(2 * np.pi * turn),
            "square": np.sign(0.5 - turn),
            "saw": 2 * turn - 1,
            "triangle": 4 * np.abs(turn - 0.5) - 1,
        }[name]
        rows.append(wave + 0.3 * rng.normal(size=len(turn)))
    return rows, names


def confusion():
    """Which shapes of waves an estimator takes for which."""
    from keras_ssm.sklearn import SSMClassifierEstimator

    x, y = shapes(400, seed=0)
    test, names = shapes(400, seed=1)
    settings = {"num_layers": 1, "hidden_dim": 16, "state_dim": 16, "epochs": 30}
    estimator = SSMClassifierEstimator(**settings, random_state=0).fit(x, y)
    return plotting.plot_confusion_matrix(names, estimator.predict(test), estimator.classes_)


if __name__ == "__main__":
    main()
