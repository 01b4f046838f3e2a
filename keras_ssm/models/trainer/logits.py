"""Losses and metrics of models that return logits."""

import contextlib
import inspect

import keras

from keras_ssm.keras_internals import to_snake_case

# Names of losses in Keras, and their forms for logits.
_LOSSES = {
    "SparseCategoricalCrossentropy": ("sparse_categorical_crossentropy",),
    "CategoricalCrossentropy": ("categorical_crossentropy",),
    "BinaryCrossentropy": ("binary_crossentropy", "bce", "BCE"),
    "CategoricalFocalCrossentropy": ("categorical_focal_crossentropy",),
    "BinaryFocalCrossentropy": ("binary_focal_crossentropy",),
}
_OF_PROBABILITIES = {
    "KLDivergence": ("kl_divergence", "kld", "KLD", "kullback_leibler_divergence"),
    "Poisson": ("poisson",),
    "Dice": (),
    "Tversky": (),
    "CategoricalGeneralizedCrossEntropy": (),
    "PrecisionAtRecall": (),
    "RecallAtPrecision": (),
    "SensitivityAtSpecificity": (),
    "SpecificityAtSensitivity": (),
}
_OF_SHAPES = ("crossentropy", "ce")  # Keras chooses one by the targets, for probabilities
_THRESHOLD = {
    "BinaryAccuracy": "threshold",
    "Precision": "thresholds",
    "Recall": "thresholds",
    "TruePositives": "thresholds",
    "TrueNegatives": "thresholds",
    "FalsePositives": "thresholds",
    "FalseNegatives": "thresholds",
    "BinaryIoU": "threshold",
}
_OF_CLASSES = (
    "Accuracy",
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "SparseCategoricalAccuracy",
    "TopKCategoricalAccuracy",
    "SparseTopKCategoricalAccuracy",
    "AUC",
    "F1Score",
)
_ARGMAX = ("F1Score", "FBetaScore")  # without a threshold


def loss_on_logits(loss, **settings):
    """Returns a loss for logits, where a name or a function of Keras means one on probabilities.

    Args:
        loss: what `keras.Model.compile` takes.
        **settings: Arguments of a loss that is given by name, such as `reduction`.

    Returns:
        The same, with names and functions in their form for logits.

    Raises:
        ValueError: for a loss object with `from_logits=False`, or one that reads probabilities.
    """
    if isinstance(loss, (list, tuple, dict)):
        return _mapped(lambda part: loss_on_logits(part, **settings), loss)
    for name, aliases in _LOSSES.items():
        if _is_named(loss, name, aliases):
            return getattr(keras.losses, name)(from_logits=True, **settings)
    _refuse_probabilities("loss", loss)
    return loss


def sparse_loss(loss, ignore_class, **settings):
    """Returns sparse cross-entropy on logits that leaves a class out.

    Args:
        loss: `"auto"` or another name of it.
        ignore_class: int. The class.
        **settings: Further arguments of the loss.

    Raises:
        ValueError: for another loss, or a class that is no whole number.
    """
    name = "SparseCategoricalCrossentropy"
    if not (isinstance(loss, str) and loss == "auto") and not _is_named(loss, name, _LOSSES[name]):
        raise ValueError(
            "`ignore_class` goes with the loss 'sparse_categorical_crossentropy', by name; a loss "
            f"object has its own. Received: loss={loss!r}, ignore_class={ignore_class}"
        )
    if isinstance(ignore_class, bool) or not hasattr(ignore_class, "__index__"):
        raise ValueError(
            f"`ignore_class` must be a whole number. Received: ignore_class={ignore_class!r}"
        )
    sparse = keras.losses.SparseCategoricalCrossentropy
    return sparse(from_logits=True, ignore_class=int(ignore_class), **settings)


def metric_on_logits(metric, num_classes):
    """Returns a metric for logits, as `loss_on_logits` does.

    Args:
        metric: what `keras.Model.compile` takes.
        num_classes: int. Logits of an output.

    Returns:
        The same, with names in their form for logits: the threshold of a probability 0.5 is 0.

    Raises:
        ValueError: for a metric object that reads probabilities.
    """
    if isinstance(metric, (list, tuple, dict)):
        return _mapped(lambda part: metric_on_logits(part, num_classes), metric)
    if num_classes == 1 and metric in ("accuracy", "acc"):
        return keras.metrics.BinaryAccuracy(name=metric, threshold=0.0)
    also_metrics = {
        name: aliases for name, aliases in _LOSSES.items() if hasattr(keras.metrics, name)
    }
    for name, aliases in {**also_metrics, "AUC": ("auc",)}.items():
        if _is_named(metric, name, aliases):
            name_argument = {"name": metric} if isinstance(metric, str) else {}
            return getattr(keras.metrics, name)(from_logits=True, **name_argument)
    for name, argument in {**_THRESHOLD, **dict.fromkeys(_ARGMAX, "threshold")}.items():
        if name not in _ARGMAX and _is_named(metric, name):
            name_argument = {"name": metric} if isinstance(metric, str) else {}
            return getattr(keras.metrics, name)(**{argument: 0.0, **name_argument})
        is_of_class = isinstance(metric, getattr(keras.metrics, name))
        wrong = (0.5,) if name in _ARGMAX else (None, 0.5)
        if is_of_class and metric.get_config().get(argument) in wrong:
            raise ValueError(
                f"The model returns logits, on which a probability of 0.5 is 0: pass "
                f"`{name}({argument}=0.0)`. Received: metric={metric}"
            )
    _refuse_probabilities("metric", metric)
    return metric


def refuse_classes(kind, measure):
    """Raises a `ValueError` for a loss or metrics of classes, in a model that returns numbers.

    Args:
        kind: str. The argument of `compile`.
        measure: what it received.
    """
    if isinstance(measure, (list, tuple, dict)):
        for part in measure.values() if isinstance(measure, dict) else measure:
            refuse_classes(kind, part)
        return
    of_classes = isinstance(measure, str) and measure in ("accuracy", "acc", *_OF_SHAPES)
    for name, aliases in {**_LOSSES, **dict.fromkeys(_OF_CLASSES, ())}.items():
        classes = getattr(keras.losses, name, ()), getattr(keras.metrics, name, ())
        of_classes = of_classes or _is_named(measure, name, aliases) or isinstance(measure, classes)
    if of_classes:
        raise ValueError(
            f"`{kind}` must read numbers, such as 'mse' or 'mae': classes are for an "
            f"`SSMClassifier`. Received: {kind}={measure!r}"
        )


def _mapped(function, parts):
    if isinstance(parts, dict):
        return {key: function(part) for key, part in parts.items()}
    return type(parts)(function(part) for part in parts)


def _is_named(measure, name, aliases=()):
    """Whether this is the name, or the function or class itself, of something of Keras."""
    names = (name, to_snake_case(name), *aliases)
    if isinstance(measure, str):
        return measure in names
    if not inspect.isfunction(measure) and not inspect.isclass(measure):
        return False
    modules = (keras.losses, keras.metrics)
    return any(measure is getattr(module, n, None) for module in modules for n in names)


def _refuse_probabilities(kind, measure):
    if measure is None:
        return
    if isinstance(measure, str) and measure in _OF_SHAPES:
        raise ValueError(
            f"`{kind}` must name its form, 'sparse_categorical_crossentropy', "
            "'categorical_crossentropy' or 'binary_crossentropy': Keras' choice reads "
            f"probabilities, and the model returns logits. Received: {kind}={measure!r}"
        )
    config = {}
    if isinstance(measure, (keras.losses.Loss, keras.metrics.Metric)):
        with contextlib.suppress(NotImplementedError):  # a custom loss may read any outputs
            config = measure.get_config()
    name = type(measure).__name__
    if config.get("from_logits") is False:
        raise ValueError(
            f"The model returns logits: pass `{name}(from_logits=True)` as `{kind}`. "
            f"Received: {name} with from_logits=False"
        )
    for reader, aliases in _OF_PROBABILITIES.items():
        classes = getattr(keras.losses, reader, ()), getattr(keras.metrics, reader, ())
        if _is_named(measure, reader, aliases) or isinstance(measure, classes):
            raise ValueError(
                f"`{kind}` must read logits, and {reader} reads probabilities: pass a function "
                f"that applies softmax or sigmoid first. Received: {kind}={measure!r}"
            )
