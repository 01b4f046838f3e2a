"""Names for what public signatures take, whatever the backend."""

import os
from typing import Any

# A tensor of the backend, an array of NumPy, or a symbolic tensor of Keras.
Tensor = Any

# Real and imaginary parts of complex numbers.
Pair = tuple[Tensor, Tensor]

# A tensor or a tree of tensors, such as a dict of them: the state of a mixer, a block or a model.
State = Any

# A directory or file.
PathLike = str | os.PathLike
