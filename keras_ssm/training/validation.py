from collections.abc import Callable

import keras


class Validation(keras.callbacks.Callback):
    """Scores the model after every epoch, as `val_<metric>` among the values of the epoch.

    Args:
        score: callable. Returns the scores of a model as a dict.
    """

    def __init__(self, score: Callable[[keras.Model], dict[str, float]]):
        super().__init__()
        self.score = score

    def on_epoch_end(self, epoch, logs=None):
        logs |= {f"val_{name}": value for name, value in self.score(self.model).items()}
