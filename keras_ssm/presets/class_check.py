"""The classes that a preset may name: those of Keras, of this package, and registered ones."""

from collections.abc import Collection

from keras_ssm.presets.documents import Documents

# Public modules of Keras whose classes are parts of a model and run nothing of their own.
_MODULES = (
    "keras",
    "keras.activations",
    "keras.constraints",
    "keras.dtype_policies",
    "keras.initializers",
    "keras.layers",
    "keras.losses",
    "keras.metrics",
    "keras.optimizers",
    "keras.optimizers.schedules",
    "keras.quantizers",
    "keras.random",
    "keras.regularizers",
)
# These wrap code: a Python lambda, or a program from a file.
_PROGRAMS = ("__lambda__", "Lambda", "TFSMLayer", "JaxLayer", "FlaxLayer", "TorchModuleWrapper")
_VALUES = ("__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__", "__keras_tensor__")


def check_classes(documents: Documents, registered: Collection[str]) -> None:
    """Checks every class that the configurations of a preset name, before Keras reads them.

    Args:
        documents: `Documents` of the preset.
        registered: collection of str. Names registered with Keras.

    Raises:
        ValueError: for a class that wraps code, or is neither of Keras nor registered.
    """
    for name, content in documents.items():
        for entry in _entries(content):
            _check(entry, documents.directory / name, registered)


def _entries(value):
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)


def _check(entry, path, registered):
    name, module = entry["class_name"], entry.get("module")
    class_key = entry.get("config") if name == "function" else entry.get("registered_name")
    class_key = class_key or name
    if not all(isinstance(value, str) for value in (name, class_key)):
        raise ValueError(
            f"`{path}` must name classes by strings. Received: {name!r}, {class_key!r}"
        )
    if name in _VALUES or class_key in registered:
        return
    if name in _PROGRAMS:
        raise ValueError(
            f"`{path}` names a class that runs code of the preset, which is never loaded. "
            f"Received: class {name!r}"
        )
    if not (name == "function" and module == "builtins") and module not in _MODULES:
        raise ValueError(
            f"`{path}` must name classes of Keras, of keras_ssm, or such that are registered "
            "with `keras.saving.register_keras_serializable`; is it from a newer version, or is "
            f"a package to be imported first? Received: class {class_key!r} of module {module!r}"
        )
