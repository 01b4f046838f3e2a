import keras
from keras import ops

from keras_ssm.attributes import Attributes
from keras_ssm.checks import check_choice, check_flags, check_number
from keras_ssm.layers.activations import get_activation
from keras_ssm.layers.block_branch import BlockBranch
from keras_ssm.layers.block_mlp import BlockMLP
from keras_ssm.layers.discrete_system import DiscreteSystem
from keras_ssm.layers.inference import applied, infer
from keras_ssm.layers.mixer_config import clone_mixer, mixer_from_config
from keras_ssm.layers.norms import make_norm, normalize
from keras_ssm.layers.one_direction import OneDirection
from keras_ssm.layers.sequence_mixer import SequenceMixer
from keras_ssm.layers.ssm_layer import SSMLayer
from keras_ssm.layers.step_mask import masked
from keras_ssm.types import State, Tensor

RESIDUAL_DTYPES = (None, "float32")


@keras.saving.register_keras_serializable(package="keras_ssm")
class SSMBlock(BlockBranch, BlockMLP, Attributes, OneDirection, keras.layers.Layer):
    """Residual block around a layer that mixes the steps: mixer, activation, gate, norm.

    With f the mixer, activation and gate, a block computes x + f(norm(x)) (`prenorm`) or
    norm(x + f(x)). Dropout follows the activation and precedes the residual sum.

    | gate | of the activated mixer output g, or its input y |
    |---|---|
    | `None` | g |
    | `"linear"` | W g |
    | `"glu"`, `"full_glu"` | (W1 g) sigmoid(W2 g) |
    | `"half_glu1"` | g sigmoid(W g) |
    | `"half_glu2"` | y sigmoid(W g) |
    | `"wide"` | W (act(W1 u) * W2 y), u what the branch reads |

    A `bottleneck` lets the mixer read fewer features, act(W u), than the block has. With both,
    the block is that of gated state spaces (GSS): `SSMBlock(DSS(variant="exp-re-im",
    init="log_normal", fixed_dt=1.0), gate="wide", bottleneck=256, prenorm=True)`.

    With an `intermediate_dim` a second branch follows, as in transformers: W2 gelu_tanh(W1 x + b1)
    + b2 with a norm and a residual sum of its own. Dropout then precedes the two sums alone.

    Args:
        mixer: `keras_ssm.layers.SequenceMixer`, unbuilt. The block makes its own copy, named
            after the kind of the layer and with the block's dtype policy.
        activation: str or `None`. `"gelu"` (exact), `"gelu_tanh"`, or any name that
            `keras.activations.get` knows. Defaults to `"gelu"`.
        gate: str or `None`. See the table. Defaults to `"glu"`.
        norm: str or `None`. `"layer"`, `"rms"`, `"batch"` (its statistics count padded steps, as
            published) or `"scalar"` (`ScalarNormalization`). Defaults to `"layer"`.
        prenorm: bool. Whether the norm precedes the mixer. Defaults to `False`.
        dropout: float. Rate between 0 and 1. Defaults to `0.0`.
        tie_dropout: bool. Whether all steps of a sequence drop the same features.
            Defaults to `True`.
        norm_epsilon: float. Added to the variance by layer, RMS and batch norm. Defaults to `1e-5`;
            published S5 models have `1e-6` in layer norm.
        norm_momentum: float. Share of the running statistics of a batch norm that a batch
            leaves in place. Defaults to `0.9`; published S5 models have `0.95`.
        residual_dtype: str or `None`. `"float32"` keeps the residual stream x, which goes in and
            comes out, in single precision where the rest is computed in half, as published Mamba
            models do; the norm reads it unrounded. Defaults to `None`: the compute dtype.
        gate_expand: float. Width of the gate `"wide"` over the number of features. Defaults to
            `4`.
        bottleneck: int or `None`. Features that the mixer reads. Defaults to `None`: all.
        bottleneck_norm: bool. Whether another norm of the same kind stands between bottleneck and
            mixer. Defaults to `False`.
        intermediate_dim: int or `None`. Width of an MLP behind the mixer. Defaults to `None`: none.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(batch, length, features)`.
        mask: boolean tensor `(batch, length)`, True where valid; the rest counts as zero.
        initial_state: tensor or tree of tensors, state of the mixer.
        return_state: bool. Whether the mixer's final state is returned as well.
        timesteps: float tensor `(batch, length)`, for a mixer that reads them, such as `S5`.
        **arguments: whatever else the mixer names in its `call_arguments`.

    Returns:
        Tensor `(batch, length, features)`; with `return_state` a tuple of it and the state.

    Raises:
        ValueError: for an unknown `activation`, `gate`, `norm` or `residual_dtype`, a `dropout`
            outside [0, 1), a `norm_momentum` outside [0, 1], flags that are neither True nor False,
            a mixer that is no unbuilt state-space layer, or several channels or a bottleneck
            without a gate that brings the features back.

    Example:
        ```python
        block = keras_ssm.layers.SSMBlock(keras_ssm.layers.S4D(state_dim=32), dropout=0.1)
        y = block(np.zeros((2, 100, 16), "float32"))  # (2, 100, 16)
        ```

    Reference:
        - [S4](https://arxiv.org/abs/2111.00396), section 3.4 (GLU block).
        - [S5](https://arxiv.org/abs/2208.04933), appendix G.2 (half gates).
        - [GSS](https://arxiv.org/abs/2206.13947), section 3.2 (wide gate, bottleneck).
    """

    def __init__(
        self,
        mixer: SequenceMixer,
        activation: str | None = "gelu",
        gate: str | None = "glu",
        norm: str | None = "layer",
        prenorm: bool = False,
        dropout: float = 0.0,
        tie_dropout: bool = True,
        norm_epsilon: float = 1e-5,
        norm_momentum: float = 0.9,
        residual_dtype: str | None = None,
        gate_expand: float = 4,
        bottleneck: int | None = None,
        bottleneck_norm: bool = False,
        intermediate_dim: int | None = None,
        **kwargs,
    ):
        # Inputs are cast here: autocast would round a float32 state under a mixed policy.
        super().__init__(autocast=False, **kwargs)
        if not isinstance(mixer, SequenceMixer) or mixer.built:
            raise ValueError(
                "`mixer` must be an unbuilt state-space layer such as `S4D(state_dim=64)`. "
                f"Received: mixer={mixer}"
            )
        self.check_branch(mixer, gate, gate_expand, bottleneck, bottleneck_norm)
        self.check_mlp(intermediate_dim)
        check_flags(prenorm=prenorm, tie_dropout=tie_dropout)
        check_number("norm_epsilon", norm_epsilon, low=0)
        check_number("norm_momentum", norm_momentum, low=0, high=1)
        check_number("dropout", dropout)
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must lie in [0, 1). Received: dropout={dropout}")
        self.activation = activation
        self.gate = gate
        self.norm_kind = norm
        self.prenorm = prenorm
        self.dropout = dropout
        self.tie_dropout = tie_dropout
        self.norm_epsilon = norm_epsilon
        self.norm_momentum = norm_momentum
        check_choice("residual_dtype", residual_dtype, RESIDUAL_DTYPES)
        self.residual_dtype = residual_dtype
        self.gate_expand = gate_expand
        self.bottleneck = bottleneck
        self.bottleneck_norm = bottleneck_norm
        self.intermediate_dim = intermediate_dim
        self.supports_masking = True
        self.zero_covered = True  # a backbone does this once for all its blocks
        # Sublayers follow the block's policy (a map of them if quantised), or they do not load.
        policy = self.dtype_policy
        self.mixer = clone_mixer(mixer, dtype=policy)
        self.norm = make_norm(
            norm,
            norm_epsilon,
            norm_momentum,
            dtype=policy,
            name="norm",
            autocast=residual_dtype is None,
        )
        self.make_branch(kind=norm, epsilon=norm_epsilon, momentum=norm_momentum)
        self.make_mlp(
            kind=norm,
            epsilon=norm_epsilon,
            momentum=norm_momentum,
            autocast=residual_dtype is None,
        )
        self._activate = get_activation(activation)

    def build(self, input_shape):
        self.features = input_shape[-1]
        self.mixer.build(self.mixed_shape(input_shape))
        if self.norm is not None:
            self.norm.build(input_shape)
        self.build_branch(input_shape)
        self.build_mlp(input_shape)
        self.built = True

    def call(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        initial_state: State | None = None,
        return_state: bool = False,
        timesteps: Tensor | None = None,
        training: bool | None = None,
        **arguments,
    ) -> Tensor | tuple[Tensor, State]:
        x = ops.convert_to_tensor(x)
        self.check_block_inputs(x)
        if mask is not None and self.zero_covered:
            x = masked(x, mask)  # else the gradient of a norm or residual would be 0 * NaN
        x = ops.cast(x, self.stream_dtype)
        apply = applied(training)
        read = normalize(self.norm, x, apply) if self.prenorm else x
        arguments = self._arguments(timesteps=timesteps, **arguments)
        y = self.mixer(
            self.enter(read, apply),
            mask=mask,
            initial_state=initial_state,
            return_state=return_state,
            **arguments,
        )
        y, state = y if return_state else (y, None)
        y = self.mix_features(self.finish(x, read, y, apply, training), apply, training)
        return (y, state) if return_state else y

    @property
    def input_rank(self) -> int:
        """Axes of the input, as the mixer has them."""
        return self.mixer.input_rank

    @property
    def stream_dtype(self) -> str:
        """dtype of the residual stream."""
        widest = self.residual_dtype is None or self.compute_dtype == "float64"
        return self.compute_dtype if widest else self.residual_dtype

    @property
    def step_scale(self):
        """Scalar that multiplies every dt of the mixer."""
        self._check_scales()
        return self.mixer.step_scale

    @step_scale.setter
    def step_scale(self, value):
        self._check_scales()
        self.mixer.step_scale = value

    def _check_scales(self):
        if not isinstance(self.mixer, SSMLayer):
            self.mixer.refuse_scale(f"a mixer {type(self.mixer).__name__}")

    def _check_has_system(self):
        if not self.mixer.has_system:
            raise ValueError(
                "`system` belongs to time-invariant systems, such as those of `S4D` and `H3`. "
                f"Received: a mixer {type(self.mixer).__name__}"
            )

    def attribute_parts(self):
        return (self.mixer,) if self.built else ()

    def _arguments(self, **arguments):
        """Further arguments of the mixer's call, those that were given."""
        arguments = {name: value for name, value in arguments.items() if value is not None}
        self.mixer.check_takes(arguments)
        return arguments

    def step(
        self,
        x: Tensor,
        state: State,
        system: DiscreteSystem | None = None,
        timesteps: Tensor | None = None,
        **arguments,
    ) -> tuple[Tensor, State]:
        """Advances the block by one sample, at inference.

        Args:
            x: float tensor `(batch, features)`.
            state: tensor or tree of tensors, the mixer's state.
            system: what `discretize` returned, or `None` to compute it here.
            timesteps: float tensor `(batch,)` or `None`; see `S5.step`.
            **arguments: whatever else the mixer's `step` takes of its `call_arguments`.

        Returns:
            Tuple `(y, state)`: `(batch, features)` and the next state.

        Raises:
            ValueError: for inputs or states of another shape, or a bidirectional mixer.
        """
        x = ops.convert_to_tensor(x)
        self.check_block_inputs(x, rank=self.input_rank - 1)
        x = ops.cast(x, self.stream_dtype)
        read = normalize(self.norm, x, infer) if self.prenorm else x
        arguments = self._arguments(timesteps=timesteps, **arguments)
        arguments = {name: ops.convert_to_tensor(value) for name, value in arguments.items()}
        if system is not None:
            self._check_has_system()
            arguments["system"] = system
        y, state = self.mixer.step(self.enter(read, infer), state, **arguments)
        return self.mix_features(self.finish(x, read, y, infer), infer), state

    def discretize(self) -> DiscreteSystem | None:
        """Returns the mixer's discrete system, for a loop of `step`.

        It is `None` for a mixer whose system depends on the inputs: nothing can be computed
        beforehand.
        """
        return self.mixer.discretize() if self.mixer.has_system else None

    def get_initial_state(self, batch_size: int | Tensor, **sizes) -> State:
        """Returns the mixer's zero state for `batch_size` rows; `S4ND` needs `frame_sizes`."""
        return self.mixer.get_initial_state(batch_size, **sizes)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def compute_output_spec(
        self,
        x,
        mask=None,
        initial_state=None,
        return_state=False,
        timesteps=None,
        training=None,
        **arguments,
    ):
        y = keras.KerasTensor(tuple(x.shape), dtype=self.stream_dtype)
        arguments = self._arguments(timesteps=timesteps, **arguments)
        x = keras.KerasTensor(self.mixed_shape(x.shape), dtype=x.dtype)
        mixed = self.mixer.compute_output_spec(x, mask, initial_state, return_state, **arguments)
        return (y, mixed[1]) if return_state else y

    def compute_mask(self, inputs, previous_mask):
        return previous_mask

    def get_config(self):
        config = super().get_config()
        policies = keras.dtype_policies.DTypePolicyMap()
        for layer in self._flatten_layers(include_self=False):
            if layer.quantization_mode is not None:
                policies[layer.path] = layer.dtype_policy
        if len(policies) and not isinstance(self.dtype_policy, keras.dtype_policies.DTypePolicyMap):
            config["dtype"] = keras.dtype_policies.serialize(policies)
        return {
            **config,
            "mixer": keras.layers.serialize(self.mixer),
            "activation": self.activation,
            "gate": self.gate,
            "norm": self.norm_kind,
            "prenorm": self.prenorm,
            "dropout": self.dropout,
            "tie_dropout": self.tie_dropout,
            "norm_epsilon": self.norm_epsilon,
            "norm_momentum": self.norm_momentum,
            "residual_dtype": self.residual_dtype,
            "gate_expand": self.gate_expand,
            "bottleneck": self.bottleneck,
            "bottleneck_norm": self.bottleneck_norm,
            "intermediate_dim": self.intermediate_dim,
        }

    @classmethod
    def from_config(cls, config):
        cls.refuse_backwards(config)
        config = dict(config)
        config["mixer"] = mixer_from_config(config["mixer"])
        return cls(**config)
