"""What Keras has under no public name, in one place: where an update of it can break this package.

- `Functional` stands by name among the bases of our models: Keras and keras_hub would otherwise
  rewrite these bases whenever a model is made, under the feet of other threads.
- `DataAdapter`, `PyDatasetAdapter` and `get_torch_dataloader` are what Keras' trainers read. With
  them, data of every kind reach the model as arrays do.
- `to_snake_case` is how Keras makes second names of its losses and metrics.
- `print_msg` prints where Keras prints, its log included.
- `batch_spec` and `build_metrics` reach what Keras' trainer on TensorFlow knows before a step.
- `called_by_model` and `is_torch_optimizer` read what Keras writes.
- `value_of` reads a variable without asking for scopes, as an endless stream does for each weight.
- `brief_errors` marks an error as one that needs no list of the arguments of the call.
"""

import contextlib
import operator

import keras
from keras.src.models.functional import Functional
from keras.src.trainers.data_adapters.data_adapter import DataAdapter
from keras.src.trainers.data_adapters.data_adapter_utils import get_torch_dataloader
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter
from keras.src.utils.io_utils import print_msg
from keras.src.utils.naming import to_snake_case

__all__ = [
    "DataAdapter",
    "Functional",
    "PyDatasetAdapter",
    "batch_spec",
    "brief_errors",
    "build_metrics",
    "called_by_model",
    "get_torch_dataloader",
    "is_torch_optimizer",
    "parts_of_metrics",
    "print_msg",
    "to_snake_case",
    "value_of",
]

value_of = operator.attrgetter("_value")


def called_by_model(layer):
    """Whether the call that is under way, of which that of this layer is part, is of a model."""
    return isinstance(layer._get_call_context().entry_layer, keras.Model)


def is_torch_optimizer(module):
    """Whether a module holds the optimizers that Keras makes on PyTorch under public names."""
    return module.startswith("keras.src.backend.torch.optimizers")


def parts_of_metrics(compiled, y, y_pred):
    """The metrics of a model with one output: those given, and those given as weighted ones."""
    if not compiled.built:
        compiled.build(y, y_pred)
    parts = compiled._flat_metrics, compiled._flat_weighted_metrics
    return [[m for group in part if group is not None for m in group.metrics] for part in parts]


def build_metrics(model, y, y_pred):
    """Makes the metrics of a model with one output, from symbolic targets and outputs."""
    if model._compile_metrics is not None and not model._compile_metrics.built:
        model._compile_metrics.build(y, y_pred)


def batch_spec(iterator):
    """The specs of a batch, as Keras' trainer on TensorFlow is about to read it; else `None`."""
    return getattr(iterator._get_iterator(), "element_spec", None)


@contextlib.contextmanager
def brief_errors():
    """Lets errors of a layer's `call` through as they are.

    Keras would add the arguments of the call, and of a list every row: megabytes of numbers.
    """
    try:
        yield
    except Exception as error:
        error._keras_call_info_injected = True
        raise
