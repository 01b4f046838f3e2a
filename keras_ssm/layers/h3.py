import keras
import numpy as np
from keras import ops

from keras_ssm.checks import check_at_least, check_positive
from keras_ssm.layers.discrete_system import DiscreteSystem
from keras_ssm.layers.evaluation import Evaluation
from keras_ssm.layers.fan_in_dense import fan_in_dense
from keras_ssm.layers.fixed_system import FixedSystem
from keras_ssm.layers.inference import infer
from keras_ssm.layers.s4d import S4D
from keras_ssm.layers.sequence_mixer import SequenceMixer
from keras_ssm.layers.step_mask import masked
from keras_ssm.ops.exporting import known
from keras_ssm.ops.fourier import fft_conv
from keras_ssm.ops.short_conv import correlation, short_conv
from keras_ssm.ops.valid_first import back_in_place, valid_first
from keras_ssm.ops.window import last_of_rows, window_step
from keras_ssm.types import State, Tensor

PROJECTIONS = ("q_dense", "k_dense", "v_dense")


@keras.saving.register_keras_serializable(package="keras_ssm")
class H3(Evaluation, FixedSystem, SequenceMixer):
    """H3: a shift system and a diagonal one between three projections of the input.

    With N states in each system and heads of d features,

        q, k, v = u W_q + b_q, u W_k + b_k, u W_v + b_v
        k'_t    = sum_j K_j k_(t-j) + D_s k_t,   K_j = sum_n B_n C_(n+j)     the shift system
        s       = S4D(k' v^T)                    d x d numbers of each head, one system a head
        output  = (q^T s) W_o + b_o

    where k' v^T is the outer product within a head: with heads of one feature, q S4D(k' v). The
    shift system is a causal convolution with as many taps as it has states: what k' holds of the
    last samples meets v, and the diagonal system remembers the product. There is no activation.

    The state is a dict: `shift` `(batch, features, shift_dim - 1)`, the last k, oldest first, and
    `diagonal` `(batch, head_dim * features, state_dim)`, real parts then imaginary parts, of d x d
    numbers times the heads. Masked steps, at either end or between others, leave it as it is.
    Both systems are float32 under every policy, and do not depend on the inputs: `discretize`
    serves a whole stream.

    Weights: `q_dense`, `k_dense`, `v_dense`, `output_dense`, `shift_B`, `shift_C`
    `(features, shift_dim)`, `shift_D` `(features,)`, and those of an `S4D` called `diagonal`.

    Args:
        state_dim: int. Full, even size N of the diagonal system. Defaults to `64`.
        head_dim: int. d, which divides the features. Work and state grow with it. Defaults to `1`.
        shift_dim: int or `None`. States of the shift system, at least 2. Defaults to `None`: as
            `state_dim`.
        init: str. Initial A of the diagonal system, as in `S4D`. Defaults to `"lin"`.
        discretization: str. `"bilinear"` or `"zoh"`. Defaults to `"bilinear"`.
        dt_min: float. Smallest initial step. Defaults to `1e-3`.
        dt_max: float. Largest initial step. Defaults to `1e-1`.
        max_kernel_length: int or `None`. If set, both kernels end there, as in models trained
            with an `l_max` below their inputs. Such a layer has no state. Defaults to `None`.
        method: str. `"auto"`, `"chunked"`, `"fft"` or `"recurrent"`. Defaults to `"auto"`.
        chunk_size: int or `None`. Steps in a chunk: speed and memory, not accuracy.
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
        ValueError: for arguments out of range, a `head_dim` that does not divide the features, and
            inputs, masks or states of another shape.

    Example:
        ```python
        layer = keras_ssm.layers.H3(state_dim=16)
        y = layer(np.zeros((2, 100, 8), "float32"))  # (2, 100, 8)
        ```

    Reference:
        [H3](https://arxiv.org/abs/2212.14052), section 3. With `head_dim > 1` the outputs of a head
        are apart, those of all heads' first features first, as the published PyTorch code has
        them. Its CUDA kernel has each head's outputs side by side: a model trained there needs
        the rows of `output_dense` in the other order.
    """

    lora_layers = (*PROJECTIONS, "output_dense")
    slow_weights = ("shift_B",)
    no_scale_because = "has a shift system too, whose taps belong to one sampling rate"
    bidirectional = False

    def __init__(
        self,
        state_dim: int = 64,
        head_dim: int = 1,
        shift_dim: int | None = None,
        init: str = "lin",
        discretization: str = "bilinear",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        max_kernel_length: int | None = None,
        method: str = "auto",
        chunk_size: int | None = None,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(seed=seed, **kwargs)
        check_positive(head_dim=head_dim)
        check_at_least(2, or_none=True, shift_dim=shift_dim)
        self.diagonal = S4D(
            state_dim,
            init=init,
            discretization=discretization,
            dt_min=dt_min,
            dt_max=dt_max,
            max_kernel_length=max_kernel_length,
            method=method,
            chunk_size=chunk_size,
            # Of its own: the same numbers would be drawn for both.
            seed=None if seed is None else int(np.random.SeedSequence(seed).generate_state(1)[0]),
            dtype=self.dtype_policy,
            name="diagonal",
        )
        self.state_dim = state_dim
        self.head_dim = head_dim
        self.shift_dim = state_dim if shift_dim is None else shift_dim
        self.init = init
        self.discretization = discretization
        self.dt_min = dt_min
        self.dt_max = dt_max
        self.max_kernel_length = max_kernel_length

    @property
    def method(self):
        """`"auto"`, `"chunked"`, `"fft"` or `"recurrent"`."""
        return self.diagonal.method

    @method.setter
    def method(self, value):
        self._check_no_program("method", value)
        self.diagonal.method = value

    @property
    def chunk_size(self):
        """Steps in a chunk of the diagonal system, or `None`."""
        return self.diagonal.chunk_size

    @chunk_size.setter
    def chunk_size(self, value):
        self._check_no_program("chunk_size", value)
        self.diagonal.chunk_size = value

    @property
    def streams(self) -> bool:
        """Whether the layer has a state."""
        return self.diagonal.streams

    def check_has_state(self):
        reason = self.diagonal.stateless_because()
        if reason is not None:
            raise ValueError(f"{self.name} {reason}")

    def sequence_dtype(self, x: Tensor) -> str:
        return self.compute_dtype

    def chosen_method(self, length: int | None) -> str:
        """Returns the evaluation of a sequence of `length` steps, a size of a shape."""
        return self.diagonal.chosen_method(length)

    def needs_transform(self, length: int | None) -> bool:
        return self.diagonal.needs_transform(length)

    def state_shape(self, features: int) -> dict[str, tuple]:
        return {
            "shift": (features, self.shift_dim - 1),
            "diagonal": (self.head_dim * features, self.state_dim),
        }

    def build_system(self, features: int) -> None:
        if features % self.head_dim:
            raise ValueError(
                "`head_dim` must divide the features of the input. "
                f"Received: head_dim={self.head_dim}, features={features}"
            )
        rng = self.make_rng()
        for name in (*PROJECTIONS, "output_dense"):
            dense = fan_in_dense(name, features, features, True, rng, self.dtype_policy)
            setattr(self, name, dense)
        first = np.zeros((features, self.shift_dim))
        first[:, 0] = 1.0
        self.shift_B = self.add_system_weight("shift_B", first)
        bound = self.shift_dim**-0.5
        C = rng.uniform(-bound, bound, size=(features, self.shift_dim))
        self.shift_C = self.add_system_weight("shift_C", C)
        self.shift_D = self.add_system_weight("shift_D", rng.standard_normal(features))
        self.diagonal.build((None, None, features // self.head_dim))

    def shift_kernel(self) -> Tensor:
        """Returns the taps of the shift system and its skip, `(features, shift_dim)`."""
        K = correlation(self.tensor(self.shift_B), self.tensor(self.shift_C))
        K = K[:, : self.max_kernel_length]
        return ops.concatenate([K[:, :1] + self.tensor(self.shift_D)[:, None], K[:, 1:]], axis=1)

    def discretize(self) -> DiscreteSystem:
        """Returns the matrices of the current weights, for a loop of `step`.

        Returns:
            A `DiscreteSystem`: that of the diagonal part, and in `taps` the kernel of the shift
            part from its last entry to its first, `(1, features, shift_dim)`.

        Raises:
            ValueError: if the layer has no state.
        """
        self.check_has_state()
        self.check_built()
        taps = ops.flip(self.shift_kernel(), axis=-1)[None]
        return self.diagonal.discretize()._replace(taps=taps)

    def evaluate(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        initial_state: State | None = None,
        return_state: bool = False,
    ) -> tuple[Tensor, State]:
        lengths = counts = None
        if mask is not None:
            x, counts = valid_first(x, mask)
            lengths = counts[:, -1]
            steps = ops.arange(1, (known(x.shape[1]) or ops.shape(x)[1]) + 1, dtype="int32")
            mask = steps[None] <= lengths[:, None]
        q, k, v = (self._exact(getattr(self, name)(x)) for name in PROJECTIONS)
        if mask is not None:  # the biases act on masked steps too
            k, v = masked(k, mask), masked(v, mask)
        state, start = None, None
        k, last = self._shifted(k, initial_state, lengths, return_state)
        if initial_state is not None:
            start = self._rows(initial_state["diagonal"])
        products = self._outer(k, v)
        if mask is not None:
            mask = ops.repeat(mask, self.head_dim**2, axis=0)
        y, diagonal = self.diagonal.evaluate(products, mask, start, return_state)
        if return_state:
            state = {"shift": last, "diagonal": self._states(diagonal)}
        y = self.output_dense(self._contracted(q, y))
        return y if counts is None else back_in_place(y, counts), state

    def advance(self, x: Tensor, state: State, system: DiscreteSystem) -> tuple[Tensor, State]:
        x = ops.cast(x, self.compute_dtype)
        q, k, v = (self._exact(infer(getattr(self, name), x)) for name in PROJECTIONS)
        k, last = window_step(k, state["shift"], system.taps)
        products = self._outer(k[:, None], v[:, None])[:, 0]
        y, diagonal = self.diagonal.advance(products, self._rows(state["diagonal"]), system)
        y = infer(self.output_dense, self._contracted(q[:, None], y[:, None])[:, 0])
        return y, {"shift": last, "diagonal": self._states(diagonal)}

    def get_config(self):
        return {
            **super().get_config(),
            "state_dim": self.state_dim,
            "head_dim": self.head_dim,
            "shift_dim": self.shift_dim,
            "init": self.init,
            "discretization": self.discretization,
            "dt_min": self.dt_min,
            "dt_max": self.dt_max,
            "max_kernel_length": self.max_kernel_length,
            "method": self.method,
            "chunk_size": self.chunk_size,
        }

    def _exact(self, x):
        """x in the dtype of the systems."""
        return ops.cast(x, self.system_dtype)

    def _shifted(self, k, initial_state, lengths, return_state):
        """The output of the shift system, and the last of its inputs."""
        count = self.shift_dim - 1
        before = None if initial_state is None else initial_state["shift"]
        if before is None and return_state:
            before = ops.repeat(ops.zeros_like(k[:, 0, :, None]), count, axis=-1)
        if before is None:
            return self._convolved(k), None
        whole = ops.concatenate([ops.transpose(before, (0, 2, 1)), k], axis=1)
        last = last_of_rows(whole, count, lengths) if return_state else None
        if initial_state is None:
            return self._convolved(k), last
        return self._convolved(whole)[:, count:], last

    def _convolved(self, k):
        K = self.shift_kernel()
        if self.chosen_method(k.shape[1]) == "fft":
            return fft_conv(k, K[None, :, : known(k.shape[1])])
        return short_conv(k, K)

    def _outer(self, k, v):
        """k v^T of each head, `(batch * d * d, length, heads)`."""
        d = self.head_dim
        if d == 1:
            return k * v
        k, v = self._by_head(k)[:, :, None], self._by_head(v)[:, None]
        length = known(k.shape[3]) or ops.shape(k)[3]
        return ops.reshape(k * v, (-1, length, self.features // d))

    def _contracted(self, q, y):
        """q^T s of each head in the compute dtype, those of the heads' first features first."""
        d = self.head_dim
        if d == 1:
            return ops.cast(q * y, self.compute_dtype)
        length = known(y.shape[1]) or ops.shape(y)[1]
        y = ops.reshape(y, (-1, d, d, length, self.features // d))
        y = ops.sum(y * self._by_head(q)[:, :, None], axis=1)  # (batch, d, length, heads)
        y = ops.reshape(ops.transpose(y, (0, 2, 1, 3)), (-1, length, self.features))
        return ops.cast(y, self.compute_dtype)

    def _by_head(self, x):
        """`(batch, length, features)` as `(batch, d, length, heads)`."""
        length, d = known(x.shape[1]) or ops.shape(x)[1], self.head_dim
        return ops.transpose(ops.reshape(x, (-1, length, self.features // d, d)), (0, 3, 1, 2))

    def _rows(self, state):
        """The diagonal state with the d x d numbers of a head as rows of a batch."""
        return ops.reshape(state, (-1, self.features // self.head_dim, self.state_dim))

    def _states(self, state):
        """Undoes `_rows`."""
        return ops.reshape(state, (-1, self.head_dim * self.features, self.state_dim))
