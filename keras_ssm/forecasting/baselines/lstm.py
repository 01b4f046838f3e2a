import keras
from keras import ops

from keras_ssm.checks import check_positive
from keras_ssm.forecasting.baselines.neural_baseline import NeuralBaseline


class LSTM(NeuralBaseline):
    """One LSTM over the window, less its last value, and a linear map of its last output.

    Args:
        lookback: int. Rows that a forecast reads. Defaults to `96`.
        horizon: int. Rows of a forecast. Defaults to `24`.
        units: int. Width of the LSTM. Defaults to `64`.
        **kwargs: `epochs`, `batch_size`, `learning_rate` and `seed`, as `NeuralBaseline` has them.

    Raises:
        ValueError: for sizes below 1.

    Example:
        ```python
        x = np.sin(np.arange(120) / 5)
        y = LSTM(lookback=20, horizon=5, units=4, epochs=1).fit(x).predict()  # (5,)
        ```

    Reference:
        S. Hochreiter and J. Schmidhuber (1997), Long short-term memory, Neural Computation 9.
    """

    def __init__(self, lookback: int = 96, horizon: int = 24, units: int = 64, **kwargs):
        super().__init__(lookback, horizon, **kwargs)
        (self.units,) = check_positive(units=units)

    def layers(self, x: keras.KerasTensor) -> keras.KerasTensor:
        kernel, recurrent, readout = (
            initial for initial, _ in zip(self.initializers(), range(3), strict=False)
        )
        last = x[:, -1:]
        steps = ops.expand_dims(x - last, -1)
        layer = keras.layers.LSTM(
            self.units, kernel_initializer=kernel, recurrent_initializer=recurrent
        )
        y = keras.layers.Dense(self.horizon, kernel_initializer=readout)(layer(steps))
        return y + last
