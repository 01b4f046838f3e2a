import keras
import numpy as np
from keras_hub.models import Backbone

from keras_ssm.checks import check_flags, check_positive, compatible
from keras_ssm.keras_internals import Functional
from keras_ssm.layers.conv_encoder import ConvEncoder
from keras_ssm.layers.mixer_config import clone_mixer, layer_config, mixer_from_config
from keras_ssm.layers.norms import make_norm
from keras_ssm.layers.sequence_mixer import SequenceMixer
from keras_ssm.layers.ssm_block import SSMBlock
from keras_ssm.models.backbone_inputs import (
    check_mixer,
    check_model_inputs,
    full_mask,
    make_encoder,
    make_encoder_dropout,
    named_shape,
    own_copies,
)
from keras_ssm.models.backbone_layers import BackboneLayers, check_token_ids, run_layers
from keras_ssm.models.model_timesteps import standard_argument
from keras_ssm.models.saving.adapted_files import adapt, lora_config
from keras_ssm.models.saving.backbone_files import BackboneFiles
from keras_ssm.models.saving.frozen_layers import freeze, frozen_config
from keras_ssm.models.trainer.sequence_trainer import SequenceTrainer
from keras_ssm.models.trainer.targets import to_numpy
from keras_ssm.types import Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class SSMBackbone(BackboneFiles, BackboneLayers, SequenceTrainer, Backbone, Functional):
    """Stack of state-space blocks over an encoder: sequences in, hidden sequences out.

    Any `SequenceMixer` can be the mixer, the way `keras.layers.RNN` takes a cell. With `S4ND` the
    inputs are images or videos, `(batch, *sizes, input_dim)` and a mask without the last axis, and
    so are the outputs. The backbone keeps its configuration, not the instance: block i holds a
    fresh copy with the seed `seed + i`.

    Args:
        mixer: `keras_ssm.layers.SequenceMixer`. The layer to stack.
        num_layers: int. Number of blocks.
        hidden_dim: int. Features of the hidden sequence.
        vocabulary_size: int or `None`. If set, inputs are token ids below this number.
        input_dim: int. Features of a float input. Defaults to `1`.
        encoder: str or `None`. `"linear"`, `"embedding"`, `"one_hot"` (a dense layer on one-hot
            tokens: an embedding with a bias), `"conv"` (a `ConvEncoder`: one step for
            `encoder_stride` samples), `None` (inputs already have `hidden_dim` features), or
            `"auto"`: linear or embedding by `vocabulary_size`. Defaults to `"auto"`.
        activation, gate, norm, prenorm, dropout, tie_dropout: as in `SSMBlock`.
        norm_epsilon, norm_momentum, residual_dtype: as in `SSMBlock`.
        gate_expand, bottleneck, bottleneck_norm, intermediate_dim: as in `SSMBlock`.
        final_norm: str or `None`. Norm after the last block. Defaults to `None`.
        mask_inputs: bool. Whether padded steps are zeroed before the encoder and every mixer;
            they may then hold anything. If not, padding is read like any other step and only
            left out of pooling, as published DSS and S5 models do: in a bidirectional model the
            logits depend on it, and `fit` refuses NaN there. Defaults to `True`.
        encoder_width: int or `None`. Samples that a step of the encoder `"conv"` reads. Defaults
            to `4 * encoder_stride`.
        encoder_stride: int. Samples from one step of the encoder `"conv"` to the next. The hidden
            sequence then has `length // encoder_stride` steps; `output_mask` says which of them
            are valid. Defaults to `1`.
        encoder_dropout: float. Rate at which encoded features are dropped. Defaults to `0.0`.
        augmentation: list of layers, such as `RandomGain`, or `None`. They change the inputs
            before the encoder, in training only. The backbone makes its own copies.
        dtype: dtype policy of the model. The systems inside stay float32.
        name: str or `None`. Name of the model.
        trainable: bool. Whether the weights train. Defaults to `True`.

    Call arguments:
        inputs: float tensor `(batch, length, input_dim)`, or integers `(batch, length)` if
            `vocabulary_size` is set; or a dict of `inputs` or `token_ids` and, optionally,
            `padding_mask` `(batch, length)`, True where valid, and `timesteps`
            `(batch, length)`, for a mixer such as `S5` that reads samples at irregular times:
            factors on dt, the time since the sample before in units of the usual one. What they
            are in padded steps does not matter. Further `call_arguments` of the mixer are
            arrays `(batch, length, ...)` of their names.
        initial_state: list of the states of the layers, as `get_initial_state` returns it.
        return_state: bool. Whether the states after each row's last valid step are returned.

    Returns:
        Tensor `(batch, length, hidden_dim)`, with fewer steps where the encoder strides; with
        `return_state` a tuple of it and the states.

    Raises:
        ValueError: for a mixer that is no state-space layer, an unknown encoder, sizes below 1,
            or inputs of another kind or shape.

    Example:
        ```python
        backbone = keras_ssm.models.SSMBackbone(
            keras_ssm.layers.S4D(state_dim=64), num_layers=4, hidden_dim=64, input_dim=3
        )
        y = backbone(np.zeros((2, 1000, 3), "float32"))  # (2, 1000, 64)
        ```

    Reference:
        [S4](https://arxiv.org/abs/2111.00396), section 3.4.
    """

    def __init__(
        self,
        mixer: SequenceMixer,
        num_layers: int,
        hidden_dim: int,
        vocabulary_size: int | None = None,
        input_dim: int = 1,
        encoder: str | None = "auto",
        activation: str | None = "gelu",
        gate: str | None = "glu",
        norm: str | None = "layer",
        prenorm: bool = False,
        final_norm: str | None = None,
        dropout: float = 0.0,
        tie_dropout: bool = True,
        norm_epsilon: float = 1e-5,
        norm_momentum: float = 0.9,
        mask_inputs: bool = True,
        residual_dtype: str | None = None,
        encoder_width: int | None = None,
        encoder_stride: int = 1,
        augmentation: list | None = None,
        gate_expand: float = 4,
        bottleneck: int | None = None,
        bottleneck_norm: bool = False,
        intermediate_dim: int | None = None,
        encoder_dropout: float = 0.0,
        dtype: str | keras.dtype_policies.DTypePolicy | None = None,
        name: str | None = None,
        trainable: bool = True,
    ):
        check_mixer(mixer, vocabulary_size, encoder, augmentation)
        num_layers, hidden_dim, input_dim = check_positive(
            num_layers=num_layers, hidden_dim=hidden_dim, input_dim=input_dim
        )
        check_flags(mask_inputs=mask_inputs, trainable=trainable)
        if vocabulary_size is not None:
            (vocabulary_size,) = check_positive(vocabulary_size=vocabulary_size)
        first = make_encoder(
            encoder, hidden_dim, vocabulary_size, input_dim, encoder_width, encoder_stride, dtype
        )
        if isinstance(first, ConvEncoder) and not mask_inputs:
            raise ValueError(
                "The encoder 'conv' leaves padding out and needs `mask_inputs=True`. "
                "Received: mask_inputs=False"
            )
        dropped = make_encoder_dropout(encoder_dropout, dtype)
        augmentation = own_copies(augmentation, vocabulary_size)

        # === Layers ===
        blocks = [
            SSMBlock(
                clone_mixer(mixer, seed=None if mixer.seed is None else mixer.seed + i),
                activation=activation,
                gate=gate,
                norm=norm,
                prenorm=prenorm,
                dropout=dropout,
                tie_dropout=tie_dropout,
                norm_epsilon=norm_epsilon,
                norm_momentum=norm_momentum,
                residual_dtype=residual_dtype,
                gate_expand=gate_expand,
                bottleneck=bottleneck,
                bottleneck_norm=bottleneck_norm,
                intermediate_dim=intermediate_dim,
                dtype=dtype,
                name=f"ssm_block_{i}",
            )
            for i in range(num_layers)
        ]
        last_norm = make_norm(
            final_norm,
            norm_epsilon,
            norm_momentum,
            dtype=dtype,
            name="final_norm",
            autocast=residual_dtype is None,
        )

        # === Functional Model ===
        policy = keras.dtype_policies.get(dtype)
        float_dtype = "float64" if policy.variable_dtype == "float64" else "float32"
        sizes = (None,) * (mixer.input_rank - 2)
        if vocabulary_size is not None:
            key, x = "token_ids", keras.Input((None,), dtype="int32", name="token_ids")
        else:
            key, x = "inputs", keras.Input((*sizes, input_dim), dtype=float_dtype, name="inputs")
        mask = keras.Input(sizes, dtype="bool", name="padding_mask")
        for block in blocks:
            block.zero_covered = False
        extra = {"augmentation": augmentation, "encoder_dropout": dropped}
        y = run_layers(x, mask, first, blocks, last_norm, mask_inputs, **extra)
        super().__init__(inputs={key: x, "padding_mask": mask}, outputs=y, dtype=dtype, name=name)
        if not trainable:
            self.trainable = False  # the layers exist only now

        # === Config ===
        self.encoder_layer = first
        self.encoder_dropout_layer = dropped
        self.augmentation_layers = augmentation
        self.blocks = tuple(blocks)
        self.last_norm = last_norm
        self.mixer_config = layer_config(clone_mixer(mixer))
        self.num_layers = num_layers
        self.hidden_dim = hidden_dim
        self.vocabulary_size = vocabulary_size
        self.input_dim = input_dim
        self.encoder = encoder
        self.activation = activation
        self.gate = gate
        self.norm = norm
        self.prenorm = prenorm
        self.final_norm = final_norm
        self.dropout = dropout
        self.tie_dropout = tie_dropout
        self.norm_epsilon = norm_epsilon
        self.norm_momentum = norm_momentum
        self.mask_inputs = mask_inputs
        self.residual_dtype = residual_dtype
        self.gate_expand = gate_expand
        self.bottleneck = bottleneck
        self.bottleneck_norm = bottleneck_norm
        self.intermediate_dim = intermediate_dim
        self.encoder_dropout = encoder_dropout
        strided = isinstance(first, ConvEncoder)
        self.encoder_width = first.width if strided else None
        self.encoder_stride = first.stride if strided else 1
        self.augmentation = [layer_config(layer) for layer in augmentation] or None
        self.complete()

    @property
    def input_key(self) -> str:
        """Name of the main input: `"token_ids"` with a vocabulary, `"inputs"` otherwise."""
        return "inputs" if self.vocabulary_size is None else "token_ids"

    def standardize(self, inputs: Tensor | dict) -> dict[str, Tensor]:
        """Brings what a person passes into the dict that the graph takes.

        Args:
            inputs: array, tensor or dict; see the class.

        Returns:
            Dict of the main input and a full `padding_mask`.

        Raises:
            ValueError: for missing or unknown keys, another rank, feature count or dtype, no
                steps, or a mask of another shape.
        """
        key = self.input_key
        tensors = dict(inputs) if isinstance(inputs, dict) else {key: inputs}
        mixer = self.blocks[0].mixer
        unknown = sorted(set(tensors) - {key, "padding_mask", "timesteps", *mixer.call_arguments})
        if key not in tensors or unknown:
            raise ValueError(
                f"`inputs` must be an array or a dict with {key!r} and, optionally, "
                f"'padding_mask' and 'timesteps'. Received: keys {sorted(tensors)}"
            )
        x, mask = tensors[key], tensors.get("padding_mask")
        if not hasattr(x, "shape"):
            x = to_numpy(x)
        check_model_inputs(key, x.shape, x.dtype, self.input_dim, self.axes)
        if mask is None:
            mask = full_mask(x if key == "token_ids" else x[..., 0])
        elif not hasattr(mask, "shape"):
            mask = to_numpy(mask)
        expected = tuple(x.shape if key == "token_ids" else x.shape[:-1])
        if not compatible(tuple(mask.shape), expected):
            raise ValueError(
                f"`padding_mask` must have shape {named_shape(self.axes)} = {expected}. "
                f"Received: padding_mask.shape={tuple(mask.shape)}"
            )
        if key == "token_ids" and isinstance(x, np.ndarray):
            read = x[np.asarray(to_numpy(mask), bool)] if self.mask_inputs else x
            check_token_ids(read, self.vocabulary_size)
        standard = {key: x, "padding_mask": mask}
        arguments = {k: v for k, v in tensors.items() if k not in standard and v is not None}
        mixer.check_takes(arguments)
        self.check_encoder_takes(arguments)
        for name, value in arguments.items():
            standard[name] = standard_argument(name, value, mask)
        return standard

    @property
    def axes(self) -> int:
        """Axes between batch and features: 1 for sequences, 2 for images."""
        return self.blocks[0].mixer.input_rank - 2

    @property
    def step_scale(self):
        """Scalar that multiplies every dt, of images one an axis; setting it sets every layer."""
        return self.blocks[0].step_scale

    @step_scale.setter
    def step_scale(self, value):
        self.check_encoder_scale(value)
        for block in self.blocks:
            block.step_scale = value

    def sample_inputs(self):
        """Returns a short, fixed input of one row."""
        rng = np.random.default_rng(0)
        if self.vocabulary_size is not None:
            return rng.integers(self.vocabulary_size, size=(1, 16)).astype("int32")
        sizes = [max(16, 4 * self.stride)] if self.axes == 1 else [8] * self.axes
        return rng.standard_normal((1, *sizes, self.input_dim)).astype("float32")

    def get_config(self):
        return {
            **super().get_config(),
            "mixer": self.mixer_config,
            "num_layers": self.num_layers,
            "hidden_dim": self.hidden_dim,
            "vocabulary_size": self.vocabulary_size,
            "input_dim": self.input_dim,
            "encoder": self.encoder,
            "activation": self.activation,
            "gate": self.gate,
            "norm": self.norm,
            "prenorm": self.prenorm,
            "final_norm": self.final_norm,
            "dropout": self.dropout,
            "tie_dropout": self.tie_dropout,
            "norm_epsilon": self.norm_epsilon,
            "norm_momentum": self.norm_momentum,
            "mask_inputs": self.mask_inputs,
            "residual_dtype": self.residual_dtype,
            "gate_expand": self.gate_expand,
            "bottleneck": self.bottleneck,
            "bottleneck_norm": self.bottleneck_norm,
            "intermediate_dim": self.intermediate_dim,
            "encoder_dropout": self.encoder_dropout,
            **self.encoder_config(),
            **frozen_config(self),
            **lora_config(self),
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        frozen, lora = config.pop("frozen", ()), config.pop("lora", None)
        config["mixer"] = mixer_from_config(config["mixer"])
        model = super().from_config(config)
        freeze(model, frozen)
        if lora is not None:
            adapt(model, lora)
        return model
