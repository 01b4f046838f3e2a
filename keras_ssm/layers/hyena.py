import keras
from keras import ops

from keras_ssm.checks import check_at_least, check_number
from keras_ssm.initializers.mamba import fan_in_uniform
from keras_ssm.layers.discrete_system import DiscreteSystem
from keras_ssm.layers.fan_in_dense import constant, fan_in_dense
from keras_ssm.layers.fixed_system import FixedSystem
from keras_ssm.layers.implicit_filter import ImplicitFilter
from keras_ssm.layers.inference import infer
from keras_ssm.layers.kernel_evaluation import KernelEvaluation
from keras_ssm.layers.sequence_mixer import SequenceMixer
from keras_ssm.layers.stepwise import stepwise
from keras_ssm.ops.causal_conv import causal_conv, causal_conv_step
from keras_ssm.ops.exporting import known
from keras_ssm.ops.fourier import fft_conv
from keras_ssm.ops.valid_first import back_in_place, valid_first
from keras_ssm.ops.window import direct_conv, last_of_rows, window_step
from keras_ssm.types import State, Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class Hyena(ImplicitFilter, KernelEvaluation, FixedSystem, SequenceMixer):
    """Hyena: products with gates and long convolutions in turn, whose kernels a network makes.

    With order N,

        x_1, ..., x_N, v = causal_conv(u W + b)          a few taps, each feature with its own
        v                = h_i * (v x_i) + D_i (v x_i)   for i = N, ..., 2; * convolves
        output           = (v x_1) W_o + b_o

    The N - 1 kernels h_i of a feature are `max_length` long. A network with sines makes them from
    the lag t, with z(t) = (t, cos, -sin) at `emb_dim` numbers and t from 0 to 1 over `max_length`:

        h(t) = network(z(t)) (exp(-|decay| t) + shift)

    Samples further away than `max_length` do not contribute, and a shorter sequence meets the
    beginning of the kernels. (The published code ends its output after `max_length` steps.)

    There is no system of a few numbers behind such a kernel. The layer streams exactly by keeping
    the last inputs of its convolutions: a state and a step that grow with `max_length`. The state
    is a dict of `conv` `(batch, conv_width - 1, (order + 1) * features)`, and `long`
    `(batch, (order - 1) * features, max_length - 1)`, the last one last. Masked steps, at either
    end or between others, leave it as it is. Kernels are float32 under every policy, and do not
    depend on the inputs: `discretize` serves a whole stream.

    Weights: `in_proj`, `conv_kernel`, `conv_bias`, those of the filter, `D`
    `(order - 1, features)`, `out_proj`. Those of the filter are `positions` z
    `(max_length, emb_dim)` and `times` t `(max_length,)`, which files keep since rounding them anew
    would change the kernels, `frequency`, which all sines share, `filter_kernel_0`,
    `filter_bias_0` and so on, `filter_output`, and `decay`. They train slowly and do not decay.
    Positions train if asked, times and decays never.

    Args:
        max_length: int. Lags of the kernels.
        order: int. N, at least 2. Defaults to `2`.
        filter_width: int. Features inside the network. Defaults to `64`.
        filter_depth: int. Layers of the network between its first and its last. Defaults to `2`.
        emb_dim: int. Odd number of features of a position. Defaults to `3`.
        frequency: float. Initial factor in the sines. HyenaDNA has 10. Defaults to `1.0`.
        shift: float. What stays of a kernel that decayed. Defaults to `0.0`.
        conv_width: int. Taps of the short convolution, at least 2. Defaults to `3`.
        dropout: float. Rate at which the products v x_i are dropped in training. Defaults to `0.0`.
        train_positions: bool. Whether z trains. Defaults to `False`.
        method: str. `"auto"` and `"fft"` convolve by Fourier transforms, `"direct"` sums over the
            kernel (for short kernels, and in files without transforms), `"recurrent"` reads
            sample by sample. Defaults to `"auto"`.
        seed: int or `None`. Seed of the initial weights and of the dropout.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(batch, length, features)`.
        mask: boolean tensor `(batch, length)`, True where valid.
        initial_state: dict of tensors, as `get_initial_state` returns it.
        return_state: bool. Whether the state after the last valid sample is returned as well.
        training: bool or `None`. Whether products are dropped.

    Returns:
        Tensor `(batch, length, features)`; with `return_state` a tuple of it and the state.

    Raises:
        ValueError: for arguments out of range, an even `emb_dim`, an unknown `method`, and inputs,
            masks or states of another shape.

    Example:
        ```python
        layer = keras_ssm.layers.Hyena(max_length=100)
        y = layer(np.zeros((2, 100, 8), "float32"))  # (2, 100, 8)
        ```

    Reference:
        [Hyena](https://arxiv.org/abs/2302.10866), section 3.
    """

    lora_layers = ("in_proj", "out_proj")
    no_scale_because = "has kernels over steps, and no dt"
    bidirectional = False

    def __init__(
        self,
        max_length: int,
        order: int = 2,
        filter_width: int = 64,
        filter_depth: int = 2,
        emb_dim: int = 3,
        frequency: float = 1.0,
        shift: float = 0.0,
        conv_width: int = 3,
        dropout: float = 0.0,
        train_positions: bool = False,
        method: str = "auto",
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(seed=seed, **kwargs)
        self.check_filter(
            max_length, filter_width, filter_depth, emb_dim, frequency, shift, train_positions
        )
        check_at_least(2, order=order, conv_width=conv_width)
        check_number("dropout", dropout)
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must lie in [0, 1). Received: dropout={dropout}")
        self.order = order
        self.conv_width = conv_width
        self.dropout = dropout
        self.method = method
        self.seed_generator = keras.random.SeedGenerator(seed) if dropout else None

    def sequence_dtype(self, x: Tensor) -> str:
        return self.compute_dtype

    def state_shape(self, features: int) -> dict[str, tuple]:
        return {
            "conv": (self.conv_width - 1, (self.order + 1) * features),
            "long": ((self.order - 1) * features, self.max_length - 1),
        }

    def build_system(self, features: int) -> None:
        rng, inner, policy = self.make_rng(), (self.order + 1) * features, self.dtype_policy
        self.in_proj = fan_in_dense("in_proj", features, inner, True, rng, policy)
        for name, shape in (("conv_kernel", (self.conv_width, inner)), ("conv_bias", (inner,))):
            value = fan_in_uniform(shape, self.conv_width, rng)
            weight = self.add_weight(name=name, shape=shape, initializer=constant(value))
            setattr(self, name, weight)
        self.build_filter((self.order - 1) * features, rng)
        D = rng.standard_normal((self.order - 1, features))
        self.D = self.add_system_weight("D", D)
        self.out_proj = fan_in_dense("out_proj", features, features, True, rng, policy)

    def kernels(self, length: int | None = None) -> Tensor:
        """Returns the kernels h of the current weights, in the order in which they are applied.

        Args:
            length: int or `None`. Number of lags. Defaults to all.

        Returns:
            Tensor `(order - 1, features, length)`, without D.
        """
        taps = self.filter_taps(length)
        return ops.reshape(taps, (self.order - 1, self.features, taps.shape[-1]))

    def discretize(self) -> DiscreteSystem:
        """Returns the kernels and D of the current weights, for a loop of `step`.

        Returns:
            A `DiscreteSystem`: `dC` `(order - 1, features, max_length)`, the kernels from their
            last entry to their first, and `D` `(order - 1, features)`; `dA` and `dB` are `None`.
        """
        self.check_built()
        D = ops.copy(self.tensor(self.D))  # training and predicting give JAX's own buffer away
        return DiscreteSystem(None, None, ops.flip(self.kernels(), axis=-1), D)

    def call(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        initial_state: State | None = None,
        return_state: bool = False,
        training: bool | None = None,
    ) -> Tensor | tuple[Tensor, State]:
        drops = {"drops": True} if training and self.dropout and x.shape[0] != 0 else {}
        return self.run(x, mask, initial_state, return_state, **drops)

    def evaluate(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        initial_state: State | None = None,
        return_state: bool = False,
        drops: bool = False,
    ) -> tuple[Tensor, State]:
        method = self.chosen_method(x.shape[1])
        if method == "recurrent":
            return self._by_steps(x, mask, initial_state, drops)
        lengths = counts = None
        if mask is not None:
            x, counts = valid_first(x, mask)
            lengths = counts[:, -1]
        before = initial_state or {"conv": None, "long": None}
        if return_state and initial_state is None:
            before = self.get_initial_state(ops.shape(x)[0])
        u, conv = self._convolved(self.in_proj(x), before["conv"], lengths, return_state)
        *gates, v = ops.split(u, self.order + 1, axis=-1)
        kernels = self.kernels(None if before["long"] is not None else known(x.shape[1]))
        last = []
        for i, gate in enumerate(gates[:0:-1]):
            v = ops.cast(self._product(v, gate, drops), self.system_dtype)
            whole = v if before["long"] is None else self._after(before["long"], v, i)
            if return_state:
                last.append(last_of_rows(whole, self.max_length - 1, lengths))
            y = self._long(whole, kernels[i : i + 1], self.tensor(self.D)[i : i + 1], method)
            y = y if before["long"] is None else y[:, self.max_length - 1 :]
            v = ops.cast(y, self.compute_dtype)
        y = self.out_proj(v * gates[0])
        y = y if counts is None else back_in_place(y, counts)
        return y, {"conv": conv, "long": ops.concatenate(last, axis=1)} if return_state else None

    def advance(self, x: Tensor, state: State, system: DiscreteSystem) -> tuple[Tensor, State]:
        u = infer(self.in_proj, ops.cast(x, self.compute_dtype))
        kernel, bias = self._short_kernel()
        u, conv = causal_conv_step(u, kernel, bias, ops.cast(state["conv"], u.dtype))
        *gates, v = ops.split(u, self.order + 1, axis=-1)
        last = []
        for i, gate in enumerate(gates[:0:-1]):
            v = ops.cast(v * gate, self.system_dtype)
            y, window = window_step(v, self._part(state["long"], i), system.dC[i : i + 1])
            last.append(window)
            v = ops.cast(y + system.D[i] * v, self.compute_dtype)
        y = infer(self.out_proj, v * gates[0])
        conv = ops.cast(conv, self.system_dtype)
        return y, {"conv": conv, "long": ops.concatenate(last, axis=1)}

    def get_config(self):
        return {
            **super().get_config(),
            **self.filter_config(),
            "order": self.order,
            "conv_width": self.conv_width,
            "dropout": self.dropout,
            "method": self.method,
        }

    def _by_steps(self, x, mask, initial_state, drops):
        if drops:
            raise ValueError(
                "`dropout` needs a method that reads the whole sequence in training. "
                f"Received: method='recurrent', dropout={self.dropout}"
            )
        system = self.discretize()
        if initial_state is None:
            initial_state = self.get_initial_state(ops.shape(x)[0])
        return stepwise(lambda u, s: self.advance(u, s, system), x, mask, initial_state)

    def _short_kernel(self):
        return tuple(ops.cast(w, self.compute_dtype) for w in (self.conv_kernel, self.conv_bias))

    def _convolved(self, u, before, lengths, return_state):
        """The short convolution, and the last of its inputs."""
        before = None if before is None else ops.cast(before, u.dtype)
        y, last = causal_conv(u, *self._short_kernel(), before)
        if not return_state:
            return y, None
        if lengths is not None:
            whole = ops.concatenate([before, u], axis=1)
            last = ops.transpose(last_of_rows(whole, self.conv_width - 1, lengths), (0, 2, 1))
        return y, ops.cast(last, self.system_dtype)

    def _long(self, x, kernel, D, method):
        """The long convolution of x, and its skip."""
        if method == "direct":
            return direct_conv(x, kernel) + D[0] * x
        length = known(x.shape[1])
        return fft_conv(x, kernel if length is None else kernel[..., :length], D=D)

    def _after(self, state, v, i):
        """v after the inputs before it of the i-th long convolution."""
        return ops.concatenate([ops.transpose(self._part(state, i), (0, 2, 1)), v], axis=1)

    def _part(self, state, i):
        return state[:, i * self.features : (i + 1) * self.features]

    def _product(self, v, gate, drops):
        v = v * gate
        return keras.random.dropout(v, self.dropout, seed=self.seed_generator) if drops else v
