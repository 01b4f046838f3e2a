"""How a model and its weights come from a checkpoint."""

import fnmatch
from collections.abc import Callable, Iterable
from typing import NamedTuple

import keras


class WeightMap(NamedTuple):
    """How one weight of a model comes from tensors of a checkpoint.

    Fields:
        target: str. The weight as a path of attributes from the task model, such as
            `"backbone.blocks.0.mixer.D"`.
        sources: tuple of str. Names of tensors.
        function: callable. Maps the arrays, in float64, to the weight.
        note: str. What the function does, for the report.
        linear: bool. Whether it only arranges numbers: gradients then map like values.
    """

    target: str
    sources: tuple
    function: Callable
    note: str = ""
    linear: bool = True


class ModelSpec(NamedTuple):
    """A model as a checkpoint describes it, before it is built.

    Fields:
        mixer: `keras_ssm.layers.SequenceMixer`. The layer to stack.
        backbone: dict. Arguments of `SSMBackbone`.
        task: class of the task model.
        task_arguments: dict. Its arguments.
        weight_maps: list of `WeightMap`.
        remarks: list of str. What a person should know of this conversion.
    """

    mixer: object
    backbone: dict
    task: type
    task_arguments: dict
    weight_maps: list
    remarks: list


def same(x):
    """The array itself."""
    return x


def flat(x):
    """The array with all its entries on one axis."""
    return x.reshape(-1)


def dense(target, name, tensors):
    """Weight maps of a linear layer of PyTorch, or of a convolution of width 1."""
    yield WeightMap(f"{target}.kernel", (f"{name}.weight",), transposed, "transposed")
    if f"{name}.bias" in tensors:
        yield WeightMap(f"{target}.bias", (f"{name}.bias",), flat)


def transposed(x):
    """The matrix of a linear layer of PyTorch as a kernel of Keras."""
    return x.reshape(len(x), -1).T


def complex_parts(target, sources, function, note, linear=True):
    """Weight maps of the two real weights of a complex array.

    Args:
        target: str. The weight without `_real` or `_imag`.
        sources: tuple of str.
        function: callable. Maps the arrays to one with a last axis of 2, or to a complex one.
        note: str.
        linear: bool.
    """
    for part, axis in (("real", 0), ("imag", 1)):

        def pick(*arrays, axis=axis):
            value = function(*arrays)
            if value.dtype.kind == "c":
                return value.imag if axis else value.real
            return value[..., axis]

        yield WeightMap(f"{target}_{part}", sources, pick, f"{note}{part} part", linear)


def check_floats(part):
    """Raises a `ValueError` for a model or a layer with quantised weights.

    Args:
        part: `keras.Layer`, which is to be written as a published one.
    """
    layers = part._flatten_layers() if isinstance(part, keras.Layer) else ()
    quantised = next((layer for layer in layers if layer.quantization_mode is not None), None)
    if quantised is not None:
        raise ValueError(
            "The weights of a published model are floats: export it before it is quantised. "
            f"Received: layer {quantised.name} quantised to {quantised.quantization_mode}"
        )


def check_supported(**conditions):
    """Raises a `ValueError` unless a model has what an official class has.

    Args:
        **conditions: tuples `(received, allowed)` by the name of an argument, `allowed` a tuple.
    """
    for name, (received, allowed) in conditions.items():
        if received not in allowed:
            expected = " or ".join(map(repr, allowed))
            raise ValueError(
                f"The official classes need {name}={expected}. Received: {name}={received!r}"
            )


def is_named(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the names or patterns, such as `"ema.*"`, is that of a tensor or weight."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
