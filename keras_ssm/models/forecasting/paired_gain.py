import keras
import numpy as np
from keras import ops


def paired_gain(model, scored, before: list[np.ndarray]) -> tuple[float, float]:
    """By how much the weights of a model are better than others, and how sure that is.

    Forecasts that begin close to each other overlap, and so do their errors. They are therefore
    put together in stretches of time, a horizon each, for all variables: of these the gains are
    nearly independent.

    Args:
        model: `SSMForecaster`, which is left as it is.
        scored: `ValidationWindows`.
        before: list of arrays. The other weights.

    Returns:
        Tuple of the mean gain and its standard error, which is 0 of a single stretch.
    """
    after = model.get_weights()
    losses = []
    for weights in (before, after):
        model.set_weights(weights)
        losses.append(_by_stretch(model, scored))
    gains = losses[0] - losses[1]
    error = gains.std(ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    return float(gains.mean()), float(error)


def _by_stretch(model, scored):
    """The mean loss of the forecasts that begin in each stretch."""
    loss = keras.losses.get(model.loss)
    loss_of_window = loss.call if isinstance(loss, keras.losses.Loss) else loss
    stretches = scored.origins // model.horizon
    names, ids = np.unique(stretches, return_inverse=True)
    ids = ids.reshape(stretches.shape)
    total, count = np.zeros(len(names)), np.zeros(len(names))
    for index in range(len(scored)):
        x, y, weight = scored[index]
        losses = ops.convert_to_numpy(loss_of_window(y, model.predict_on_batch(x)))
        batch_ids = ids[index * scored.batch_size :][: len(losses)]
        np.add.at(total, batch_ids, (losses * weight).sum(axis=-1))
        np.add.at(count, batch_ids, weight.sum(axis=-1))
    return total[count > 0] / count[count > 0]
