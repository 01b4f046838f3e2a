"""How tensors of published models and weights of ours are arranged."""

from typing import NamedTuple

import numpy as np

from keras_ssm.convert.mapping import same, transposed

HEAD = "lm_head.weight"


class PublishedWeight(NamedTuple):
    """A weight of ours, and its tensor.

    Fields:
        target: str. A path of attributes from a task model.
        name: str. The tensor, with the names of transformers.
        shape: tuple of int. That of the tensor.
        arranged: str. Key of `READ` and `WRITTEN`.
        derived: bool. Whether its initial values are those of the file, which may leave it out.
    """

    target: str
    name: str
    shape: tuple
    arranged: str = "same"
    derived: bool = False


def _written_conv(kernel):
    return np.ascontiguousarray(kernel.T)[:, None]


# From a tensor to a weight, and back; a weight then takes its own shape.
READ = {"same": same, "transposed": transposed, "conv": transposed, "reshaped": same}
WRITTEN = {"same": same, "transposed": np.transpose, "conv": _written_conv, "reshaped": same}

# Along which axis of a weight the rows of a tensor lie one after the other.
AXES = {"same": 0, "transposed": 1}
