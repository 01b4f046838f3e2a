from keras import ops

from keras_ssm.checks import check_at_least, check_flags, check_number, check_positive
from keras_ssm.initializers.mamba import fan_in_uniform
from keras_ssm.initializers.timescale import log_uniform_step
from keras_ssm.layers.fan_in_dense import constant, fan_in_dense
from keras_ssm.layers.inference import infer
from keras_ssm.layers.sequence_mixer import SequenceMixer
from keras_ssm.layers.step_mask import masked
from keras_ssm.ops.causal_conv import causal_conv, causal_conv_step


class ConvMixer(SequenceMixer):
    """A projection, a short convolution, a recurrence and a projection back.

    `conv_width=None` leaves the convolution out, for subclasses that may.

    A subclass says in `split` what the input projection holds, and in `recur` and `recur_step`
    how the convolved part becomes an output, which `read_out` readies for the last projection.
    """

    lora_layers = ("in_proj", "out_proj")
    may_lack_conv = False
    no_scale_because = "takes its steps from the inputs, and is not time-invariant"

    def __init__(
        self,
        conv_width: int | None,
        conv_bias: bool,
        use_bias: bool,
        dt_min: float,
        dt_max: float,
        dt_floor: float,
        residual_layers: int,
        seed: int | None,
        **kwargs,
    ):
        super().__init__(seed=seed, **kwargs)
        check_positive(residual_layers=residual_layers)
        check_flags(conv_bias=conv_bias, use_bias=use_bias)
        log_uniform_step((), dt_min, dt_max)  # checks the range
        check_number("dt_floor", dt_floor, low=0)
        check_at_least(2, or_none=self.may_lack_conv, conv_width=conv_width)
        if conv_width is None and conv_bias:
            raise ValueError(
                "`conv_bias` needs a convolution. "
                f"Received: conv_bias={conv_bias!r}, conv_width=None"
            )
        self.conv_width = conv_width
        self.conv_bias = conv_bias
        self.use_bias = use_bias
        self.dt_min = dt_min
        self.dt_max = dt_max
        self.dt_floor = dt_floor
        self.residual_layers = residual_layers

    def sequence_dtype(self, x):
        return self.compute_dtype

    def state_shape(self, features):
        ssm = {"ssm": self.ssm_shape(features)}
        if self.conv_width is None:
            return ssm
        return {"conv": (self.conv_width - 1, self.conv_channels(features)), **ssm}

    def build_projections(self, features, width, inner):
        """Adds both projections and the convolution.

        Args:
            features: int. Features of inputs and outputs.
            width: int. Features that the first projection makes.
            inner: int. Features that the second one reads.
        """
        self.rng = self.make_rng()
        channels = self.conv_channels(features)
        self.in_proj = self.add_dense("in_proj", features, width, self.use_bias)
        self.conv_kernel = self.conv_bias_weight = None
        if self.conv_width is not None:
            kernel = fan_in_uniform((self.conv_width, channels), self.conv_width, self.rng)
            self.conv_kernel = self._add_values("conv_kernel", kernel)
        if self.conv_bias:
            bias = fan_in_uniform((channels,), self.conv_width, self.rng)
            self.conv_bias_weight = self._add_values("conv_bias", bias)
        self.out_proj = self.add_dense(
            "out_proj", inner, features, self.use_bias, scale=self.residual_layers**-0.5
        )

    def add_dense(self, name, inputs, outputs, use_bias, scale=1.0):
        """Adds a projection with PyTorch's initial values, which published models start from."""
        return fan_in_dense(name, inputs, outputs, use_bias, self.rng, self.dtype_policy, scale)

    def _add_values(self, name, value):
        return self.add_weight(
            name=name, shape=value.shape, initializer=constant(value), autocast=False
        )

    def evaluate(self, x, mask=None, initial_state=None, return_state=False):
        gate, u, rest = self.split(self.in_proj(x))
        if mask is not None:
            u = masked(u, mask)  # the bias of the projection acts on masked steps too
        state, held = initial_state or {}, {}
        if self.conv_kernel is None:
            u = ops.silu(u)
        else:
            given = u, *self._convolution(), state.get("conv"), mask
            u, last = causal_conv(*given, activation="silu")
            held = {"conv": last}
        y, ssm = self.recur(u, rest, mask, state.get("ssm"))
        y = self.out_proj(self.read_out(y, gate))
        return y, {**held, "ssm": ssm}

    def advance(self, x, state):
        gate, u, rest = self.split(infer(self.in_proj, ops.cast(x, self.compute_dtype)))
        held = {}
        if self.conv_kernel is not None:
            u, last = causal_conv_step(self.exact(u), *self._convolution(), state["conv"])
            held = {"conv": last}
        y, ssm = self.recur_step(ops.silu(u), rest, state["ssm"])
        y = infer(self.out_proj, self.read_out(y, gate))
        return y, {**held, "ssm": ssm}

    def _convolution(self):
        """Kernel and bias, in the dtype of the recurrence.

        Rounded after each product, a sum of few samples would be another in a sequence than in a
        step, and a norm of small heads behind it makes much of that.
        """
        bias = self.conv_bias_weight
        return self.exact(self.conv_kernel), None if bias is None else self.exact(bias)

    def exact(self, x):
        """x in the dtype of the recurrence."""
        return ops.cast(x, self.system_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "conv_width": self.conv_width,
            "conv_bias": self.conv_bias,
            "use_bias": self.use_bias,
            "dt_min": self.dt_min,
            "dt_max": self.dt_max,
            "dt_floor": self.dt_floor,
            "residual_layers": self.residual_layers,
        }


def stop_where_masked(steps, mask):
    """Step sizes, or what else drives a state, of 0 where a mask covers: the state stays."""
    return steps if mask is None else masked(steps, mask)


def last_axis_as(x, sizes):
    """The last axis in several."""
    return ops.reshape(x, (*ops.shape(x)[:-1], *sizes))


def joined(x):
    """The last two axes in one."""
    return ops.reshape(x, (*ops.shape(x)[:-2], x.shape[-2] * x.shape[-1]))
