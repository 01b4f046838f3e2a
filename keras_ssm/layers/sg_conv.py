import functools
import math

import keras
import numpy as np
from keras import ops

from keras_ssm.checks import check_choice, check_flags, check_number, check_positive
from keras_ssm.layers.kernel_layer import KernelLayer
from keras_ssm.ops import backend
from keras_ssm.types import Tensor

INTERPOLATIONS = ("linear", "nearest")
COMPOSITIONS = ("concat", "sum")


@keras.saving.register_keras_serializable(package="keras_ssm")
class SGConv(KernelLayer):
    """Structured global convolution (SGConv): a kernel of few numbers at many scales.

    The kernel of a feature is put together of `num_scales` pieces of `kernel_dim` numbers each.
    Every further piece is stretched to twice the length and weaker by a factor `decay`, so that a
    kernel of length L has about `kernel_dim` log2(L / `kernel_dim`) numbers and decays as it
    reaches back. It is divided by the norm that it had at the start, which stays fixed. The layer
    is the convolution and its skip D alone: activation, mixing of the features and normalisation
    belong to `SSMBlock`.

    It streams exactly by keeping the last inputs, as many as the kernel is long, less one: a state
    and a step that grow with the kernel. Samples further away do not contribute.

    Weights: `kernel` `(num_scales, channels, features, kernel_dim)` (twice the channels if
    bidirectional) and, if learned, `decay` `(features,)`, which train slowly and do not decay;
    `kernel_norm` `(channels, features)`, fixed; `D` `(channels, features)`.

    Args:
        max_length: int. Length of the sequences. The kernel has the next of the lengths
            `kernel_dim`, 2 `kernel_dim`, 4 `kernel_dim`, ...
        kernel_dim: int. Numbers in a piece, at most `max_length`. Defaults to `64`.
        num_scales: int or `None`. Number of pieces. With fewer of them the first is stretched as
            well. Defaults to `None`: 1 + log2 of the kernel's length over `kernel_dim`.
        decay_min: float. By how much a piece is weaker than the one before, for the first
            feature. Defaults to `2.0`.
        decay_max: float. The same for the last feature. Defaults to `2.0`.
        learnable_decay: bool. Whether the kernel is multiplied by (lag + 1)^(-decay) instead, with
            a decay for each feature that is drawn between the two and trained.
            Defaults to `False`.
        interpolation: str. How a piece is stretched: `"linear"` or `"nearest"`.
            Defaults to `"linear"`.
        composition: str. `"concat"` (one piece after the other) or `"sum"` (all from lag 0 on).
            Defaults to `"concat"`.
        bidirectional: bool. Whether later samples contribute as well, through a kernel of their
            own; the current sample counts once. Such a layer has no state. Defaults to `False`.
        channels: int. Outputs for each feature; channel c of feature h is output
            `c * features + h`. Defaults to `1`.
        method: str. `"auto"`, `"fft"`, `"direct"` (a sum over the kernel) or `"recurrent"`.
            Defaults to `"auto"`.
        seed: int or `None`. Seed of the initial weights.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(batch, length, features)`.
        mask: boolean tensor `(batch, length)`, True where valid. Masked inputs count as zero,
            which is exact for padding on the right.
        initial_state: tensor `(batch, features, kernel_length - 1)`: the inputs before, the last
            one last.
        return_state: bool. Whether the state after each row's last valid step is returned.

    Returns:
        Tensor `(batch, length, channels * features)`; with `return_state` a tuple of it and
        the state `(batch, features, kernel_length - 1)`.

    Raises:
        ValueError: for sizes below 1, a `max_length` below `kernel_dim`, more scales than there
            are, decays that are not positive, an unknown `interpolation`, `composition` or
            `method`, integer or empty inputs, a mask or state of another shape, or a state asked of
            a bidirectional layer.

    Example:
        ```python
        layer = keras_ssm.layers.SGConv(max_length=100, kernel_dim=16)
        x = np.random.default_rng(0).normal(size=(2, 100, 8)).astype("float32")
        y, state = layer(x, return_state=True)  # (2, 100, 8), (2, 8, 127)
        y_next, state = layer.step(x[:, 0], state)  # one more sample
        ```

    Reference:
        [SGConv](https://arxiv.org/abs/2210.09298), section 3.
    """

    slow_weights = ("kernel", "decay")

    def __init__(
        self,
        max_length: int,
        kernel_dim: int = 64,
        num_scales: int | None = None,
        decay_min: float = 2.0,
        decay_max: float = 2.0,
        learnable_decay: bool = False,
        interpolation: str = "linear",
        composition: str = "concat",
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
        check_positive(kernel_dim=kernel_dim)
        check_flags(learnable_decay=learnable_decay)
        check_choice("interpolation", interpolation, INTERPOLATIONS)
        check_choice("composition", composition, COMPOSITIONS)
        if max_length < kernel_dim:
            raise ValueError(
                "`max_length` must be at least `kernel_dim`, the length of the shortest kernel. "
                f"Received: max_length={max_length}, kernel_dim={kernel_dim}"
            )
        self._doublings = math.ceil(math.log2(max_length / kernel_dim))
        if num_scales is not None:
            check_positive(num_scales=num_scales)
            if num_scales > 1 + self._doublings:
                raise ValueError(
                    f"`num_scales` must be at most {1 + self._doublings}, of which one piece is "
                    f"`kernel_dim` long. Received: num_scales={num_scales}, "
                    f"max_length={max_length}, kernel_dim={kernel_dim}"
                )
        check_number("decay_min", decay_min)
        check_number("decay_max", decay_max)
        if not 0 < decay_min <= decay_max:
            raise ValueError(
                "`decay_min` and `decay_max` must satisfy 0 < decay_min <= decay_max. "
                f"Received: decay_min={decay_min}, decay_max={decay_max}"
            )
        self.kernel_dim = kernel_dim
        self.num_scales = num_scales
        self.decay_min = decay_min
        self.decay_max = decay_max
        self.learnable_decay = learnable_decay
        self.interpolation = interpolation
        self.composition = composition

    @property
    def scales(self) -> int:
        """Number of pieces."""
        return 1 + self._doublings if self.num_scales is None else self.num_scales

    @property
    def missing_scales(self) -> int:
        """By how many doublings the first piece is stretched."""
        return 1 + self._doublings - self.scales

    @property
    def kernel_length(self) -> int:
        return self.kernel_dim * 2**self._doublings

    def build_kernel(self, features, rng):
        shape = (self.scales, self.planes, features, self.kernel_dim)
        pieces, decay = rng.standard_normal(shape), None
        self.pieces = self.add_system_weight("kernel", pieces)
        if self.learnable_decay:
            decay = rng.uniform(self.decay_min, self.decay_max, size=features)
            self.decay = self.add_system_weight("decay", decay)
        norm = np.linalg.norm(self.composed(pieces, decay, np), axis=-1)
        self.kernel_norm = self.add_system_weight("kernel_norm", norm, trainable=False)

    def whole_kernel(self) -> Tensor:
        decay = self.tensor(self.decay) if self.learnable_decay else None
        K = self.composed(self.tensor(self.pieces), decay)
        return K / self.tensor(self.kernel_norm)[..., None]

    def composed(self, pieces, decay=None, on=ops):
        """The kernel before it is normalised.

        Args:
            pieces: array or tensor `(scales, planes, features, kernel_dim)`.
            decay: array or tensor `(features,)`, or `None` without a learned decay.
            on: `numpy` or `keras.ops`.

        Returns:
            Array or tensor `(planes, features, kernel_length)`.
        """
        as_constant = np.asarray if on is np else self.tensor
        pad = np.pad if on is np else backend.pad
        weaker = np.ones(pieces.shape[2])
        if not self.learnable_decay:
            weaker = np.linspace(self.decay_min, self.decay_max, pieces.shape[2])
        parts = []
        for i in range(self.scales):
            more = i if self.composition == "sum" else max(0, i - 1)
            gain = as_constant((weaker ** (self.scales - 1 - i))[:, None])
            factor = 2 ** (self.missing_scales + more)
            parts.append(self._stretched(pieces[i] * gain, factor, on, as_constant))
        if self.composition == "concat":
            K = on.concatenate(parts, axis=-1)
        else:
            room = [(0, 0), (0, 0)]
            K = sum(pad(p, [*room, (0, self.kernel_length - p.shape[-1])]) for p in parts)
        if decay is None:
            return K
        log_lags = as_constant(np.log1p(np.arange(self.kernel_length)))
        return K * on.exp(-decay[:, None] * log_lags)

    def _stretched(self, x, factor, on, as_constant):
        """x at `factor` places between its own, the ends held, `(..., kernel_dim * factor)`."""
        place = (np.arange(factor) + 0.5) / factor - 0.5  # of a new number, from the nearest old
        if self.interpolation == "nearest":
            place = np.zeros(factor)
        before = on.concatenate([x[..., :1], x[..., :-1]], axis=-1)
        after = on.concatenate([x[..., 1:], x[..., -1:]], axis=-1)
        near = on.stack([before, x, after], axis=-1)  # a product: XLA sums its gradient much faster
        weights = np.stack([np.maximum(-place, 0.0), 1.0 - np.abs(place), np.maximum(place, 0.0)])
        product = (
            np.matmul if on is np else functools.partial(backend.exact_einsum, "phik,kf->phif")
        )
        x = product(near, as_constant(weights))
        return on.reshape(x, (*x.shape[:-2], self.kernel_dim * factor))

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_dim": self.kernel_dim,
            "num_scales": self.num_scales,
            "decay_min": self.decay_min,
            "decay_max": self.decay_max,
            "learnable_decay": self.learnable_decay,
            "interpolation": self.interpolation,
            "composition": self.composition,
        }
