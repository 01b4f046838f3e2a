import difflib


class Tensors:
    """Named arrays of a checkpoint, and which of them were used or left aside.

    Args:
        arrays: dict of names to NumPy arrays.

    Attributes:
        used: set of names.
        dropped: dict of names to the reason why a model does not need them.
    """

    def __init__(self, arrays):
        self.arrays, self.used, self.dropped = arrays, set(), {}

    def __contains__(self, name):
        return name in self.arrays

    def __getitem__(self, name):
        self._check_has(name)
        self.used.add(name)
        return self.arrays[name]

    def shape(self, name):
        """The shape of a tensor, which does not count as used by this."""
        self._check_has(name)
        return self.arrays[name].shape

    def first(self, *names):
        """The first of these names that is there, or `None`."""
        return next((name for name in names if name in self.arrays), None)

    def drop(self, name, reason):
        """Leaves a tensor aside, if it is there."""
        if name in self.arrays:
            self.dropped[name] = reason

    def count(self, pattern):
        """How many of `pattern.format(0)`, `pattern.format(1)`, ... begin the name of a tensor."""
        number = 0
        while any(name.startswith(pattern.format(number)) for name in self.arrays):
            number += 1
        return number

    def unused(self):
        """Names that were neither used nor left aside."""
        return sorted(set(self.arrays) - self.used - set(self.dropped))

    def _check_has(self, name):
        if name not in self.arrays:
            near = difflib.get_close_matches(name, self.arrays, n=3, cutoff=0.0)
            raise ValueError(
                f"The checkpoint must hold a tensor '{name}'. Received: {', '.join(near)}, ... "
                f"({len(self.arrays)} tensors)"
            )
