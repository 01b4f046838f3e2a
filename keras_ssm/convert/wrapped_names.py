"""Names of tensors without the prefixes of wrappers."""

import re

# Parts of names under which wrappers of PyTorch keep the model, or one of its layers.
WRAPPERS = (
    "module",  # DataParallel, DistributedDataParallel, AveragedModel
    "_orig_mod",  # torch.compile
    "_fsdp_wrapped_module",
    "_fpw_module",
    "_checkpoint_wrapped_module",
    "_forward_module",  # Lightning Fabric
)
_WRAPPER = re.compile(rf"(?<![^.])(?:{'|'.join(WRAPPERS)})\.")

# Names that each kind of model has. Before them is the attribute of the object that holds it.
_FIRST = (
    *(r"s4_layers\.0\.", r"conv_layers\.0\.", r"model\.layers\.0\.layer\."),
    *(r"backbone\.layers\.0\.", r"s4seq\.encoder\.layers\.0\."),
)
_ANCHOR = re.compile(rf"(?:^|.*?\.)(?={'|'.join(_FIRST)})")
_FLAX_ANCHOR = re.compile(r"(|.*?/)params/(|.*?/)encoder/layers_0/")


def unwrap(names):
    """Takes the wrappers of a model off the names of its tensors.

    Prefixes of PyTorch's wrappers are removed wherever they are, in any order and number. A prefix
    of the whole model, such as the `model.` of a Lightning module, is removed from every name.

    Args:
        names: collection of str. Names in a file; foreign ones may stand among them.

    Returns:
        Dict of each name to that without wrappers.

    Raises:
        ValueError: if several models are there, or two tensors of the same name.
    """
    short_names = {name: _WRAPPER.sub("", name) for name in names}
    prefixes = sorted(
        {prefix for name in short_names.values() if (prefix := _prefix(name)) is not None}
    )
    if len(prefixes) > 1 and "" not in prefixes:
        raise ValueError(
            "The tensors must be those of one model: ignore the others by name, such as "
            f"'{prefixes[-1]}*'. Received: models at {', '.join(prefixes)}"
        )
    if prefixes and "" not in prefixes:
        short_names = {name: _without(value, prefixes[0]) for name, value in short_names.items()}
    origins = {}
    for name, value in short_names.items():
        if origins.setdefault(value, name) != name:
            raise ValueError(
                f"One tensor must stand for '{value}': ignore the other by name. "
                f"Received: {origins[value]}, {name}"
            )
    return short_names


def _prefix(name):
    """The prefix of a model of which this name may be the first layer, or `None`."""
    if match := _FLAX_ANCHOR.match(name):
        return "*".join(match.groups()).removesuffix("*")  # before and after the collection
    match = _ANCHOR.match(name)
    return match and match.group()


def _without(name, prefix):
    if "/" not in prefix:
        return name.removeprefix(prefix)
    before, _, after = prefix.partition("*")
    collection, _, rest = name.removeprefix(before).partition("/")
    return f"{collection}/{rest.removeprefix(after)}"
