import keras

from keras_ssm.forecasting.baselines.moving_average import MovingAverage
from keras_ssm.forecasting.baselines.neural_baseline import NeuralBaseline


class DLinear(NeuralBaseline):
    """Two linear maps, one of the moving average and one of what is left of it.

    Args:
        lookback: int. Rows that a forecast reads. Defaults to `96`.
        horizon: int. Rows of a forecast. Defaults to `24`.
        width: int. Odd number of rows of the moving average. Defaults to `25`.
        **kwargs: `epochs`, `batch_size`, `learning_rate` and `seed`, as `NeuralBaseline` has them.

    Raises:
        ValueError: for sizes below 1, or an even width.

    Example:
        ```python
        x = np.sin(np.arange(200) / 5)
        y = DLinear(lookback=20, horizon=5, width=5, epochs=2).fit(x).predict()  # (5,)
        ```

    Reference:
        [Are transformers effective for time series forecasting?](https://arxiv.org/abs/2205.13504),
        section 4.1.
    """

    def __init__(self, lookback: int = 96, horizon: int = 24, width: int = 25, **kwargs):
        super().__init__(lookback, horizon, **kwargs)
        self.width = width
        MovingAverage(width)  # checks the width

    def layers(self, x: keras.KerasTensor) -> keras.KerasTensor:
        trend = MovingAverage(self.width)(x)
        rest = keras.layers.Subtract()([x, trend])
        maps = [
            keras.layers.Dense(self.horizon, kernel_initializer=initial)(part)
            for part, initial in zip((trend, rest), self.initializers(), strict=False)
        ]
        return keras.layers.Add()(maps)
