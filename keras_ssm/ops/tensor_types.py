"""Names of what the operations take and return."""

from typing import Any, TypeAlias

Tensor: TypeAlias = Any  # of the backend, or what it converts
Pair: TypeAlias = tuple[Tensor, Tensor]  # real and imaginary parts of complex numbers
