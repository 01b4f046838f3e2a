import contextlib
import inspect

import keras
import numpy as np
from keras import ops

from keras_ssm.models.turns import turn


class DataTrainer:
    """`fit`, `evaluate` and `predict` on data of every kind, for backbone and task models.

    A model says how a batch becomes its input: `preprocess`, `standardize` and `check_targets`.
    """

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        **kwargs,
    ):
        """Trains the model; the arguments of `keras.Model.fit`."""
        x, y, sample_weight = self._prepare(x, y, sample_weight, training=True)
        if isinstance(validation_data, (tuple, list)):
            parts = keras.utils.unpack_x_y_sample_weight(tuple(validation_data))
            validation_data = _packed(*self._prepare(*parts))
        elif validation_data is not None:
            validation_data = self._prepare(validation_data)[0]
        with self._left_intact():
            history = keras.Model.fit(
                self,
                x=x,
                y=y,
                batch_size=batch_size,
                epochs=epochs,
                verbose=verbose,
                callbacks=callbacks,
                validation_split=validation_split,
                validation_data=validation_data,
                shuffle=shuffle,
                class_weight=class_weight,
                sample_weight=sample_weight,
                **kwargs,
            )
        if keras.config.backend() == "jax":
            # Averages that became the weights share their buffers, which a step gives away.
            for variable in self.trainable_variables:
                variable.assign(ops.copy(variable.value))
        return history

    def evaluate(
        self, x=None, y=None, batch_size=None, verbose="auto", sample_weight=None, **kwargs
    ):
        """Returns loss and metrics; the arguments of `keras.Model.evaluate`."""
        # Within `fit` Keras evaluates data that was prepared there.
        if not kwargs.get("_use_cached_eval_dataset"):
            x, y, sample_weight = self._prepare(x, y, sample_weight)
        with self._left_intact():
            return keras.Model.evaluate(
                self,
                x=x,
                y=y,
                batch_size=batch_size,
                verbose=verbose,
                sample_weight=sample_weight,
                **kwargs,
            )

    def predict(self, x, batch_size=None, verbose="auto", **kwargs):
        """Returns the outputs as NumPy arrays; the arguments of `keras.Model.predict`."""
        x = self._prepare(x)[0]
        with self._left_intact():
            return keras.Model.predict(self, x, batch_size=batch_size, verbose=verbose, **kwargs)

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, **kwargs):
        """Trains on one batch; the arguments of `keras.Model.train_on_batch`."""
        batch = self._batch(x, y, sample_weight)
        with self._left_intact():
            return keras.Model.train_on_batch(self, *batch, class_weight=class_weight, **kwargs)

    def test_on_batch(self, x, y=None, sample_weight=None, **kwargs):
        """Evaluates one batch; the arguments of `keras.Model.test_on_batch`."""
        batch = self._batch(x, y, sample_weight)
        with self._left_intact():
            return keras.Model.test_on_batch(self, *batch, **kwargs)

    def predict_on_batch(self, x):
        """Returns the outputs of one batch as NumPy arrays."""
        batch = self._batch(x)
        with self._left_intact():
            return keras.Model.predict_on_batch(self, batch[0])

    def preprocess(self, x, y=None, sample_weight=None):
        """Returns the data as `(x, y, sample_weight)`, preprocessed if the model does that."""
        return x, y, sample_weight

    def check_targets(self, y):
        """Raises a `ValueError` for targets, a NumPy array, that the loss would misread."""

    def _convert(self, x, y=None, sample_weight=None):
        """Preprocesses and checks one batch, or whole arrays."""
        x, y, sample_weight = self.preprocess(x, y, sample_weight)
        x = self.standardize(x)
        rows = x[self.input_key].shape[0]
        y = _checked_rows("y", y, rows)
        sample_weight = _checked_rows("sample_weight", sample_weight, rows)
        if isinstance(y, np.ndarray):
            self.check_targets(y)
        return x, y, sample_weight

    def _batch(self, x, y=None, sample_weight=None):
        """One batch, converted as `fit` does, as tensors."""
        return keras.tree.map_structure(
            lambda part: None if part is None else ops.convert_to_tensor(part),
            self._convert(x, y, sample_weight),
        )

    def _convert_batch(self, *batch):
        return _packed(*self._convert(*keras.utils.unpack_x_y_sample_weight(batch)))

    def _prepare(self, x, y=None, sample_weight=None, training=False):
        """Brings any data to what `keras.Model.fit` takes."""
        stream = None
        if is_tensorflow(x) and hasattr(x, "element_spec"):
            stream = x.map(self._convert_batch)
        elif isinstance(x, keras.utils.PyDataset):
            stream = _ConvertedDataset(x, self._convert_batch)
        elif inspect.isgenerator(x):
            stream = (self._convert_batch(*_as_batch(batch)) for batch in x)
        if stream is not None:
            if y is not None or sample_weight is not None:
                raise ValueError(
                    "A dataset yields its own targets: pass `x` alone. "
                    f"Received: y of type {type(y).__name__}"
                )
            return stream, None, None
        if x is None:
            raise ValueError("`x` must be data. Received: x=None")
        if not isinstance(x, (list, tuple, dict, str, bytes)) and not hasattr(x, "shape"):
            # A loader of another library: its batches reach the model as they are.
            return x, y, sample_weight
        if training and y is None:
            raise ValueError("`y` must hold the targets of `x`. Received: y=None")
        return self._convert(x, y, sample_weight)

    # On JAX the trainer empties the variables while it runs, and a call that it refuses would
    # leave them empty. Kept, they cost nothing: their buffers are donated to the first step.
    def _purge_model_variables(self, **kinds):
        pass

    # It gives them away, too: copies of them where nothing changes, so that other threads may read
    # the weights meanwhile.
    def _get_jax_state(self, optimizer_variables=False, **kinds):
        state = super()._get_jax_state(optimizer_variables=optimizer_variables, **kinds)
        return state if optimizer_variables else keras.tree.map_structure(ops.copy, state)

    @contextlib.contextmanager
    def _left_intact(self):
        """Leaves a model that works when a call of the trainer fails; see `turn` for threads."""
        with turn(self) as is_alone:
            try:
                yield
            except BaseException:
                if keras.config.backend() == "jax":
                    self.jax_state_sync()
                if is_alone():
                    # A traced function that failed half-way does not run again.
                    self.train_function = self.test_function = self.predict_function = None
                raise


class _ConvertedDataset(keras.utils.PyDataset):
    """A `PyDataset` whose batches are preprocessed."""

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
        return self.convert(*_as_batch(self.dataset[index]))

    def on_epoch_begin(self):
        self.dataset.on_epoch_begin()

    def on_epoch_end(self):
        self.dataset.on_epoch_end()


def _checked_rows(name, value, rows):
    """Targets or weights as an array with one entry a row; tensors of a graph as they are."""
    if value is None or is_tensorflow(value) or isinstance(value, dict):
        return value
    value = value if isinstance(value, np.ndarray) else ops.convert_to_numpy(value)
    if value.dtype.kind not in "fiub":
        raise ValueError(f"`{name}` must be numbers. Received: {name}.dtype={value.dtype}")
    if value.ndim == 0 or (rows is not None and len(value) != rows):
        raise ValueError(
            f"`{name}` must have one entry for each of the {rows} rows of `x`. "
            f"Received: {name}.shape={value.shape}"
        )
    return value


def is_tensorflow(x):
    """Whether x is TensorFlow's, a tensor or a dataset, whatever backend runs."""
    return type(x).__module__.startswith("tensorflow.")


def _as_batch(batch):
    return batch if isinstance(batch, (tuple, list)) else (batch,)


def _packed(x, y, sample_weight):
    """A tuple without the trailing parts that are missing; always a tuple."""
    if sample_weight is not None:
        return x, y, sample_weight
    return (x,) if y is None else (x, y)
