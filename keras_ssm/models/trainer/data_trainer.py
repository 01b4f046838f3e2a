import contextlib

import keras
import numpy as np
from keras import ops

from keras_ssm.models.trainer import step_metrics, targets
from keras_ssm.models.trainer.data_streams import (
    BatchConverter,
    LoadedBatches,
    PyDatasetBatches,
    are_texts,
)
from keras_ssm.models.trainer.finite_inputs import check_finite, is_tensorflow
from keras_ssm.models.trainer.tf_data import convert_tf_dataset
from keras_ssm.models.trainer.turns import turn
from keras_ssm.ops import backend


class DataTrainer:
    """`fit`, `evaluate` and `predict` on data of every kind, for backbone and task models.

    Batches of every kind pass through `_convert`, which preprocesses them, brings them to what the
    graph takes and checks them. Arrays and lists are converted whole, streams batch by batch.

    A model says what it reads by `preprocess`, `standardize`, `make_targets` and `check_targets`.
    """

    def fit(
        self,
        x: object = None,
        y: object = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: list | None = None,
        validation_split: float = 0.0,
        validation_data: object = None,
        shuffle: bool = True,
        class_weight: dict | None = None,
        sample_weight: object = None,
        **kwargs,
    ) -> keras.callbacks.History:
        """Trains the model. The arguments are those of `keras.Model.fit`.

        Args:
            x: arrays, lists of rows of different lengths, a dict with a `padding_mask`,
                `tf.data`, `keras.utils.PyDataset`, a PyTorch `DataLoader`, or any iterable
                of batches `(x, y)` or `(x, y, sample_weight)`. NaN and infinities are refused
                where the model reads them; what a mask covers may be anything.
            y: targets. With an output at every step `(batch, length)`, or a list of arrays as
                long as the rows of `x`.
            class_weight: dict from class to weight. With an output at every step it weighs
                steps, by the class of each.
            sample_weight: weight of each row; with an output at every step this counts for all
                its steps, and `(batch, length)` or a list of arrays weighs the steps.
            batch_size, epochs, verbose, callbacks, shuffle: as in Keras.
            validation_split, validation_data: as in Keras.
            **kwargs: as in Keras.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: for data that the model cannot read, and as in Keras.

        With an output at every step, padded steps and those of a loss's `ignore_class` count in
        no loss and no metric: the loss of a batch is the sum of the weighted losses of its other
        steps, divided by their number (Keras' `"sum_over_batch_size"`).
        """
        converter = BatchConverter(self, "fit", class_weight, shuffle)
        split = class_weight is not None and validation_split and validation_data is None
        if split:  # class weights act in training only
            converter.class_weight = None
        validation = BatchConverter(self, "evaluate")
        x, y, sample_weight = self._prepare(x, y, sample_weight, converter)
        if split:
            (x, y, sample_weight), validation_data = targets.split_rows(
                x, y, sample_weight, validation_split
            )
            sample_weight = targets.class_weights(self, y, sample_weight, class_weight)
            validation_split = 0.0
        elif validation_data is not None:
            parts = (validation_data, None, None)
            if isinstance(validation_data, (tuple, list)) and not are_texts(validation_data):
                if not 0 < len(validation_data) < 4:
                    raise ValueError(
                        "`validation_data` must be (x, y), (x, y, sample_weight) or a stream of "
                        f"batches. Received: {len(validation_data)} entries"
                    )
                parts = keras.utils.unpack_x_y_sample_weight(tuple(validation_data))
            validation_data = self._prepare(*parts, validation)
            if validation_data[1] is None:
                validation_data = validation_data[0]
        self.before_fit(x, y, sample_weight, validation_split)
        with self._left_intact(converter, validation):
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
                sample_weight=sample_weight,
                **kwargs,
            )
            if backend.is_stateless():
                # Averages that became the weights share their buffers, which a step gives away.
                for variable in self.trainable_variables:
                    variable.assign(ops.copy(variable.value))
        return history

    def evaluate(
        self,
        x: object = None,
        y: object = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        sample_weight: object = None,
        **kwargs,
    ) -> float | list | dict:
        """Returns loss and metrics. The arguments are those of `keras.Model.evaluate`."""
        converter = BatchConverter(self, "evaluate")
        # Inside `fit`, Keras evaluates data that `fit` has prepared.
        if not kwargs.get("_use_cached_eval_dataset"):
            x, y, sample_weight = self._prepare(x, y, sample_weight, converter)
        with self._left_intact(converter):
            return keras.Model.evaluate(
                self,
                x=x,
                y=y,
                batch_size=batch_size,
                verbose=verbose,
                sample_weight=sample_weight,
                **kwargs,
            )

    def predict(
        self, x: object, batch_size: int | None = None, verbose: str | int = "auto", **kwargs
    ) -> np.ndarray:
        """Returns the outputs as NumPy arrays. The arguments are those of `keras.Model.predict`.

        Data as in `fit`; targets of a stream are left out. A row with NaN among its valid inputs
        gives NaN and changes no other row.
        """
        converter = BatchConverter(self, "predict")
        x = self._prepare(x, None, None, converter)[0]
        with self._left_intact(converter):
            return keras.Model.predict(self, x, batch_size=batch_size, verbose=verbose, **kwargs)

    def train_on_batch(
        self,
        x: object,
        y: object = None,
        sample_weight: object = None,
        class_weight: dict | None = None,
        **kwargs,
    ) -> float | list | dict:
        """Trains on one batch; the arguments of `keras.Model.train_on_batch`, data as in `fit`."""
        batch = self._batch("fit", x, y, sample_weight, class_weight)
        with self._left_intact():
            return keras.Model.train_on_batch(self, *batch, **kwargs)

    def test_on_batch(
        self, x: object, y: object = None, sample_weight: object = None, **kwargs
    ) -> float | list | dict:
        """Evaluates one batch; the arguments of `keras.Model.test_on_batch`."""
        batch = self._batch("evaluate", x, y, sample_weight)
        with self._left_intact():
            return keras.Model.test_on_batch(self, *batch, **kwargs)

    def predict_on_batch(self, x: object) -> np.ndarray:
        """Returns the outputs of one batch as NumPy arrays."""
        batch = self._batch("predict", x)
        with self._left_intact():
            return keras.Model.predict_on_batch(self, batch[0])

    def read_inputs(self, x: object) -> object:
        """Returns inputs without paths of files, at the sampling rate of the model."""
        return x

    def preprocess(self, x: object, y: object = None, sample_weight: object = None) -> tuple:
        """Returns the data as `(x, y, sample_weight)`, preprocessed if the model does that."""
        return x, y, sample_weight

    def label_numbers(self, y: object) -> object:
        """Returns labels as numbers, where the model knows them by name."""
        return y

    def check_targets(self, y):
        """Raises a `ValueError` for targets, a NumPy array, that the loss would misread."""
        targets.check_like_outputs(self, y, self.loss)

    def before_fit(self, x, y, sample_weight, validation_split):
        """Reads settings of the model from its data before it trains; `y` is `None` for streams."""

    def before_batch(self, x, y, sample_weight):
        """Reads settings of the model from a single batch before it trains on it."""

    makes_targets = False  # whether `make_targets` makes missing targets of the inputs

    def make_targets(self, x: dict, sample_weight: object, lengths: list | None) -> tuple:
        """Returns `(x, y, sample_weight)` of inputs without targets, as the graph takes them."""
        return x, None, sample_weight

    @property
    def has_step_outputs(self):
        """Whether the model gives an output at every step."""
        return len(self.outputs[0].shape) == 3

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the loss; see `keras.Model.compute_loss`."""
        of_keras = targets.is_of_keras(getattr(self.loss, "fn", self.loss))
        if self.has_step_outputs and of_keras and hasattr(y, "shape"):
            y = step_metrics.like_outputs(y, y_pred)
        if hasattr(sample_weight, "shape"):  # Keras multiplies it in place on PyTorch
            sample_weight = ops.copy(sample_weight)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Updates the metrics; see `keras.Model.compute_metrics`.

        They leave out padding, with an output at every step, and what the loss ignores.
        """
        ignored = targets.ignored_class(self)
        valid = None
        if isinstance(x, dict) and hasattr(y, "shape"):
            # On JAX the outputs lose the mask that the graph gave them.
            if self.has_step_outputs:
                valid = getattr(self, "backbone", self).output_mask(x["padding_mask"])
            if ignored is not None:
                labels = y[..., 0] if len(y.shape) == len(y_pred.shape) else y
                counted = labels != ignored
                valid = counted if valid is None else ops.logical_and(valid, counted)
        if valid is not None and self._compile_metrics is not None:
            step_metrics.update(self._compile_metrics, y, y_pred, sample_weight, valid)
            return self.get_metrics_result()
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _convert(self, x, y=None, sample_weight=None, class_weight=None, purpose="fit"):
        """Preprocesses and checks one batch, or whole arrays."""
        x = self.read_inputs(targets.as_arrays(x))
        lengths = targets.row_lengths(x, self.input_key)
        x, y, sample_weight = self.preprocess(x, y, sample_weight)
        x = self.standardize(x)
        getattr(self, "backbone", self).check_rows(x["padding_mask"])
        if purpose == "predict":
            y = sample_weight = None
        elif y is None:
            x, y, sample_weight = self.make_targets(x, sample_weight, lengths)
        if is_tensorflow(x[self.input_key]):
            return x, y, sample_weight
        if purpose != "predict":
            if y is None and getattr(self, "loss", None) is not None:
                raise ValueError(
                    "`y` must hold the targets of `x`, which the loss reads. Received: y=None"
                )
            check_finite(x, self.input_key, getattr(self, "backbone", self).mask_inputs)
        y, sample_weight = targets.checked(self, x, y, sample_weight, lengths)
        return x, y, targets.class_weights(self, y, sample_weight, class_weight)

    def _batch(self, purpose, x, y=None, sample_weight=None, class_weight=None):
        """One batch, converted as `fit` does, as tensors."""
        parts = self._convert(x, y, sample_weight, class_weight, purpose)
        if purpose == "fit":
            self.before_batch(*parts)
        return keras.tree.map_structure(
            lambda part: None if part is None else ops.convert_to_tensor(part), parts
        )

    def _prepare(self, x, y, sample_weight, converter):
        """Brings any data to what `keras.Model.fit` takes, by the `BatchConverter` given."""
        stream = None
        if is_tensorflow(x) and hasattr(x, "element_spec"):
            stream = convert_tf_dataset(self, x, converter)
        elif isinstance(x, keras.utils.PyDataset):
            stream = PyDatasetBatches(x, converter)
        elif not isinstance(x, (list, tuple, dict, str, bytes)) and not hasattr(x, "shape"):
            if not hasattr(x, "__iter__"):
                raise ValueError(
                    "`x` must be arrays, a list of rows, a dict, or an iterable of batches. "
                    f"Received: x={x} of type {type(x).__name__}"
                )
            stream = LoadedBatches(x, converter)
        if stream is not None:
            if y is not None or sample_weight is not None:
                raise ValueError(
                    "A dataset yields its own targets: pass `x` alone. "
                    f"Received: y of type {type(y).__name__}"
                )
            return stream, None, None
        if converter.purpose == "fit" and y is None and not self.makes_targets:
            raise ValueError(
                "`y` must hold the targets of `x`; batches with their own come from a dataset, "
                "a loader or a generator, not from a list. Received: y=None"
            )
        return self._convert(x, y, sample_weight, converter.class_weight, converter.purpose)

    # On JAX the trainer empties the variables while it runs, and a refused call would leave them
    # empty. To keep their values costs nothing: the first step takes their buffers.
    def _purge_model_variables(self, **kinds):
        pass

    # Where no weight changes, the trainer gets copies to give away, so that other threads may read
    # the weights meanwhile.
    def _get_jax_state(self, optimizer_variables=False, **kinds):
        state = super()._get_jax_state(optimizer_variables=optimizer_variables, **kinds)
        return state if optimizer_variables else keras.tree.map_structure(ops.copy, state)

    @contextlib.contextmanager
    def _left_intact(self, *converters):
        """Leaves a model that works when a call of the trainer fails; see `turn` for threads."""
        with turn(self) as is_alone:
            try:
                yield
            except BaseException as error:
                if backend.is_stateless():
                    self.jax_state_sync()
                if is_alone():
                    # A traced function that failed half-way does not run again.
                    self.train_function = self.test_function = self.predict_function = None
                for refused in (converter.refused for converter in converters):
                    if refused is not None and refused is not error:
                        raise refused from None  # TensorFlow wraps the error of a refused batch
                raise
