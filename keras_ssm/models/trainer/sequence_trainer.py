import keras
import numpy as np
from keras import ops

from keras_ssm.attributes import Attributes
from keras_ssm.checks import compatible
from keras_ssm.layers.one_direction import OneDirection
from keras_ssm.models.saving.cloning import Clones
from keras_ssm.models.saving.exports import Exports
from keras_ssm.models.saving.preset_loading import PresetTable
from keras_ssm.models.saving.rescaling import Rescales
from keras_ssm.models.stateful_call import StatefulCall
from keras_ssm.models.trainer.data_trainer import DataTrainer
from keras_ssm.models.trainer.prepared import is_prepared, prepared
from keras_ssm.models.trainer.traced_once import TracedOnce
from keras_ssm.ops import backend
from keras_ssm.types import State, Tensor


class SequenceTrainer(Clones, Rescales, Attributes, OneDirection, Exports, TracedOnce, DataTrainer):
    """Base of backbone and task models: inputs of every kind, and a trainer that recovers.

    Data may be arrays, lists, dicts, `tf.data`, a `keras.utils.PyDataset` or a generator. It is
    checked before training starts, and a call that fails leaves a model that works.
    """

    presets = PresetTable()
    complete_when_built = False  # the end of the constructor completes it

    # Keras reads this signature: because of it, trainers pass `training`, and layers their mask.
    def __call__(
        self,
        inputs: Tensor | dict,
        training: bool | None = None,
        mask: Tensor | None = None,
        initial_state: State | None = None,
        return_state: bool = False,
        **kwargs,
    ) -> Tensor | tuple[Tensor, State]:
        self._refuse_unknown(kwargs)
        self.check_state(initial_state, return_state)
        # Only given arguments: a `None` would hide the argument of an outer model.
        arguments = {"training": training, "initial_state": initial_state}
        arguments = {name: value for name, value in arguments.items() if value is not None}
        inputs = self.as_tensors(inputs, mask)
        if return_state and _are_symbolic((inputs, initial_state)):
            # One layer for all calls, hidden from the tracking of Keras, since it holds the model.
            if "_stateful_call" not in vars(self):
                vars(self)["_stateful_call"] = StatefulCall(self, dtype=self.dtype_policy)
            return vars(self)["_stateful_call"](inputs, **arguments, **kwargs)
        if return_state:
            arguments["return_state"] = True
        with prepared(self):
            return super().__call__(inputs, **arguments, **kwargs)

    def call(
        self,
        inputs: Tensor | dict,
        training: bool | None = None,
        mask: Tensor | None = None,
        initial_state: State | None = None,
        return_state: bool = False,
        **kwargs,
    ) -> Tensor | tuple[Tensor, State]:
        self._refuse_unknown(kwargs)
        inputs = self.as_tensors(inputs, mask)  # Keras may call this directly
        with prepared(self):
            if initial_state is None and not return_state and set(inputs) == set(self.input):
                return super().call(inputs, training=training, **kwargs)
            for name, symbol in self.input.items():
                inputs[name] = ops.cast(inputs[name], symbol.dtype)
            return self.run(inputs, training, initial_state, return_state)

    def compute_output_spec(
        self,
        inputs,
        training=None,
        mask=None,
        initial_state=None,
        return_state=False,
        **kwargs,
    ):
        self._refuse_unknown(kwargs)
        self.check_state(initial_state, return_state)
        inputs = self._of_the_graph(self.as_tensors(inputs, mask))
        spec = super().compute_output_spec(inputs, training=training)
        if not return_state:
            return spec
        rows, length = inputs["padding_mask"].shape[:2]
        stride = getattr(self, "backbone", self).stride
        if stride > 1 and length is not None and len(spec.shape) == 3:
            # A piece of a sequence may complete one step more than a whole sequence of that length.
            shape = (spec.shape[0], -(-length // stride), spec.shape[2])
            spec = keras.KerasTensor(shape, dtype=spec.dtype)
        return spec, self.state_spec(rows)

    def _assert_input_compatibility(self, inputs, *args):
        if isinstance(inputs, dict):  # only the inputs of the graph
            inputs = self._of_the_graph(inputs)
        return super()._assert_input_compatibility(inputs, *args)

    def check_state(self, initial_state, return_state):
        """Raises a `ValueError`, unless the model carries states through a call."""
        if initial_state is not None or return_state:
            raise ValueError(
                f"{type(self).__name__} carries no states through a call: call its backbone. "
                f"Received: initial_state={initial_state}, return_state={return_state}"
            )

    def compute_output_shape(self, input_shape):
        if not isinstance(input_shape, dict):
            mask = tuple(input_shape if self.input_key == "token_ids" else input_shape[:-1])
            input_shape = {self.input_key: tuple(input_shape), "padding_mask": mask}
        return super().compute_output_shape(self._of_the_graph(input_shape))

    def _of_the_graph(self, inputs):
        """The inputs without those that go to the mixers beside the graph, such as `timesteps`."""
        return {name: value for name, value in inputs.items() if name in self.input}

    def as_tensors(self, inputs, mask=None):
        """Returns `standardize(inputs)` as tensors of the backend; symbolic ones stay.

        A step is valid where the `padding_mask`, a `mask` of the call and the mask that a layer
        left on the inputs all say so. A batch is brought to this form once: what a call of the
        model, or of the task around a backbone, has checked is taken as it is.
        """
        if is_prepared(self, inputs, mask):
            return dict(inputs)
        inputs = self.standardize(with_masks(inputs, mask, self.input_key))
        if _are_symbolic(inputs):
            return inputs
        return {k: ops.convert_to_tensor(x) for k, x in inputs.items()}

    def _refuse_unknown(self, arguments):
        unknown = sorted(set(arguments) - set(self._call_context_args))
        if unknown:
            raise ValueError(
                f"A call of {self.name} takes `inputs`, `training`, `mask`, `initial_state` and "
                "`return_state`. "
                f"Received: {', '.join(unknown)}"
            )

    # keras_hub hides attributes from PyTorch while a model is built. PyTorch must see this one:
    # it holds the weights.
    def __setattr__(self, name, value):
        if name == "_torch_params":
            keras.Model.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def fixed_attribute(self, name):
        return self.is_made() and self.has_own_attribute(name)

    def has_own_attribute(self, name):
        # Not what Keras sets later, such as `history`, nor what a derived class adds.
        return name in self._attributes or hasattr(type(self), name)

    def attribute_parts(self):
        backbone = getattr(self, "backbone", None)
        if not self.is_made():
            return
        if backbone is not None:
            yield backbone
            if isinstance(self.preprocessor, keras.Layer):
                yield self.preprocessor
        for block in (backbone or self).blocks[:1]:
            yield from (block.mixer, block)

    def track_weights(self):
        """Shows PyTorch the weights of now, after some came or went."""
        backend.track_weights(self)

    def sample_outputs(self, inputs: np.ndarray) -> Tensor:
        """Returns the outputs for a short input by which models are told apart."""
        return self(inputs)

    def record_sample(self):
        """A short input and its outputs, for whoever checks a copy of the preset."""
        inputs = self.sample_inputs()
        outputs = ops.convert_to_numpy(ops.cast(self.sample_outputs(inputs), "float32"))
        return {"inputs": inputs.tolist(), "outputs": outputs.tolist()}


def _are_symbolic(tensors):
    return any(isinstance(x, keras.KerasTensor) for x in keras.tree.flatten(tensors))


def with_masks(inputs, mask, key):
    """The inputs as a dict, with all other masks joined to its `padding_mask`."""
    inputs_by_name = dict(inputs) if isinstance(inputs, dict) else {key: inputs}
    masks = dict(mask) if isinstance(mask, dict) else {key: mask}
    attached = getattr(inputs_by_name.get(key), "_keras_mask", None)
    if attached is not None:
        # A copy carries no mask: the blocks see only the `padding_mask`.
        inputs_by_name[key] = ops.copy(inputs_by_name[key])
    for given_mask in (masks.pop(key, None), attached):
        if given_mask is None:
            continue
        given_mask = ops.cast(given_mask, "bool")
        present = inputs_by_name.get("padding_mask")
        if present is not None:
            present = ops.cast(present, "bool")
            if not compatible(tuple(given_mask.shape), tuple(present.shape)):
                raise ValueError(
                    "`mask` must have the shape of `padding_mask`, "
                    f"{tuple(present.shape)}. Received: mask.shape={tuple(given_mask.shape)}"
                )
            given_mask = ops.logical_and(present, given_mask)
        inputs_by_name["padding_mask"] = given_mask
    if any(value is not None for value in masks.values()):
        raise ValueError(
            f"`mask` must mask {key!r}. Received: masks of "
            f"{sorted(k for k, v in masks.items() if v is not None)}"
        )
    return inputs_by_name
