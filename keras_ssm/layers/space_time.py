import keras
import numpy as np
from keras import ops

from keras_ssm.checks import check_choice, check_flags, check_number, check_positive
from keras_ssm.layers.one_sampling_rate import OneSamplingRate
from keras_ssm.layers.shared_systems import apply_shared
from keras_ssm.layers.siso_layer import SISOLayer
from keras_ssm.layers.ssm_layer import valid_steps
from keras_ssm.layers.step_mask import masked
from keras_ssm.ops.backend import exact_einsum
from keras_ssm.ops.companion import CompanionBank, companion_matrix, companion_step
from keras_ssm.ops.dense_bank import DenseBank
from keras_ssm.ops.states_after import states_after
from keras_ssm.types import State, Tensor

SMALLEST_NORM = 1e-4  # of a vector that is divided by its norm


@keras.saving.register_keras_serializable(package="keras_ssm")
class SpaceTime(OneSamplingRate, SISOLayer):
    """SpaceTime layer: a system with a companion matrix for each feature, and its closed loop.

    Every feature runs x_t = A x_(t-1) + B u_t, y_t = C x_t + D u_t in discrete time. A moves the
    state by one place and adds `a` times its last entry, so that the layer can be any
    autoregression of order `state_dim`, and a step takes O(state_dim) operations. `a` counts
    divided by its norm: with `norm_order=1` no eigenvalue exceeds 1, with 2 some can: outputs then
    grow with the length, and over tens of thousands of samples they overflow.

    With `closed_loop` the layer has another row K, that predicts the next input from the state,
    u_(t+1) = K x_t. `forecast` feeds it back: from the last state alone it gives the outputs of a
    horizon, C (A + B K)^h x. K counts divided by its own norm and that of B, so that A + B K grows
    slowly at most. That is the arithmetic of the paper but for one thing: there the state before
    the loop, the loop and the outputs do not scale B, C and K alike, and the two ways to predict
    the next sample differ by a factor. `normalization="published"` does as the published code.

    Weights, all real: `a`, `B` `(num_ssm, state_dim)`, `C` `(channels, num_ssm, state_dim)` (twice
    the channels if bidirectional), `K` as B with `closed_loop`, `D` `(channels, features)` with
    `skip`. At first a, B and K are normal, and C is of variance `1 / state_dim^2`, so that outputs
    are about as large as the inputs; published models begin with a variance of 1. There is no dt:
    `step_scale` stays 1.

    Args:
        state_dim: int. Size N of the state, the order of the autoregression. Defaults to `64`.
        num_ssm: int or `None`. Number of different systems, each for as many neighbouring
            features: feature h has number `h // (features / num_ssm)`. Defaults to `None`: one a
            feature.
        norm_order: float. Order of the norm by which `a` is divided, at least 1, or 0 for none.
            Defaults to `1`.
        skip: bool. Whether there is a skip D. A closed loop has none, since it needs a sample that
            the state does not hold. Defaults to `True`.
        closed_loop: bool. Whether there is a row K, for `forecast`. Defaults to `False`.
        normalization: str. `"consistent"` or `"published"`, of a closed loop; see above. Defaults
            to `"consistent"`.
        bidirectional: bool. Whether later samples contribute, through their own C. Such a layer
            has no state. Defaults to `False`.
        channels: int. Outputs for each feature; channel c of feature h is output
            `c * features + h`. Defaults to `1`.
        method: str. `"auto"`, `"chunked"`, `"fft"` or `"recurrent"`. Defaults to `"auto"`.
        chunk_size: int or `None`. Steps in a chunk: speed and memory, not accuracy.
        seed: int or `None`. Seed of the initial weights.
        max_kernel_length: int or `None`. As in `S4D`. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(batch, length, features)`.
        mask: boolean tensor `(batch, length)`, True where valid. Masked inputs count as zero,
            which is exact for padding on the right.
        initial_state: tensor `(batch, features, state_dim)`.
        return_state: bool. Whether the state after each row's last valid step is returned.

    Returns:
        Tensor `(batch, length, channels * features)`; with `return_state` a tuple of it and
        the state `(batch, features, state_dim)`.

    Raises:
        ValueError: for sizes below 1, a `norm_order` between 0 and 1, an unknown `normalization`
            or `method`, a closed loop with a skip or without a state, integer or empty inputs, or
            a mask or state of another shape.

    Example:
        ```python
        layer = keras_ssm.layers.SpaceTime(state_dim=16, skip=False, closed_loop=True)
        x = np.random.default_rng(0).normal(size=(2, 100, 8)).astype("float32")
        y, state = layer(x, return_state=True)  # (2, 100, 8), (2, 8, 16)
        outputs, inputs = layer.forecast(state, horizon=24)  # twice (2, 24, 8)
        y_next, state = layer.step(inputs[:, 0], state)  # as outputs[:, 1]
        ```

    Reference:
        [SpaceTime](https://arxiv.org/abs/2303.09489), sections 3.1 and 3.2.
    """

    undecayed_weights = ("a", "B", "K")  # their length does not count, or only for the outputs
    one_rate_because = "predicts the next sample at one sampling rate, and has no dt"

    def __init__(
        self,
        state_dim: int = 64,
        num_ssm: int | None = None,
        norm_order: float = 1,
        skip: bool = True,
        closed_loop: bool = False,
        normalization: str = "consistent",
        bidirectional: bool = False,
        channels: int = 1,
        method: str = "auto",
        chunk_size: int | None = None,
        seed: int | None = None,
        max_kernel_length: int | None = None,
        **kwargs,
    ):
        super().__init__(
            state_dim=state_dim,
            bidirectional=bidirectional,
            channels=channels,
            max_kernel_length=max_kernel_length,
            method=method,
            chunk_size=chunk_size,
            seed=seed,
            **kwargs,
        )
        check_flags(skip=skip, closed_loop=closed_loop)
        check_choice("normalization", normalization, ["consistent", "published"])
        check_number("norm_order", norm_order, low=0)
        if 0 < norm_order < 1:
            raise ValueError(
                f"`norm_order` must be 0 or at least 1. Received: norm_order={norm_order}"
            )
        if num_ssm is not None:
            check_positive(num_ssm=num_ssm)
        if closed_loop and (skip or not self.streams):
            raise ValueError(
                "`closed_loop` needs a layer without skip that has a state: skip=False, "
                "bidirectional=False and max_kernel_length=None. Received: closed_loop=True, "
                f"skip={skip}, bidirectional={bidirectional}, "
                f"max_kernel_length={max_kernel_length}"
            )
        if closed_loop and normalization == "published" and norm_order == 0:
            raise ValueError(
                "normalization='published' needs a `norm_order` above 0, since the published code "
                "puts B in the place of K without. Received: norm_order=0"
            )
        self.num_ssm = num_ssm
        self.norm_order = norm_order
        self.skips = skip
        self.closed_loop = closed_loop
        self.normalization = normalization

    def build_bank(self, features, rng):
        copies = self.num_ssm or features
        if features % copies:
            raise ValueError(
                f"`num_ssm` must divide the features of the input. "
                f"Received: num_ssm={copies}, features={features}"
            )
        self.copies = copies
        shape = copies, self.state_dim
        self.a = self.add_system_weight("a", rng.standard_normal(shape))
        self.B = self.add_system_weight("B", rng.standard_normal(shape))
        C = rng.standard_normal((self.planes, *shape)) / self.state_dim
        self.C = self.add_system_weight("C", C)
        self.K = None
        if self.closed_loop:
            self.K = self.add_system_weight("K", rng.standard_normal(shape))

    def state_shape(self, features: int) -> tuple[int, ...]:
        return (features, self.state_dim)

    # The systems, one for all features that share it

    def systems(self, rows: Tensor | None = None) -> CompanionBank:
        """Returns the bank of the `num_ssm` systems, with other output rows in the place of C."""
        B, C = self.tensor(self.B), self.tensor(self.C)
        if self.closed_loop and self.normalization == "published":
            B, C = self._normed(B), self._normed(C)
        return CompanionBank(self._normed(self.tensor(self.a)), B, C if rows is None else rows)

    def bank(self, length=None):
        bank = self.systems()
        if self.copies == self.features:
            return bank
        return CompanionBank(*(self._repeated(part, axis=-2) for part in bank.matrices()))

    def evaluate(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        initial_state: State | None = None,
        return_state: bool = False,
    ) -> tuple[Tensor, State]:
        if self.copies == self.features or self.chosen_method(x.shape[1]) == "recurrent":
            return super().evaluate(x, mask, initial_state, return_state)
        lengths = valid_steps(mask, return_state)
        y, state = apply_shared(self, x, self.systems(), initial_state, lengths, return_state)
        return y + self.skip_of(x, self.skip_weight()), state

    def advance(self, x: Tensor, state: State, system) -> tuple[Tensor, State]:
        y, state = companion_step(x, state, system.dA, system.dB, system.dC)
        return y + self.skip_of(x, system.D), state

    # The closed loop

    def forecast(self, state: State, horizon: int) -> tuple[Tensor, Tensor]:
        """Returns the outputs after a state with the predicted inputs fed back.

        Args:
            state: tensor `(batch, features, state_dim)`, as a call returns it.
            horizon: int. Number of steps.

        Returns:
            Tuple of the outputs C (A + B K)^h x `(batch, horizon, channels * features)` and of the
            inputs K (A + B K)^h x `(batch, horizon, features)`. Entry 0 of the outputs is what
            the call gave for the last sample, which predicts the next one; entry 0 of the
            inputs is the sample after it.

        Raises:
            ValueError: for a layer without `closed_loop`, a horizon below 1, or a state of another
                shape.
        """
        rows = self.rollout(horizon)
        state = self._checked_state(state, None)
        y = exact_einsum("bhn,chnt->btch", state, rows)
        outputs = ops.reshape(y[:, :, :-1], (-1, horizon, self.channels * self.features))
        return ops.cast(outputs, self.compute_dtype), ops.cast(y[:, :, -1], self.compute_dtype)

    def rollout(self, horizon: int) -> Tensor:
        """Returns the rows of `forecast`, of the outputs and then of the inputs.

        Args:
            horizon: int. Number of steps.

        Returns:
            Tensor `(channels + 1, features, state_dim, horizon)`.
        """
        (horizon,) = check_positive(horizon=horizon)
        self._check_closed_loop()
        bank, K = self.systems(), self.tensor(self.K)
        gain = self._normed(K)
        if self.normalization == "published":
            # The state of the published loop is that of an unscaled B.
            rows = self._norm(self.tensor(self.B)) * ops.concatenate([bank.C, K[None]])
        else:
            gain = gain / self._norm(bank.dB)
            rows = ops.concatenate([bank.C, gain[None]])
        loop = bank.dB[..., None] * gain[..., None, :]
        identity = ops.convert_to_tensor(np.eye(self.state_dim), dtype=self.system_dtype)
        E = companion_matrix(bank.a) + loop - identity
        outputs = DenseBank(E, bank.dB, bank.C).from_state(rows, 0, horizon)
        return self._repeated(outputs, axis=1)

    def states_after(self, x: Tensor, counts: Tensor, initial_state: State | None = None) -> Tensor:
        """Returns the state after so many steps of each row, of which `forecast` can go on.

        Args:
            x: float tensor `(batch, length, features)`.
            counts: integer tensor `(batch, places)`, from 0 (before the first step) to `length`.
            initial_state: tensor `(batch, features, state_dim)` or `None` (zero).

        Returns:
            Tensor `(batch, places, features, state_dim)`.

        Raises:
            ValueError: for a layer without a state, and inputs that a call refuses.
        """
        self.check_has_state()
        self.check_built()
        self.check_inputs(x.shape, x.dtype)
        x = ops.cast(ops.convert_to_tensor(x), self.system_dtype)
        return states_after(x, self.bank(), counts, initial_state, self.chunk_size)

    def next_inputs(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns what K predicts after each sample: the next one.

        Args:
            x: float tensor `(batch, length, features)`.
            mask: boolean tensor `(batch, length)` or `None`. As in a call.

        Returns:
            Tensor `(batch, length, features)`. Compare `[:, :-1]` with `x[:, 1:]` in a loss that
            teaches the loop.

        Raises:
            ValueError: for a layer without `closed_loop`, and inputs that a call refuses.
        """
        self._check_closed_loop()
        self.check_inputs(x.shape, x.dtype)
        x = ops.cast(ops.convert_to_tensor(x), self.system_dtype)
        if mask is not None:
            mask = ops.cast(ops.convert_to_tensor(mask), "bool")
            self.check_mask(mask, x.shape, return_state=False)
            x = masked(x, mask)
        K = self._normed(self.tensor(self.K))
        if self.normalization == "consistent":
            K = K / self._norm(self.tensor(self.B))
        y, _ = apply_shared(self, x, self.systems(rows=K[None]))
        return ops.cast(y, self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "num_ssm": self.num_ssm,
            "norm_order": self.norm_order,
            "skip": self.skips,
            "closed_loop": self.closed_loop,
            "normalization": self.normalization,
        }

    # Within

    def _check_closed_loop(self):
        self.check_built()
        if not self.closed_loop:
            raise ValueError(
                f"{self.name} has no row K that predicts its inputs: make the layer with "
                f"closed_loop=True and skip=False. Received: closed_loop={self.closed_loop}"
            )

    def _norm(self, x):
        """The norm of each vector `(..., 1)`; 1 for those near zero, and without a norm."""
        if self.norm_order == 0:
            return ops.ones_like(x[..., :1])
        # Powers of the quotients: those of x leave the range of float32. The norm has the same
        # gradient whatever they are divided by. Of zeros, a root has none.
        largest = ops.cast(ops.max(ops.abs(x), axis=-1, keepdims=True), x.dtype)
        largest = ops.stop_gradient(largest)
        one, counts = ops.ones_like(largest), largest > 1e-6 * SMALLEST_NORM
        scale = ops.where(counts, largest, one)
        powers = ops.sum(ops.abs(x / scale) ** self.norm_order, axis=-1, keepdims=True)
        norm = scale * ops.where(counts, powers, one) ** (1.0 / self.norm_order)
        return ops.where(ops.logical_and(counts, norm > SMALLEST_NORM), norm, one)

    def _normed(self, x):
        return x / self._norm(x)

    def _repeated(self, x, axis):
        heads = self.features // self.copies
        return x if heads == 1 else ops.repeat(x, heads, axis=axis)
