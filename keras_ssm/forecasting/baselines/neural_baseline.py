import itertools
from collections.abc import Iterator

import keras
import numpy as np

from keras_ssm.checks import check_number, check_positive
from keras_ssm.forecasting.baselines.baseline import Baseline
from keras_ssm.forecasting.baselines.series_facts import SeriesFacts
from keras_ssm.forecasting.baselines.window_batches import WindowBatches


class NeuralBaseline(Baseline):
    """Base of the baselines that a Keras model makes of a window: one for all variables.

    It trains on the square error by Adam, in steps that halve from epoch to epoch, and keeps the
    weights of the epoch that was best on the validation part.

    Args:
        lookback: int. Rows that a forecast reads. Defaults to `96`.
        horizon: int. Rows of a forecast. Defaults to `24`.
        epochs: int. Most epochs; three without an improvement end the training. Defaults to `10`.
        batch_size: int. Windows of a step. Defaults to `64`.
        learning_rate: float. Step size of the first epoch. Defaults to `5e-3`.
        seed: int. Seed of the initial weights and of the order of the windows. Defaults to `0`.

    Raises:
        ValueError: for sizes below 1.
    """

    def __init__(
        self,
        lookback: int = 96,
        horizon: int = 24,
        epochs: int = 10,
        batch_size: int = 64,
        learning_rate: float = 5e-3,
        seed: int = 0,
    ):
        super().__init__(horizon)
        self.lookback, self.epochs, self.batch_size = check_positive(
            lookback=lookback, epochs=epochs, batch_size=batch_size
        )
        check_number("learning_rate", learning_rate, low=0)
        self.learning_rate, self.seed = learning_rate, seed
        self.model = None

    learns = True

    @property
    def reads(self):
        return self.lookback

    def layers(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """The model's layers, seeded by `initializer`.

        Args:
            x: symbolic tensor `(batch, lookback)`, in units of the training part's deviation, its
                mean taken off.

        Returns:
            Symbolic tensor `(batch, horizon)`.
        """
        raise NotImplementedError(f"{type(self).__name__} must have `layers`")

    def initializers(self) -> Iterator[keras.initializers.Initializer]:
        """Yields initial weights like those of PyTorch, each with a seed of its own."""
        for number in itertools.count():
            seed = self.seed + 1_000_003 * number
            yield keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=seed)

    def learn(self, verbose: int | str) -> None:
        x = keras.Input((self.lookback,))
        self.model = keras.Model(x, keras.layers.Reshape((self.horizon, 1))(self.layers(x)))
        optimizer = keras.optimizers.Adam(self.learning_rate)
        self.model.compile(optimizer=optimizer, loss="mse")
        stop_early = keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True)
        halve_rate = keras.callbacks.LearningRateScheduler(lambda n: self.learning_rate * 0.5**n)
        self.history = self.model.fit(
            WindowBatches(self.pairs("train"), self.batch_size, self.seed),
            validation_data=WindowBatches(self.pairs("validation"), 4 * self.batch_size),
            epochs=self.epochs,
            callbacks=[stop_early, halve_rate],
            shuffle=False,  # `WindowBatches` shuffles by the seed
            verbose=verbose,
        )

    def forecast(self, values: np.ndarray, origins: np.ndarray, fitted: SeriesFacts) -> np.ndarray:
        views = np.lib.stride_tricks.sliding_window_view(values, self.lookback, axis=0)
        x = (views[origins - self.lookback] - fitted.mean[:, None]) / fitted.scale[:, None]
        flat = x.reshape(-1, self.lookback).astype("float32")
        y = self.model.predict(flat, batch_size=1024, verbose=0)
        y = y.reshape(*x.shape[:2], self.horizon).astype("float64")
        return np.moveaxis(y * fitted.scale[:, None] + fitted.mean[:, None], -1, 1)
