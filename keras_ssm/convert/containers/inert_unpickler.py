import collections
import io
import pickle
import pickletools

# Bytes of metadata and hyper-parameters; the numbers of a checkpoint are outside its pickle.
LARGEST_PICKLE = 2**25

# Instructions that no honest file needs: extensions, buffers, copies of the top of the stack.
REFUSED = {
    *("EXT1", "EXT2", "EXT4", "BYTEARRAY8", "NEXT_BUFFER", "READONLY_BUFFER"),
    *("DUP", "PERSID", "INST", "OBJ"),
}


class Inert:
    """Stand-in for an object of a foreign class: it keeps what the file says, and does nothing.

    Attributes:
        arguments: tuple. What the class would have been called with.
        state: what would have been its attributes, or `None`.
        entries: list of what would have been appended, or of pairs set by key.
    """

    def __new__(cls, *arguments, **_):
        inert = object.__new__(cls)
        inert.arguments, inert.state, inert.entries = arguments, None, []
        return inert

    def __init__(self, *_, **__):
        pass

    def __setstate__(self, state):
        self.state = state

    def __setitem__(self, key, value):
        self.entries.append((key, value))

    def append(self, value):
        self.entries.append(value)

    def extend(self, values):
        self.entries.extend(values)

    def plain(self):
        """What it holds as data: the value or the content of a node, or its attributes."""
        for key in ("_content", "_val"):
            if isinstance(self.state, dict) and key in self.state:
                return self.state[key]
        pairs = self.entries and all(isinstance(e, tuple) and len(e) == 2 for e in self.entries)
        if pairs:
            return dict(self.entries)
        return self.entries or self.state or self.arguments


class InertUnpickler(pickle.Unpickler):
    """Reads a pickle without importing or running anything that it names.

    Every class and function that a file names becomes an `Inert` stand-in, but for ordered
    dicts and the `builders`.

    Args:
        data: bytes of the pickle.
        builders: dict of `(module, name)` to what stands for it.
        persistent: callable or `None`. Maps a persistent id to what it stands for.
    """

    def __init__(self, data, builders, persistent=None):
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._builders, self._persistent, self._classes = builders, persistent, {}

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) in self._builders:
            return self._builders[module, name]
        key = (module, name)
        if key not in self._classes:
            self._classes[key] = type(name.rpartition(".")[2], (Inert,), {"foreign": key})
        return self._classes[key]

    def persistent_load(self, identifier):
        if self._persistent is None:
            raise pickle.UnpicklingError("a reference to an object outside the file")
        return self._persistent(identifier)


def check_pickle(data, start=0):
    """Raises a `ValueError` unless these bytes are a pickle that is safe to walk through.

    Args:
        data: bytes. What holds the pickle.
        start: int. Where it begins.

    Returns:
        int. Where it ends.
    """
    stream, stored = io.BytesIO(data), 0
    stream.seek(start)
    try:
        for opcode, argument, position in pickletools.genops(stream):
            if position - start > LARGEST_PICKLE:
                raise ValueError(f"a pickle of more than {LARGEST_PICKLE} bytes")
            if opcode.name in REFUSED:
                raise ValueError(f"the pickle instruction {opcode.name} at byte {position}")
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
                if argument > stored:
                    raise ValueError(f"a memo index of {argument} at byte {position}")
                stored += 1
            elif opcode.name == "MEMOIZE":
                stored += 1
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"a damaged pickle ({error})") from error
    return stream.tell()
