"""The name of the device that the backend takes by default."""

import functools
import importlib

import keras


@functools.cache
def device_name() -> str:
    """Returns the name of the first GPU as its driver tells it, or `"cpu"` where there is none."""
    name = keras.config.backend()
    module = importlib.import_module(name)
    if name == "torch":
        return module.cuda.get_device_name() if module.cuda.is_available() else "cpu"
    if name == "jax":
        return "cpu" if module.default_backend() == "cpu" else module.devices()[0].device_kind
    cards = module.config.list_physical_devices("GPU")
    details = module.config.experimental.get_device_details(cards[0]) if cards else {}
    return details.get("device_name", "gpu") if cards else "cpu"
