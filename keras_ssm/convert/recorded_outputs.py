from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_ssm.models import SSMPairClassifier
from keras_ssm.types import PathLike

INPUTS = ("inputs", "token_ids", "input_ids", "x", "tokens")
OUTPUTS = ("logits", "log_probs_eval", "outputs")


class Comparison(NamedTuple):
    """How the logits of a model differ from recorded ones.

    Fields:
        name: str. The recorded array.
        rows: list of float. Largest difference of each row, over the largest recorded entry.
        largest: float. The largest of them.
    """

    name: str
    rows: list
    largest: float


def compare_recorded(model: keras.Model, path: PathLike):
    """Compares a model with the outputs that another implementation recorded.

    Args:
        model: a task model.
        path: str or `Path`. An npz file of `x` (or `tokens`, `inputs`, `token_ids`, `input_ids`),
            `logits`
            (or `log_probs_eval`) and, optionally, `lengths` or `padding_mask`. Pairs may stand
            on an axis of 2, or all first sequences before all second ones.

    Returns:
        A `Comparison`.

    Raises:
        ValueError: for another kind of file, missing arrays or other shapes.
    """
    path = Path(path).expanduser()
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if "/" not in name}
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"'{path}' must be an npz file. Received: {error}") from None
    chosen = [next((n for n in names if n in arrays), None) for names in (INPUTS, OUTPUTS)]
    if None in chosen:
        raise ValueError(
            f"'{path}' must hold one of {INPUTS} and one of {OUTPUTS}. "
            f"Received: {sorted(arrays)[:12]}"
        )
    x, expected = (arrays[name] for name in chosen)
    data = {model.input_key: x.astype("int32" if model.input_key == "token_ids" else "float32")}
    if "padding_mask" in arrays:
        data["padding_mask"] = arrays["padding_mask"].astype(bool)
    elif "lengths" in arrays:
        lengths = arrays["lengths"].astype(int)
        data["padding_mask"] = np.arange(x.shape[1]) < lengths[:, None]
    if isinstance(model, SSMPairClassifier) and len(x) == 2 * len(expected):
        data = {k: np.stack(np.split(v, 2), axis=1) for k, v in data.items()}
    y = model(data)
    if chosen[1].startswith("log_probs"):
        y = ops.log_softmax(y, axis=-1)
    y = np.asarray(ops.convert_to_numpy(y))
    if y.shape != expected.shape:
        raise ValueError(
            f"'{chosen[1]}' must have the shape of the model's outputs, {y.shape}. "
            f"Received: shape {expected.shape}"
        )
    difference = np.abs(y - expected).reshape(len(y), -1).max(axis=1)
    rows = (difference / max(np.abs(expected).max(), 1e-300)).tolist()
    return Comparison(chosen[1], rows, max(rows))
