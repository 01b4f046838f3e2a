"""Streams of batches, converted as arrays are."""

import contextlib
import itertools
import sys

import keras

from keras_ssm.keras_internals import DataAdapter, PyDatasetAdapter, get_torch_dataloader


class BatchConverter:
    """Converts batches for `fit`, `evaluate` or `predict`, and keeps the error of a refused one.

    Args:
        model: the model whose `_convert` it applies.
        purpose: str. `"fit"`, `"evaluate"` or `"predict"`, which needs no targets.
        class_weight: dict or `None`.
        shuffle: bool. Whether the batches of a `PyDataset` are shuffled.
    """

    def __init__(self, model, purpose, class_weight=None, shuffle=False):
        self.model, self.purpose = model, purpose
        self.class_weight, self.shuffle = class_weight, shuffle
        self.refused = None

    def __call__(self, batch):
        """Returns a batch as a tuple `(x,)`, `(x, y)` or `(x, y, sample_weight)`."""
        with self.remembering():
            x, y, sample_weight = self.unpacked(batch)
            return packed(
                *self.model._convert(x, y, sample_weight, self.class_weight, self.purpose)
            )

    def unpacked(self, batch):
        """Returns the parts of a batch that the purpose needs, `None` for the others."""
        parts = isinstance(batch, (tuple, list)) and not are_texts(batch)
        batch = tuple(batch) if parts else (batch,)
        if not 0 < len(batch) < 4:
            raise ValueError(
                "A batch must be x, or a tuple (x,), (x, y) or (x, y, sample_weight); a list of "
                f"rows goes into one of them. Received: {len(batch)} entries"
            )
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        if self.purpose == "predict":
            return x, None, None
        if self.purpose == "fit" and y is None and not self.model.makes_targets:
            raise ValueError("A batch to train on must be (x, y). Received: y=None")
        return x, y, sample_weight

    @contextlib.contextmanager
    def remembering(self):
        """Keeps a `ValueError`, which TensorFlow would hand on as another kind."""
        try:
            yield
        except ValueError as error:
            self.refused = error
            raise

    def signature(self, batch):
        """Returns the specification of batches for TensorFlow, of any number of rows and steps."""
        import tensorflow as tf

        x, *rest = batch
        inputs = self.model.input
        specs = {
            key: tf.TensorSpec((None, *inputs[key].shape[1:]), value.dtype)
            for key, value in x.items()
        }
        free = 2 if self.model.has_step_outputs else 1

        def spec(value):
            shape = [None] * min(free, value.ndim) + list(value.shape[free:])
            return tf.TensorSpec(shape, value.dtype)

        return (specs, *(keras.tree.map_structure(spec, value) for value in rest))


class LoadedBatches(DataAdapter):
    """Any iterable of batches: loaders of PyTorch and of others, generators, lists of batches.

    What can be read again is read anew every epoch.
    """

    def __init__(self, batches, convert):
        self._length = _length(batches)
        once = iter(batches) is batches if hasattr(batches, "__next__") else False
        self._batches = _Once(batches) if once else batches
        self._convert = convert

    def __iter__(self):
        return map(self._convert, self._batches)

    def get_numpy_iterator(self):
        return iter(self)

    def get_jax_iterator(self):
        return iter(self)

    def get_torch_dataloader(self):
        return get_torch_dataloader(self)

    def get_tf_dataset(self):
        import tensorflow as tf

        signature = self._convert.signature(next(iter(self)))
        dataset = tf.data.Dataset.from_generator(lambda: self, output_signature=signature)
        return dataset.prefetch(tf.data.AUTOTUNE)

    @property
    def num_batches(self):
        return self._length

    @property
    def batch_size(self):
        return None

    @property
    def has_partial_batch(self):
        return None

    @property
    def partial_batch_size(self):
        return None


class _Once:
    """An iterator that gives its first batch twice, since Keras looks at it before it trains."""

    def __init__(self, iterator):
        self.first = list(itertools.islice(iterator, 1))
        self.rest = iterator
        if not self.first:
            raise ValueError("`x` must yield at least one batch. Received: an exhausted iterator")

    def __iter__(self):
        yield from self.first
        for batch in self.rest:
            self.first = []
            yield batch


class _ConvertedDataset(keras.utils.PyDataset):
    """A `PyDataset` whose batches are converted."""

    def __init__(self, dataset, convert):
        super().__init__(
            workers=dataset.workers,
            use_multiprocessing=dataset.use_multiprocessing,
            max_queue_size=dataset.max_queue_size,
        )
        self.dataset, self.convert = dataset, convert

    @property
    def num_batches(self):
        return self.dataset.num_batches

    def __getitem__(self, index):
        return self.convert(self.dataset[index])

    def on_epoch_begin(self):
        self.dataset.on_epoch_begin()

    def on_epoch_end(self):
        self.dataset.on_epoch_end()


class PyDatasetBatches(PyDatasetAdapter):
    """A `keras.utils.PyDataset` with converted batches, its own workers and callbacks."""

    def __init__(self, dataset, convert):
        super().__init__(_ConvertedDataset(dataset, convert), shuffle=convert.shuffle)

    def get_tf_dataset(self):
        if self._output_signature is None:  # Keras would expect the lengths of two batches in all
            dataset = self.py_dataset
            self._output_signature = dataset.convert.signature(dataset[0])
        return super().get_tf_dataset()


def are_texts(batch):
    """Whether data is a list or tuple of texts, as loaders make it, and no x and y."""
    return len(batch) > 0 and all(isinstance(text, (str, bytes)) for text in batch)


def packed(x, y, sample_weight):
    """A tuple without the trailing parts that are missing; always a tuple."""
    if sample_weight is not None:
        return x, y, sample_weight
    return (x,) if y is None else (x, y)


def _length(batches):
    """The number of batches of an epoch, or `None`."""
    try:
        length = len(batches)
    except (TypeError, NotImplementedError):
        return None
    if length == 0:
        raise ValueError("`x` must yield at least one batch. Received: an empty iterable")
    return length if length < sys.maxsize // 2 else None  # grain gives this length to endless data
