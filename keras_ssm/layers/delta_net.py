import keras
import numpy as np
from keras import ops

from keras_ssm.checks import check_flags, check_number, check_positive
from keras_ssm.initializers.mamba import step_bias
from keras_ssm.layers.conv_mixer import ConvMixer, joined, last_axis_as, stop_where_masked
from keras_ssm.layers.exact_layers import rms, scale_of
from keras_ssm.ops import backend
from keras_ssm.ops.delta import delta_rule, delta_step


@keras.saving.register_keras_serializable(package="keras_ssm")
class DeltaNet(ConvMixer):
    """DeltaNet: a matrix for each head that every sample corrects, by the delta rule.

    With K features of a key, V of a value and R = `householders` corrections a sample,

        [q, k, v] = silu(conv(u [W_q, W_k, W_v]))     causal, each feature with its own kernel
        q, k  = q / |q| / sqrt(K), k / |k|
        beta  = sigmoid(u W_b)                        doubled by `neg_eigenvalues`
        S     = exp(g) S,   g = -exp(A_log) softplus(u W_a + dt_bias)        if `gated`
        S     = S + beta k (v - k^T S)                R times, each with its own beta, k and v
        y     = q^T S
        output = (norm(y) silu(u W_g)) W_out          the gate if `output_gate`

    where the norm divides by the root mean square over each head and multiplies by `norm_scale`.
    A correction multiplies S by I - beta k k^T. With beta up to 2 this may be a reflection, and
    products of reflections are permutations: such a layer keeps track of a state where no system
    with a diagonal matrix can. R > 1 is DeltaProduct. A sequence is evaluated in chunks of batched
    matmuls.

    The state is a dict: `conv` `(batch, conv_width - 1, heads (K + R K + R V))`, the last inputs of
    the convolution if there is one, oldest first, and `ssm` `(batch, heads, K, V)`. Masked steps,
    at either end or between others, leave it as it is. `A_log`, `dt_bias`, the convolution and the
    recurrence are float32 under every policy.

    Weights: `in_proj` (for the gate, q, k, v, beta and g, in this order), `conv_kernel`
    `(conv_width, heads (K + R K + R V))`, `conv_bias`, `A_log` and `dt_bias` `(heads,)`,
    `norm_scale` `(V,)`, `out_proj`.

    Args:
        heads: int. Defaults to `4`.
        head_dim: int. K. Defaults to `128`.
        expand_v: float. V over K. Defaults to `1.0`.
        householders: int. R. Defaults to `1`.
        gated: bool. Whether the state decays, as in Gated DeltaNet. Defaults to `False`.
        neg_eigenvalues: bool. Whether beta goes up to 2, and not 1. Defaults to `False`.
        output_gate: bool. Whether a gate multiplies the outputs of the heads. Defaults to `False`.
        conv_width: int or `None`. Samples that the convolution sees, at least 2, or `None` for no
            convolution: keys then depend on one sample alone. Defaults to `4`.
        chunk_size: int or `None`: the features of a key, but 16 to 64. Corrections in a chunk.
            Changes speed and memory only.
        conv_bias: bool. Whether the convolution has a bias. Defaults to `False`.
        use_bias: bool. Whether `in_proj` and `out_proj` have biases. Defaults to `False`.
        norm_epsilon: float. Added to the mean squares. Defaults to `1e-5`.
        dt_min: float. Smallest initial step, softplus(dt_bias). Defaults to `1e-3`.
        dt_max: float. Largest initial step. Defaults to `1e-1`.
        dt_floor: float. No initial step is smaller. Defaults to `1e-4`.
        residual_layers: int. Residual branches of the whole model: the initial `out_proj` is
            divided by its root. Defaults to `1`.
        seed: int or `None`. Seed of the initial weights.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(batch, length, features)`.
        mask: boolean tensor `(batch, length)`, True where valid.
        initial_state: dict of tensors, as `get_initial_state` returns it.
        return_state: bool. Whether the state after the last valid sample is returned as well.

    Returns:
        Tensor `(batch, length, features)`; with `return_state` a tuple of it and the state.

    Raises:
        ValueError: for arguments out of range, an `expand_v` that leaves no whole number of
            features, and inputs, masks or states of another shape.

    Example:
        ```python
        layer = keras_ssm.layers.DeltaNet(heads=2, head_dim=8, neg_eigenvalues=True)
        y = layer(np.zeros((2, 100, 16), "float32"))  # (2, 100, 16)
        ```

    Reference:
        [DeltaNet](https://arxiv.org/abs/2406.06484), section 3,
        [Gated DeltaNet](https://arxiv.org/abs/2412.06464),
        [negative eigenvalues](https://arxiv.org/abs/2411.12537) and
        [DeltaProduct](https://arxiv.org/abs/2502.10297).
    """

    may_lack_conv = True
    no_scale_because = "has no dt, and is not time-invariant"
    undecayed_weights = ("A_log", "dt_bias", "conv_bias", "norm_scale")

    def __init__(
        self,
        heads: int = 4,
        head_dim: int = 128,
        expand_v: float = 1.0,
        householders: int = 1,
        gated: bool = False,
        neg_eigenvalues: bool = False,
        output_gate: bool = False,
        conv_width: int | None = 4,
        chunk_size: int | None = None,
        conv_bias: bool = False,
        use_bias: bool = False,
        norm_epsilon: float = 1e-5,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dt_floor: float = 1e-4,
        residual_layers: int = 1,
        seed: int | None = None,
        **kwargs,
    ):
        steps = dt_min, dt_max, dt_floor
        super().__init__(conv_width, conv_bias, use_bias, *steps, residual_layers, seed, **kwargs)
        check_positive(heads=heads, head_dim=head_dim, householders=householders)
        check_number("expand_v", expand_v, low=0)
        check_flags(gated=gated, neg_eigenvalues=neg_eigenvalues, output_gate=output_gate)
        if chunk_size is not None:
            check_positive(chunk_size=chunk_size)
        check_number("norm_epsilon", norm_epsilon, low=0)
        self.value_dim = round(head_dim * expand_v)
        if self.value_dim < 1 or abs(head_dim * expand_v - self.value_dim) > 1e-5 * head_dim:
            raise ValueError(
                "`expand_v` times `head_dim` must be a positive integer. "
                f"Received: expand_v={expand_v!r}, head_dim={head_dim!r}"
            )
        self.heads = heads
        self.head_dim = head_dim
        self.expand_v = expand_v
        self.householders = householders
        self.gated = gated
        self.neg_eigenvalues = neg_eigenvalues
        self.output_gate = output_gate
        self.chunk_size = chunk_size
        self.norm_epsilon = norm_epsilon

    def inner_features(self, features):
        """Features between the two projections: the values of all heads."""
        return self.heads * self.value_dim

    def conv_sizes(self):
        """Features of the queries, keys and values of all heads."""
        keys = self.heads * self.head_dim
        return keys, self.householders * keys, self.householders * self.heads * self.value_dim

    def conv_channels(self, features):
        """Features of the convolution."""
        return sum(self.conv_sizes())

    def ssm_shape(self, features):
        """Shape of the recurrence's state of one row."""
        return (self.heads, self.head_dim, self.value_dim)

    def parts(self):
        """Features that the input projection makes, of each part in its order."""
        gate = self.heads * self.value_dim if self.output_gate else 0
        decays = self.heads if self.gated else 0
        return gate, self.conv_channels(None), self.householders * self.heads, decays

    def build_system(self, features):
        self.build_projections(features, sum(self.parts()), self.inner_features(features))
        if self.gated:
            # -A is uniform up to 16, without 0, whose logarithm is infinite.
            A = 16.0 * (1.0 - self.rng.random(self.heads))
            self.A_log = self.add_system_weight("A_log", np.log(A))
            steps = (self.dt_min, self.dt_max, self.dt_floor, self.rng)
            self.dt_bias = self.add_system_weight("dt_bias", step_bias(self.heads, *steps))
        self.norm_scale = self.add_system_weight("norm_scale", np.ones(self.value_dim))

    def split(self, projected):
        gate, convolved, strengths, decays = self.parts()
        rest = strengths + decays
        if not gate:
            return (None, *backend.split(projected, (convolved, rest)))
        return backend.split(projected, (gate, convolved, rest))

    def _selected(self, convolved, rest):
        """Queries, keys, values, strengths and logarithms of decays, which the input chooses."""
        q, k, v = backend.split(self.exact(convolved), self.conv_sizes())
        R, heads = self.householders, self.heads
        q = _unit(last_axis_as(q, (heads, self.head_dim))) * self.head_dim**-0.5
        k = _unit(last_axis_as(k, (R, heads, self.head_dim)))
        v = last_axis_as(v, (R, heads, self.value_dim))
        beta, g = self.exact(rest), None
        if self.gated:
            beta, a = backend.split(beta, (R * heads, heads))
            g = ops.softplus(a + self.tensor(self.dt_bias)) * -ops.exp(self.tensor(self.A_log))
        beta = ops.sigmoid(last_axis_as(beta, (R, heads)))
        return q, k, v, 2.0 * beta if self.neg_eigenvalues else beta, g

    def recur(self, convolved, rest, mask, state):
        q, k, v, beta, g = self._selected(convolved, rest)
        beta = stop_where_masked(beta, mask)
        g = None if g is None else stop_where_masked(g, mask)
        return delta_rule(q, k, v, beta, g, state, self.chunk_size)

    def recur_step(self, convolved, rest, state):
        return delta_step(*self._selected(convolved, rest), state)

    def read_out(self, y, gate):
        """Norm and gate in float32; the result in the compute dtype."""
        y = joined(rms(y, self.norm_epsilon) * self.tensor(self.norm_scale))
        y = y if gate is None else backend.gated(y, self.exact(gate))
        return ops.cast(y, self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "heads": self.heads,
            "head_dim": self.head_dim,
            "expand_v": self.expand_v,
            "householders": self.householders,
            "gated": self.gated,
            "neg_eigenvalues": self.neg_eigenvalues,
            "output_gate": self.output_gate,
            "chunk_size": self.chunk_size,
            "norm_epsilon": self.norm_epsilon,
        }


def _unit(x):
    """x with norm 1 along the last axis, or 0 where it is."""
    scale = scale_of(x)
    x = x / scale
    return x * ops.rsqrt(ops.sum(x * x, axis=-1, keepdims=True) + (1e-3 / scale) ** 2)
