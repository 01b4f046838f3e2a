from collections.abc import Sequence
from math import comb

import keras
import numpy as np
from keras import ops

from keras_ssm.checks import check_flags, check_positive
from keras_ssm.layers.kernel_layer import KernelLayer
from keras_ssm.ops import backend
from keras_ssm.ops.exporting import known, loops_allowed
from keras_ssm.ops.fourier import fft_conv
from keras_ssm.ops.short_conv import short_conv
from keras_ssm.types import Tensor

FEW_TAPS = 64  # one sum over more takes longer than a transform


@keras.saving.register_keras_serializable(package="keras_ssm")
class Differencing(KernelLayer):
    """Differences, and distances from moving averages: fixed filters in front of a forecaster.

    The difference of order k is (1 - S)^k, with S the step back by one sample; order 0 leaves a
    feature as it is. The distance from a moving average of w samples is u_t less the mean of the
    last w. There are `orders` filters of the first kind and those of `windows` of the second, and
    feature h goes through number `h % (orders + windows)`: features that are copies of one series,
    or mix several, then hold it without its trends and seasons. With `expand` every feature goes
    through every filter instead.

    Nothing trains. The layer is causal, and streams by keeping its last inputs. Before the first
    sample stand zeros.

    Weights: `taps` `(channels, features, length)`, which do not train.

    Args:
        orders: int. Number of differences, of orders 0 to `orders - 1`. Defaults to `4`.
        windows: int or sequence of int. Widths of the moving averages; or their number, of widths
            that `seed` draws, anew for every feature. Defaults to `4`.
        min_window: int. Smallest width that is drawn. Defaults to `4`.
        max_window: int. Widths that are drawn are smaller. Defaults to `64`.
        expand: bool. Whether every feature goes through every filter: filter c of feature h is
            output `c * features + h`. Defaults to `False`.
        method: str. `"auto"`, `"fft"`, `"direct"` or `"recurrent"`. `"auto"` is `"direct"`: the
            differences of a constant are exactly 0, which they are not after a transform. The
            part of a moving average past 64 samples is transformed nonetheless. Defaults to
            `"auto"`.
        seed: int or `None`. Seed of the widths.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(batch, length, features)`.
        mask: boolean tensor `(batch, length)`, True where valid. Masked inputs count as zero.
        initial_state: tensor `(batch, features, taps - 1)`: the inputs before, the last one last.
        return_state: bool. Whether the state after each row's last valid step is returned.

    Returns:
        Tensor `(batch, length, features)`, with `expand` `(batch, length, filters * features)`;
        with `return_state` a tuple of it and the state.

    Raises:
        ValueError: for sizes below 1, widths below 2, a range of widths without one, or inputs,
            masks and states of another shape.

    Example:
        ```python
        layer = keras_ssm.layers.Differencing(orders=2, windows=(24,), expand=True)
        y = layer(np.arange(48.0, dtype="float32").reshape(1, 48, 1))  # (1, 48, 3)
        # at the end: 47, 1, and 47 less the mean of 24 to 47: 11.5
        ```

    Reference:
        [SpaceTime](https://arxiv.org/abs/2303.09489), section 4 and appendix D, preprocessing.
    """

    one_rate_because = "has filters of so many samples, and no dt"
    skips = False

    def __init__(
        self,
        orders: int = 4,
        windows: int | Sequence[int] = 4,
        min_window: int = 4,
        max_window: int = 64,
        expand: bool = False,
        method: str = "auto",
        seed: int | None = None,
        **kwargs,
    ):
        for name in ("bidirectional", "channels", "max_length", "chunk_size"):
            if name in kwargs:
                raise ValueError(
                    f"`{name}` is no argument of Differencing, whose filters read backwards and "
                    "follow from `orders`, `windows` and `expand`. "
                    f"Received: {name}={kwargs[name]!r}"
                )
        orders, min_window, max_window = check_positive(
            orders=orders, min_window=min_window, max_window=max_window
        )
        check_flags(expand=expand)
        drawn = isinstance(windows, (int, np.integer)) and not isinstance(windows, bool)
        if drawn:
            count, longest = int(windows), max_window if windows else 1
            good = count >= 0 and (not count or 2 <= min_window < max_window)
        else:
            try:
                windows = check_positive(**{f"windows[{i}]": w for i, w in enumerate(windows)})
                count, longest = len(windows), max([1, *windows])
                good = all(width > 1 for width in windows)
            except TypeError:
                good = False
        if not good:
            raise ValueError(
                "`windows` must be widths of at least 2 samples, or how many of them are drawn "
                f"from `min_window`, at least 2, up to `max_window`. Received: windows={windows!r},"
                f" min_window={min_window}, max_window={max_window}"
            )
        super().__init__(
            max_length=max(orders, longest),
            channels=orders + count if expand else 1,
            method=method,
            seed=seed,
            **kwargs,
        )
        self.orders = orders
        self.windows = count if drawn else tuple(windows)
        self.min_window = min_window
        self.max_window = max_window
        self.expand = expand
        self.num_filters = orders + count

    def build_kernel(self, features, rng):
        taps = np.zeros((self.channels, features, self.max_length))
        for c in range(self.channels):
            for h in range(features):
                number = c if self.expand else h % self.num_filters
                taps[c, h] = self._filter(number, rng)
            if self.expand:
                taps[c] = taps[c, 0]  # the same for all features
        self.taps = self.add_system_weight("taps", taps, trainable=False)

    def chosen_method(self, length: int | None) -> str:
        # A transform is off by parts of the level, beside which differences are small.
        return "direct" if self.method == "auto" else super().chosen_method(length)

    def direct(self, x, K):
        if not loops_allowed():
            return super().direct(x, K)
        # Products that never drop to TF32, as convolutions of the backends may.
        repeated = x if self.channels == 1 else ops.concatenate([x] * self.channels, axis=-1)
        y = short_conv(repeated, ops.reshape(K[..., :FEW_TAPS], (-1, min(FEW_TAPS, K.shape[-1]))))
        length = known(x.shape[1])
        if K.shape[-1] <= FEW_TAPS or (length is not None and length <= FEW_TAPS):
            return y
        rest = ops.concatenate([ops.zeros_like(K[..., :FEW_TAPS]), K[..., FEW_TAPS:]], axis=-1)
        unknown = length is None and not backend.transforms_unknown_lengths()
        if self.method != "auto" or unknown:
            return y + super().direct(x, rest)
        return y + fft_conv(x, rest[..., :length])

    def whole_kernel(self) -> Tensor:
        return self.tensor(self.taps)

    def get_config(self):
        config = super().get_config()
        for name in ("max_length", "channels", "bidirectional"):
            del config[name]
        return {
            **config,
            "orders": self.orders,
            "windows": self.windows,
            "min_window": self.min_window,
            "max_window": self.max_window,
            "expand": self.expand,
        }

    def _filter(self, number, rng):
        taps = np.zeros(self.max_length)
        if number < self.orders:
            for k in range(number + 1):
                taps[k] = (-1) ** k * comb(number, k)
            return taps
        if isinstance(self.windows, int):
            width = rng.integers(self.min_window, self.max_window)
        else:
            width = self.windows[number - self.orders]
        taps[0] = 1.0
        taps[:width] -= 1.0 / width
        return taps
