import keras
import numpy as np


class EpochData(keras.utils.PyDataset):
    """Batches that depend on the seed, the number of the epoch and their place in it alone.

    Training that was interrupted goes on with the batches that it would have seen. Within a run
    the epoch is set by `FollowEpochs`.

    Args:
        seed: int. Seed of the run.
        batches: int. Batches an epoch.

    Example:
        ```python
        class Noise(keras_ssm.training.EpochData):
            def batch(self, rng):
                return rng.standard_normal((4, 10, 1)), rng.integers(2, size=4)

        data = Noise(seed=0, batches=100)
        x, y = data[3]
        ```
    """

    def __init__(self, seed: int, batches: int):
        super().__init__()
        self.seed = seed
        self.batches = batches
        self.epoch = 0

    def __len__(self):
        return self.batches

    def __getitem__(self, index):
        return self.batch(np.random.default_rng([self.seed, self.epoch, index]))

    def batch(self, rng: np.random.Generator) -> tuple:
        """Returns `(x, y)`, drawn by `rng` alone."""
        raise NotImplementedError


class FollowEpochs(keras.callbacks.Callback):
    """Tells an `EpochData` which epoch begins.

    Args:
        data: `EpochData`.
    """

    def __init__(self, data: EpochData):
        super().__init__()
        self.data = data

    def on_epoch_begin(self, epoch, logs=None):
        self.data.epoch = epoch
