"""Batches of windows for Keras, which are cut as they are needed."""

import keras
import numpy as np


class WindowBatches(keras.utils.PyDataset):
    """Windows of many series in batches `(batch, reads)`, `(batch, horizon, 1)` and a mask.

    Nothing is copied before its batch is asked for, and the last batch, which may be smaller, is
    one of them. Targets that are missing are 0 and weigh nothing.

    Args:
        pairs: list of arrays `(n, reads)` and `(n, horizon)`, NaN where a target is unknown.
        batch_size: int. Windows of a batch.
        seed: int or `None`. `None` keeps the order; otherwise each epoch has its own.
            Defaults to `None`.
    """

    def __init__(self, pairs, batch_size, seed=None):
        super().__init__()
        self.pairs = list(pairs)
        self.batch_size = batch_size
        self.seed = seed
        self.ends = np.cumsum([len(x) for x, _ in self.pairs])
        self.epoch = 0
        self._shuffle()

    def __len__(self):
        return -(-int(self.ends[-1]) // self.batch_size)

    def __getitem__(self, index):
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        series_number = np.searchsorted(self.ends, chosen, side="right")
        xs, ys = [], []
        for number in np.unique(series_number):
            x, y = self.pairs[number]
            rows = chosen[series_number == number] - (self.ends[number] - len(x))
            xs.append(x[rows])
            ys.append(y[rows])
        y = np.concatenate(ys)
        known = ~np.isnan(y)
        y = np.where(known, y, 0.0)[..., None]
        return np.concatenate(xs).astype("float32"), y.astype("float32"), known.astype("float32")

    def on_epoch_end(self):
        self.epoch += 1
        self._shuffle()

    def _shuffle(self):
        self.order = np.arange(self.ends[-1])
        if self.seed is not None:
            np.random.default_rng([self.seed, self.epoch]).shuffle(self.order)
