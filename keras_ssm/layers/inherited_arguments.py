"""Constructors that say only what differs from those of their base class."""

import functools
import inspect
from collections.abc import Callable


def inherits_arguments(base: type, without: tuple[str, ...] = ()) -> Callable:
    """Decorator of an `__init__` that passes `**kwargs` on to the base class.

    The signature then has the arguments of the base class after its own, each once, so that
    `inspect.signature`, Keras and calls by position know all of them.

    Args:
        base: class whose constructor takes the `**kwargs`.
        without: tuple of str. Arguments of the base class that this one has not.

    Raises:
        ValueError: in a call, for an argument of `without`.

    Example:
        ```python
        class Animal:
            def __init__(self, name, legs=4):
                self.name, self.legs = name, legs

        class Dog(Animal):
            @inherits_arguments(Animal)
            def __init__(self, breed, **kwargs):
                super().__init__(**kwargs)
                self.breed = breed

        str(inspect.signature(Dog))  # "(breed, name, legs=4, **kwargs)"
        ```
    """

    def decorate(init):
        own = inspect.signature(init).parameters
        rest = inspect.signature(base.__init__).parameters
        *first, last = own.values()
        added = [
            parameter
            for name, parameter in rest.items()
            if name not in {*own, *without} and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        ]
        signature = inspect.Signature([*first, *added, last])

        @functools.wraps(init)
        def wrapped(*args, **kwargs):
            for name in without:
                if name in kwargs:
                    raise ValueError(
                        f"{type(args[0]).__name__} has no argument `{name}`. "
                        f"Received: {name}={kwargs[name]!r}"
                    )
            bound = signature.bind(*args, **kwargs).arguments
            extra = bound.pop("kwargs", {})
            init(**bound, **extra)

        wrapped.__signature__ = signature
        return wrapped

    return decorate
