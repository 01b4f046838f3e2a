import numpy as np
from scipy.special import softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d

from keras_ssm.layers import SequenceMixer
from keras_ssm.models import SSMClassifier
from keras_ssm.sklearn.ssm_estimator import SSMEstimator


class SSMClassifierEstimator(ClassifierMixin, SSMEstimator):
    """Classifier of sequences with the interface of scikit-learn.

    Sequences are an array `(cases, length, channels)`; a table `(cases, length)` or a data frame,
    whose rows are sequences of one channel; or a list of arrays `(length, channels)` or
    `(length,)` of different lengths. It goes into `Pipeline`, `GridSearchCV`,
    `cross_val_score` and `clone`, and can be pickled. `model_` is the `SSMClassifier` behind it.

    Args:
        system: str or `SequenceMixer`. `"s4d"`, `"s4"`, `"s4ptd"`, `"dss"`, `"s5"`, `"s5ptd"`,
            `"mamba"`, `"mamba2"`, or a layer with settings of its own: `state_dim`,
            `dt_range` and `bidirectional` are those of a system that is named. Defaults to `"s4d"`.
        num_layers: int. Blocks. Defaults to `2`.
        hidden_dim: int. Features of the hidden sequence. Defaults to `64`.
        state_dim: int. Size of the state of each system. Defaults to `64`.
        dt_range: tuple of two floats, or `"auto"`. Smallest and largest initial dt; 1 / dt is about
            the memory in samples. `"auto"` takes memories up to the median length of the sequences
            of `fit`, the shortest of 10 samples or, in short sequences, a tenth of that length.
            `Mamba`, whose dt depends on the inputs, has its own then. Defaults to `"auto"`.
        bidirectional: bool. Whether the sequence is read in both directions. Defaults to `False`.
        pooling: str. `"mean"`, `"last"`, `"max"` or `"attention"`. Defaults to `"mean"`.
        dropout: float. Rate in every block. Defaults to `0.1`.
        standardize: bool. Whether each channel is brought to mean 0 and deviation 1, those of the
            sequences of `fit`. Defaults to `True`.
        layout: str. Axes of arrays and of the sequences in lists: `"keras"` (cases, length,
            channels) or `"aeon"` (cases, channels, length). Defaults to `"keras"`.
        epochs: int. Passes over the data. Defaults to `100`.
        batch_size: int. Sequences in a step. Defaults to `32`.
        learning_rate: float. Peak of the rate, which rises at once and falls to zero along a
            cosine; the system's own weights have a tenth. Defaults to `0.01`.
        weight_decay: float. Decay of the weights, but for those of the system. Defaults to `0.05`.
        early_stopping: bool. Whether a part of the data is held out, training ends when its loss no
            longer falls, and the best weights are kept. Defaults to `False`.
        validation_fraction: float. Share that is held out then. Defaults to `0.1`.
        patience: int. Epochs without a better loss until the end. Defaults to `10`.
        class_weight: dict from class to weight, `"balanced"` or `None`. Weight of the sequences of
            each class in the loss. Defaults to `None`.
        random_state: int, `RandomState` or `None`. Seed of initial weights, order and dropout; an
            int makes `fit` repeat itself on one machine. Defaults to `None`.
        verbose: int. As in `keras.Model.fit`. Defaults to `0`.

    Raises:
        ValueError: from `fit`, for invalid parameters, sequences or labels.

    Example:
        ```python
        from keras_ssm.sklearn import SSMClassifierEstimator

        series = [np.zeros(30), np.ones(40), np.zeros(50), np.ones(35)]
        estimator = SSMClassifierEstimator(hidden_dim=8, state_dim=8, epochs=2, random_state=0)
        estimator.fit(series, ["off", "on", "off", "on"])
        estimator.predict(series)
        ```
    """

    def __init__(
        self,
        system: str | SequenceMixer = "s4d",
        num_layers: int = 2,
        hidden_dim: int = 64,
        state_dim: int = 64,
        dt_range: str | tuple[float, float] = "auto",
        bidirectional: bool = False,
        pooling: str = "mean",
        dropout: float = 0.1,
        standardize: bool = True,
        layout: str = "keras",
        epochs: int = 100,
        batch_size: int = 32,
        learning_rate: float = 1e-2,
        weight_decay: float = 0.05,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        class_weight: dict | str | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.system = system
        self.num_layers = num_layers
        self.hidden_dim = hidden_dim
        self.state_dim = state_dim
        self.dt_range = dt_range
        self.bidirectional = bidirectional
        self.pooling = pooling
        self.dropout = dropout
        self.standardize = standardize
        self.layout = layout
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.class_weight = class_weight
        self.random_state = random_state
        self.verbose = verbose

    def predict(self, X: object) -> np.ndarray:
        """Returns the likeliest class of each sequence, as `fit` was given it."""
        class_numbers = self.predict_proba(X).argmax(axis=1)
        return self.classes_[class_numbers]

    def predict_proba(self, X: object) -> np.ndarray:
        """Returns the probability of each class, in the order of `classes_`, `(cases, classes)`."""
        logits = self.outputs(X).astype("float64")
        if len(self.classes_) == 1:
            return np.ones((len(logits), 1))
        return softmax(logits, axis=1)

    def read_targets(self, y, count):
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None. Received: y=None")
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        check_consistent_length(y, np.zeros(count))
        self.classes_, class_numbers = np.unique(y, return_inverse=True)
        return class_numbers

    def strata(self, y):
        return y

    def _weights(self, rows, y, sample_weight):
        weights = super()._weights(rows, y, sample_weight)
        if self.class_weight is None:
            return weights
        by_class = compute_sample_weight(self.class_weight, self.classes_[y])
        return by_class if weights is None else weights * by_class

    def make_task(self, backbone, y):
        return SSMClassifier(
            backbone,
            num_classes=len(self.classes_),
            pooling=self.pooling,
            class_names=[str(name) for name in self.classes_] if self._names_differ() else None,
        )

    def _names_differ(self):
        names = [str(name) for name in self.classes_]
        return len(names) > 1 and len(set(names)) == len(names) and all(names)
