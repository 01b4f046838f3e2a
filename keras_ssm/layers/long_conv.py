import keras
from keras import ops

from keras_ssm import initializers
from keras_ssm.checks import check_choice, check_number, check_positive
from keras_ssm.initializers.long_kernel import SCALES
from keras_ssm.layers.kernel_layer import KernelLayer
from keras_ssm.ops import backend
from keras_ssm.types import State, Tensor

# Of an initial kernel nothing is left by a threshold of so many standard deviations.
LARGEST_SQUASH = 5.0


@keras.saving.register_keras_serializable(package="keras_ssm")
class LongConv(KernelLayer):
    """Long convolution: each feature has a kernel of free entries, as long as the sequence.

    Entries closer to zero than `squash` count as zero, and the others are moved towards it by as
    much: what is left is sparse, which is what lets such a kernel generalise. `kernel_dropout`
    drops entries in training. The layer is the convolution and its skip D alone: activation,
    mixing of the features and normalisation belong to `SSMBlock`.

    It streams exactly by keeping the last `max_length - 1` inputs: a state and a step that grow
    with the kernel. A sequence shorter than the kernel meets its first entries, and samples further
    away than it do not contribute. (The published code wraps the kernel around shorter inputs,
    so that they see the future.)

    Weights: `kernel` `(channels, features, max_length)` (twice the channels if bidirectional),
    which trains slowly and does not decay, and `D` `(channels, features)`.

    Args:
        max_length: int. Length of the kernel.
        squash: float. Threshold that is taken from the modulus of the entries. Published models
            have 0.001 to 0.004. Defaults to `0.003`.
        kernel_dropout: float. Rate at which entries are dropped in training. Defaults to `0.2`.
        init: str. `"random"` or `"double_exp"`; see `keras_ssm.initializers.long_kernel`.
            Defaults to `"random"`.
        smoothing: int or `None`. Odd width of a moving average over the lags, before the
            threshold; lags beyond the ends count as zero. Defaults to `None`.
        bidirectional: bool. Whether later samples contribute as well, through a kernel of their
            own; the current sample counts once. Such a layer has no state. Defaults to `False`.
        channels: int. Outputs for each feature; channel c of feature h is output
            `c * features + h`. Defaults to `1`.
        method: str. `"auto"`, `"fft"`, `"direct"` (a sum over the kernel) or `"recurrent"`.
            Defaults to `"auto"`.
        seed: int or `None`. Seed of the initial weights and of the dropout.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(batch, length, features)`.
        mask: boolean tensor `(batch, length)`, True where valid. Masked inputs count as zero,
            which is exact for padding on the right.
        initial_state: tensor `(batch, features, max_length - 1)`: the inputs before, the last one
            last.
        return_state: bool. Whether the state after each row's last valid step is returned.
        training: bool or `None`. Whether entries of the kernel are dropped.

    Returns:
        Tensor `(batch, length, channels * features)`; with `return_state` a tuple of it and
        the state `(batch, features, max_length - 1)`.

    Raises:
        ValueError: for sizes below 1, a `squash` that leaves nothing of the initial kernel, a
            `kernel_dropout` outside [0, 1), an even `smoothing`, an unknown `init` or `method`,
            integer or empty inputs, a mask or state of another shape, or a state asked of a
            bidirectional layer.

    Example:
        ```python
        layer = keras_ssm.layers.LongConv(max_length=100)
        x = np.random.default_rng(0).normal(size=(2, 100, 16)).astype("float32")
        y, state = layer(x, return_state=True)  # (2, 100, 16), (2, 16, 99)
        y_next, state = layer.step(x[:, 0], state)  # one more sample
        ```

    Reference:
        [Long convolutions](https://arxiv.org/abs/2302.06646), section 3.
    """

    slow_weights = ("kernel",)

    def __init__(
        self,
        max_length: int,
        squash: float = 0.003,
        kernel_dropout: float = 0.2,
        init: str = "random",
        smoothing: int | None = None,
        bidirectional: bool = False,
        channels: int = 1,
        method: str = "auto",
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(
            max_length=max_length,
            bidirectional=bidirectional,
            channels=channels,
            method=method,
            seed=seed,
            **kwargs,
        )
        check_choice("init", init, SCALES)
        check_number("squash", squash, low=0)
        if squash >= LARGEST_SQUASH * SCALES[init]:
            raise ValueError(
                f"`squash` must be below {LARGEST_SQUASH * SCALES[init]:g} for init={init!r}: else "
                "it leaves nothing of the initial kernel, whose gradient is then zero as well. "
                f"Received: squash={squash}"
            )
        check_number("kernel_dropout", kernel_dropout)
        if not 0 <= kernel_dropout < 1:
            raise ValueError(
                f"`kernel_dropout` must lie in [0, 1). Received: kernel_dropout={kernel_dropout}"
            )
        if smoothing is not None:
            check_positive(smoothing=smoothing)
            if smoothing % 2 == 0:
                raise ValueError(f"`smoothing` must be odd. Received: smoothing={smoothing}")
        self.squash = squash
        self.kernel_dropout = kernel_dropout
        self.init = init
        self.smoothing = smoothing
        self.seed_generator = keras.random.SeedGenerator(seed) if kernel_dropout else None

    def build_kernel(self, features, rng):
        shape = (self.planes, features, self.max_length)
        entries = initializers.long_kernel(shape, self.init, rng)
        self.entries = self.add_system_weight("kernel", entries)

    def whole_kernel(self) -> Tensor:
        K = self.tensor(self.entries)
        if self.smoothing is not None:
            half = self.smoothing // 2
            padded = backend.pad(K, [(0, 0), (0, 0), (half, half)])
            K = sum(padded[..., i : i + self.max_length] for i in range(self.smoothing))
            K = K / self.smoothing
        return ops.relu(K - self.squash) - ops.relu(-K - self.squash)

    def call(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        initial_state: State | None = None,
        return_state: bool = False,
        training: bool | None = None,
    ) -> Tensor | tuple[Tensor, State]:
        kernel = None
        if training and self.kernel_dropout and x.shape[0] != 0:
            kernel = keras.random.dropout(
                self.whole_kernel(), self.kernel_dropout, seed=self.seed_generator
            )
        return self.run(x, mask, initial_state, return_state, kernel=kernel)

    def get_config(self):
        return {
            **super().get_config(),
            "squash": self.squash,
            "kernel_dropout": self.kernel_dropout,
            "init": self.init,
            "smoothing": self.smoothing,
        }
