import numpy as np
from keras import ops

from keras_ssm.checks import check_at_least, check_flags, check_number, check_positive
from keras_ssm.initializers import filter_decay, filter_positions
from keras_ssm.initializers.mamba import fan_in_uniform
from keras_ssm.ops import backend
from keras_ssm.ops.backend import exact_einsum
from keras_ssm.types import Tensor


class ImplicitFilter:
    """Long kernels as the outputs of a small network that reads their positions.

    A mixer with it calls `check_filter` in its constructor and `build_filter` when it is built,
    and reads the kernels in `filter_taps`.
    """

    undecayed_weights = ("D",)

    @property
    def slow_weights(self):
        """Weights of the filter: every sine multiplies a step of its rate by `frequency`."""
        layers = range(self.filter_depth + 1)
        network = [f"filter_{kind}_{i}" for i in layers for kind in ("kernel", "bias")]
        return ("positions", "frequency", *network, "filter_output")

    def check_filter(
        self, max_length, filter_width, filter_depth, emb_dim, frequency, shift, train_positions
    ):
        """Keeps the arguments, or raises a `ValueError`."""
        check_positive(max_length=max_length, filter_width=filter_width)
        check_at_least(0, filter_depth=filter_depth)
        check_at_least(3, emb_dim=emb_dim)
        if emb_dim % 2 == 0:
            raise ValueError(
                "`emb_dim` must be odd: a time, and as many cosines as sines. "
                f"Received: emb_dim={emb_dim}"
            )
        check_number("frequency", frequency)
        check_number("shift", shift)
        check_flags(train_positions=train_positions)
        self.max_length = max_length
        self.filter_width = filter_width
        self.filter_depth = filter_depth
        self.emb_dim = emb_dim
        self.frequency = frequency
        self.shift = shift
        self.train_positions = train_positions

    def build_filter(self, outputs, rng):
        """Adds the weights of so many kernels."""
        positions = filter_positions(self.max_length, self.emb_dim)
        trains = self.train_positions
        self.positions = self.add_system_weight("positions", positions, trainable=trains)
        self.times = self.add_system_weight("times", positions[:, 0], trainable=False)
        width, sizes = self.filter_width, [self.emb_dim] + self.filter_depth * [self.filter_width]
        frequencies = np.full(width, float(self.frequency))
        self.frequencies = self.add_system_weight("frequency", frequencies)
        self.filter_layers = []
        for i, inputs in enumerate(sizes):
            kernel = fan_in_uniform((inputs, width), inputs, rng)
            kernel = self.add_system_weight(f"filter_kernel_{i}", kernel)
            bias = self.add_system_weight(f"filter_bias_{i}", fan_in_uniform(width, inputs, rng))
            self.filter_layers.append((kernel, bias))
        self.filter_output = self.add_system_weight(
            "filter_output", fan_in_uniform((width, outputs), width, rng)
        )
        self.decay = self.add_system_weight("decay", filter_decay(outputs), trainable=False)

    def filter_taps(self, count: int | None = None) -> Tensor:
        """Returns the first `count` entries of the kernels, or all of them, `(outputs, count)`."""
        y = self.tensor(self.positions)[:count]
        frequencies = self.tensor(self.frequencies)
        for kernel, bias in self.filter_layers:
            y = exact_einsum("li,io->lo", y, self.tensor(kernel)) + self.tensor(bias)
            y = backend.sin(frequencies * y)
        y = exact_einsum("li,io->ol", y, self.tensor(self.filter_output))
        times, decay = self.tensor(self.times)[:count], ops.abs(self.tensor(self.decay))
        return y * (ops.exp(-decay[:, None] * times) + self.shift)

    def filter_config(self):
        """The arguments, for `get_config`."""
        return {
            "max_length": self.max_length,
            "filter_width": self.filter_width,
            "filter_depth": self.filter_depth,
            "emb_dim": self.emb_dim,
            "frequency": self.frequency,
            "shift": self.shift,
            "train_positions": self.train_positions,
        }
