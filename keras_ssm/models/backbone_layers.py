import keras
import numpy as np
from keras import ops

from keras_ssm.checks import compatible
from keras_ssm.layers.conv_encoder import ConvEncoder
from keras_ssm.layers.discrete_system import DiscreteSystem
from keras_ssm.layers.inference import infer
from keras_ssm.layers.norms import normalize
from keras_ssm.layers.step_mask import StepMask, masked
from keras_ssm.layers.timesteps import uncovered
from keras_ssm.models.backbone_encoder import BackboneEncoder
from keras_ssm.types import State, Tensor


class BackboneLayers(BackboneEncoder):
    """What runs through the layers of a backbone: sequences with states, and single steps."""

    def run(self, inputs, training=None, initial_state=None, return_state=False):
        """`call` beside the graph, which knows neither states nor `timesteps`."""
        return run_layers(
            inputs[self.input_key],
            inputs["padding_mask"],
            self.encoder_layer,
            self.blocks,
            self.last_norm,
            self.mask_inputs,
            {name: value for name, value in inputs.items() if name not in self.input},
            training,
            initial_state,
            return_state,
            augmentation=self.augmentation_layers,
            encoder_dropout=self.encoder_dropout_layer,
        )

    @property
    def token_embedding(self):
        """The layer that embeds token ids; `None` without a vocabulary."""
        return self.encoder_layer if self.vocabulary_size is not None else None

    def check_state(self, initial_state, return_state):
        """Raises a `ValueError` for states that do not exist, or are of another number."""
        if initial_state is None and not return_state:
            return
        self.blocks[0].mixer.check_has_state()
        if self.convolves and initial_state is not None:
            initial_state = self.encoder_and_layers(initial_state, "initial_state")[1]
        if initial_state is not None and len(initial_state) != self.num_layers:
            raise ValueError(
                f"`initial_state` must have one entry for each of {self.num_layers} layers. "
                f"Received: {len(initial_state)} entries"
            )

    def state_spec(self, batch):
        """The states of `batch` rows as symbolic tensors."""
        sizes = [None] * self.axes
        x = keras.KerasTensor((batch, *sizes, self.hidden_dim), dtype=self.compute_dtype)
        layers = [block.compute_output_spec(x, return_state=True)[1] for block in self.blocks]
        if not self.convolves:
            return layers
        return {"encoder": self.encoder_layer.state_spec(batch), "layers": layers}

    def step(
        self,
        x: Tensor,
        states: list[State],
        systems: list | None = None,
        timesteps: Tensor | None = None,
        **arguments,
    ) -> tuple[Tensor, list[State]]:
        """Advances every layer by one sample, at inference.

        Args:
            x: float tensor `(batch, input_dim)`, or token ids `(batch,)`; the samples of a step
                `(batch, encoder_stride, input_dim)` where the encoder strides.
            states: list of the states of the layers, as `get_initial_state` returns it.
            systems: list of discrete systems, or `None` to compute them here.
            timesteps: float tensor `(batch,)` or `None`; see `S5.step`.
            **arguments: whatever else the mixer's `step` takes of its `call_arguments`.

        Returns:
            Tuple `(y, states)`: `(batch, hidden_dim)` and the next states.

        Raises:
            ValueError: for inputs or states of another shape, or a bidirectional mixer.
        """
        encoder = None
        if self.convolves:
            encoder, states = self.encoder_and_layers(states, "states")
        systems = [None] * self.num_layers if systems is None else systems
        if len(states) != self.num_layers or len(systems) != self.num_layers:
            raise ValueError(
                f"`states` and `systems` must have one entry for each of {self.num_layers} "
                f"layers. Received: {len(states)} states, {len(systems)} systems"
            )
        if self.vocabulary_size and isinstance(x, np.ndarray) and x.dtype.kind in "iu":
            check_token_ids(x, self.vocabulary_size)
        x = ops.convert_to_tensor(x)
        sizes = (None,) * (self.axes - 1)  # of a frame
        sample = () if self.vocabulary_size else (*sizes, self.input_dim)
        sample = (self.stride, *sample) if self.stride > 1 else sample
        if not len(x.shape) or not compatible(tuple(x.shape[1:]), sample):
            named = [f"size_{i + 1}" if n is None else str(n) for i, n in enumerate(sample)]
            expected = f"({', '.join(['batch', *named])}{'' if sample else ','})"
            raise ValueError(
                f"`x` of a step must have shape {expected}. Received: x.shape={tuple(x.shape)}"
            )
        dtype = keras.backend.standardize_dtype(x.dtype)
        if ("int" in dtype) != (not sample) or "bool" in dtype:
            kind = "floats, scaled as the preprocessor would" if sample else "integers"
            raise ValueError(f"`x` of a step must be {kind}. Received: x.dtype={dtype}")
        if encoder is not None:
            y, encoder = self.encoder_layer.step(x, encoder)
        else:
            y = x if self.encoder_layer is None else infer(self.encoder_layer, x)
        following = []
        for block, state, system in zip(self.blocks, states, systems, strict=True):
            y, state = block.step(y, state, system, timesteps, **arguments)
            following.append(state)
        if encoder is not None:
            following = {"encoder": encoder, "layers": following}
        return normalize(self.last_norm, y, infer), following

    def discretize(self) -> list[DiscreteSystem | None]:
        """Returns the discrete system of every layer, for a loop of `step`."""
        return [block.discretize() for block in self.blocks]

    def get_initial_state(self, batch_size: int | Tensor, **sizes) -> list[State]:
        """Returns the zero state of every layer for `batch_size` rows; see `S4ND` for sizes."""
        layers = [block.get_initial_state(batch_size, **sizes) for block in self.blocks]
        if not self.convolves:
            return layers
        return {"encoder": self.encoder_layer.get_initial_state(batch_size), "layers": layers}


def run_layers(
    x,
    mask,
    encoder,
    blocks,
    last_norm,
    mask_inputs,
    arguments=None,
    training=None,
    initial_state=None,
    return_state=False,
    intercept=None,
    augmentation=(),
    encoder_dropout=None,
):
    """Encoder, blocks and last norm on sequences; with `return_state` the states as well.

    With `intercept` its values of the embeddings and -1, and of what leaves block i and i, go on.
    """
    context = {} if training is None else {"training": training}
    # Masked steps are set to zero before any layer reads them: their gradient would be 0 * NaN.
    y = masked(x, mask) if mask_inputs else x
    for layer in augmentation:
        y = layer(y, mask=mask, **context)
    remains = None
    if not isinstance(encoder, ConvEncoder):
        y = y if encoder is None else encoder(y)
    elif initial_state is None and not return_state:
        y, mask = encoder([y, mask])
    else:
        if initial_state is not None:
            remains, initial_state = initial_state["encoder"], initial_state["layers"]
        else:
            remains = encoder.get_initial_state(ops.shape(x)[0])
        y, mask, remains = encoder.read(y, mask, remains)
    y = y if encoder_dropout is None else encoder_dropout(y, **context)
    y = y if intercept is None else intercept(y, -1)
    arguments = {**(arguments or {}), **context, "mask": mask if mask_inputs else None}
    if "timesteps" in arguments:
        arguments["timesteps"] = uncovered(arguments["timesteps"], mask, initial_state is None)
    states = []
    for i, block in enumerate(blocks):
        if initial_state is not None:
            arguments["initial_state"] = initial_state[i]
        if return_state:
            y, state = block(y, return_state=True, **arguments)
            states.append(state)
        else:
            y = block(y, **arguments)
        y = y if intercept is None else intercept(y, i)
    y = y if last_norm is None else last_norm(y, **context)
    y = StepMask(name="step_mask")([y, mask])
    states = states if remains is None else {"encoder": remains, "layers": states}
    return (y, states) if return_state else y


def check_token_ids(ids, vocabulary_size):
    """Raises a `ValueError` for ids past the table, of which JAX reads NaN or another row."""
    if ids.size and (ids.min() < 0 or ids.max() >= vocabulary_size):
        raise ValueError(
            f"`token_ids` must lie from 0 to {vocabulary_size - 1}. "
            f"Received: ids from {ids.min()} to {ids.max()}"
        )
