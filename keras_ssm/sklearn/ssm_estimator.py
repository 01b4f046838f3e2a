import contextlib
import inspect
import random

import keras
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from keras_ssm.checks import check_choice, check_flags, check_number, check_positive
from keras_ssm.layers.sequence_pooling import POOLINGS
from keras_ssm.models import SSMBackbone
from keras_ssm.optimizers import ssm_optimizer
from keras_ssm.sklearn.sequences import read_sequences
from keras_ssm.training import cosine, make_mixer

OF_NAMED_SYSTEMS = ("state_dim", "dt_range", "bidirectional")


class SSMEstimator(BaseEstimator):
    """Base of the estimators: checks of parameters, reading of inputs, and training.

    A derived class makes its model in `make_task` and reads its targets in `read_targets`.
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.non_deterministic = self.random_state is None
        return tags

    def make_task(self, backbone, y):
        """Returns the compiled model for a backbone and targets as `read_targets` returned them."""
        raise NotImplementedError

    def read_targets(self, y, count):
        """Returns targets as the model takes them, one for each of `count` sequences."""
        raise NotImplementedError

    def strata(self, y):
        """Labels whose shares a split of the data keeps, or `None`."""
        return None

    def fit(self, X: object, y: object, sample_weight: object = None):
        """Trains a new model.

        Args:
            X: sequences; see the class.
            y: their targets.
            sample_weight: array `(cases,)` or `None`. Weight of each sequence in the loss.

        Returns:
            The estimator.

        Raises:
            ValueError: for invalid parameters, sequences or targets.
        """
        self._check_parameters()
        rows = read_sequences(self, X, fitting=True)
        y = self.read_targets(y, len(rows))
        weights = self._weights(rows, y, sample_weight)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        all_steps = np.concatenate(rows)
        self.input_mean_ = np.zeros(self.n_channels_)
        self.input_scale_ = np.ones(self.n_channels_)
        if self.standardize:
            deviation = all_steps.std(axis=0, dtype="float64")
            self.input_mean_ = all_steps.mean(axis=0, dtype="float64")
            self.input_scale_ = np.where(deviation > 0, deviation, 1.0)
        with _own_seed(seed):
            self.model_ = self._new_model(rows, y, seed)
            self._train(self._inputs(rows), y, weights, seed)
        return self

    def _weights(self, rows, y, sample_weight):
        if sample_weight is None:
            return None
        return _check_sample_weight(sample_weight, np.zeros((len(rows), 1)), dtype="float64")

    def _new_model(self, rows, y, seed):
        mixer = self.system
        if isinstance(mixer, str):
            settings = {"state_dim": self.state_dim, "seed": seed % 2**16}
            if self.bidirectional:
                settings["bidirectional"] = True
            # The inputs set the dt of Mamba.
            if self.dt_range != "auto" or not mixer.startswith("mamba"):
                settings["dt_min"], settings["dt_max"] = self._dt_range(rows)
            mixer = make_mixer(mixer, **settings)
        backbone = SSMBackbone(
            mixer,
            num_layers=self.num_layers,
            hidden_dim=self.hidden_dim,
            input_dim=self.n_channels_,
            dropout=self.dropout,
        )
        return self.make_task(backbone, y)

    def _dt_range(self, rows):
        if not isinstance(self.dt_range, str):
            return self.dt_range
        length = float(np.median([len(row) for row in rows]))
        return min(0.1, 1 / length), max(0.1, min(1.0, 10 / length))

    def _train(self, inputs, y, weights, seed):
        held_out, callbacks = None, []
        if self.early_stopping:
            train, held_out_rows = train_test_split(
                np.arange(len(y)),
                test_size=self.validation_fraction,
                stratify=self.strata(y),
                random_state=seed,
            )
            held_out = _select(held_out_rows, inputs, y, weights)
            inputs, y, weights = _select(train, inputs, y, weights)
            stop = keras.callbacks.EarlyStopping(
                "val_loss", patience=self.patience, restore_best_weights=True, mode="min"
            )
            callbacks.append(stop)
        batch_size = min(self.batch_size, len(y))
        steps = self.epochs * -(-len(y) // batch_size)
        rates = [cosine(rate, steps) for rate in (self.learning_rate, 0.1 * self.learning_rate)]
        self.model_.compile(ssm_optimizer(*rates, self.weight_decay))
        history = self.model_.fit(
            inputs,
            y,
            sample_weight=weights,
            batch_size=batch_size,
            epochs=self.epochs,
            validation_data=held_out,
            callbacks=callbacks,
            verbose=self.verbose,
        )
        self.history_ = {name: list(map(float, values)) for name, values in history.history.items()}
        self.n_iter_ = len(self.history_["loss"])

    def outputs(self, X):
        """The outputs of the model for sequences."""
        check_is_fitted(self, "model_")
        inputs = self._inputs(read_sequences(self, X, fitting=False))
        return self.model_.predict(inputs, batch_size=self.batch_size, verbose=0)

    def _inputs(self, rows):
        return [((row - self.input_mean_) / self.input_scale_).astype("float32") for row in rows]

    def _check_parameters(self):
        check_positive(
            num_layers=self.num_layers,
            hidden_dim=self.hidden_dim,
            state_dim=self.state_dim,
            epochs=self.epochs,
            batch_size=self.batch_size,
            patience=self.patience,
        )
        check_number("learning_rate", self.learning_rate, low=0)
        check_number("weight_decay", self.weight_decay, low=0)
        check_number("dropout", self.dropout, low=0, high=1)
        check_flags(
            bidirectional=self.bidirectional,
            standardize=self.standardize,
            early_stopping=self.early_stopping,
        )
        defaults = inspect.signature(type(self)).parameters
        changed = {name: getattr(self, name) for name in OF_NAMED_SYSTEMS}
        changed = {
            name: value for name, value in changed.items() if value != defaults[name].default
        }
        if changed and not isinstance(self.system, str):
            raise ValueError(
                f"{', '.join(map(repr, OF_NAMED_SYSTEMS))} are settings of a system that is named: "
                f"a layer has its own. Received: {changed} with the layer {self.system!r}"
            )
        is_pair = isinstance(self.dt_range, (tuple, list)) and len(self.dt_range) == 2
        if not is_pair and not (isinstance(self.dt_range, str) and self.dt_range == "auto"):
            raise ValueError(
                "`dt_range` must be 'auto' or two numbers, the smallest and the largest. "
                f"Received: dt_range={self.dt_range!r}"
            )
        check_choice("pooling", self.pooling, [kind for kind in POOLINGS if kind is not None])
        if self.early_stopping:
            fraction = self.validation_fraction
            check_number("validation_fraction", fraction, low=0, high=1)
            if not 0 < fraction < 1:
                raise ValueError(
                    "`validation_fraction` must lie between 0 and 1. "
                    f"Received: validation_fraction={fraction}"
                )


def _select(rows, inputs, y, weights):
    return [inputs[i] for i in rows], y[rows], None if weights is None else weights[rows]


@contextlib.contextmanager
def _own_seed(seed):
    """Seeds all random generators within; NumPy and Python then go on as if nothing was drawn."""
    states = random.getstate(), np.random.get_state()
    try:
        keras.utils.set_random_seed(seed)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
