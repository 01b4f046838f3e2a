import keras
import numpy as np
from keras import ops

from keras_ssm.checks import check_flags, check_positive
from keras_ssm.layers.axis_layers import along_axis, axis_layers, by_matrices, evaluate_apart
from keras_ssm.layers.frames import Frames
from keras_ssm.layers.mixer_config import clone_mixer, layer_config, mixer_from_config
from keras_ssm.layers.s4d import S4D
from keras_ssm.layers.ssm_layer import SSMLayer
from keras_ssm.types import State, Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class S4ND(Frames, SSMLayer):
    """State-space layer of images, video and other grids (S4ND): one system along each axis.

    Along axis i every feature meets a one-dimensional system with the kernel K_i. The kernel of
    the layer is their outer product, K[l_0, l_1, ...] = K_0[l_0] K_1[l_1] ..., or the mean of
    `rank` such products, and y = K * u + D u. A product of kernels needs no transform over all
    axes: the layer convolves along one axis after the other, each in the way of its system.

    Any time-invariant layer can stand on an axis, and an axis is read forwards or both ways. Where
    one is read forwards, such as the time of a video, the layer streams along the first such axis:
    `step` takes a frame, and the state is that of the axis for every position of a frame.

    `step_scale` has a number for each axis. Images of twice the resolution are read with 0.5 along
    both: `layer.step_scale = 0.5`, or `(0.5, 0.5)`.

    Weights: those of the layers `axis_0`, `axis_1`, ..., which have no D of their own, and `D`
    `(channels, features)`.

    Args:
        mixer: time-invariant `SSMLayer`, unbuilt, such as `S4D(state_dim=32)`, or a list of one
            for each axis. Copies of it are made; `bidirectional` and `channels` of them are
            those of this layer. Defaults to `None`: `S4D(state_dim, init)`.
        axes: int. Number of axes between batch and features: 2 for images, 3 for video.
            Defaults to `2`.
        rank: int. Number of outer products of which the kernel is the mean. Defaults to `1`.
        channels: int. Outputs for each feature; channel c of feature h is output
            `c * features + h`. Defaults to `1`.
        bidirectional: bool, or a list of one for each axis. Whether samples behind the current
            one contribute as well. Defaults to `True`.
        bandlimit: float or `None`. As in `S4D`, for every axis; a limit of 0.2 or so lets a model
            that was trained at a low resolution read a higher one. Defaults to `None`: that of
            the mixer.
        state_dim: int or `None`. Of the default mixer. Defaults to `None`: 64.
        init: str or `None`. Of the default mixer. Defaults to `None`: `"lin"`.
        dt_min: float or `None`. Smallest initial step of every axis, in units of time per sample.
            Defaults to `None`: 0.1, or that of a mixer whose steps are not the default ones of
            its class. These, 0.001 to 0.1, are for long sequences: a product of several such
            kernels is lost beside D u.
        dt_max: float or `None`. Largest initial step, 1.0 in the same way.
        method: str. `"auto"`: that of each mixer, and a matrix for each axis of at most 256
            steps; or one for all axes, see `S4D`. Defaults to `"auto"`.
        chunk_size: int or `None`. As in `S4D`, for all axes.
        seed: int or `None`. Seed of the initial weights. Defaults to that of the first
            mixer; those of the others do not matter.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: float tensor `(batch, *sizes, features)`, with `axes` sizes.
        mask: boolean tensor `(batch, *sizes)`, True where valid. Masked inputs count as zero,
            which is exact for images that are padded at the end of their axes.
        initial_state: as `get_initial_state` returns it.
        return_state: bool. Whether the state after the last valid frame is returned.

    Returns:
        Tensor `(batch, *sizes, channels * features)`; with `return_state` a tuple of it and the
        state.

    Raises:
        ValueError: for a mixer that is not time-invariant, lists of another length than `axes`,
            a `rank` or `channels` above 1 with mixers of all features at once, integer or empty
            inputs, a mask or state of another shape, or a state asked of a layer that reads every
            axis both ways.

    Example:
        ```python
        layer = keras_ssm.layers.S4ND(keras_ssm.layers.S4D(state_dim=16))
        images = np.random.default_rng(0).normal(size=(2, 28, 28, 8)).astype("float32")
        y = layer(images)  # (2, 28, 28, 8)

        video = keras_ssm.layers.S4ND(state_dim=16, axes=3, bidirectional=[False, True, True])
        frames = np.zeros((2, 5, 12, 12, 4), "float32")
        y, state = video(frames, return_state=True)  # the state is (2, 12, 12, 4, 16)
        y_next, state = video.step(frames[:, 0], state)  # one more frame
        ```

    Reference:
        [S4ND](https://arxiv.org/abs/2210.06583), sections 3.1 to 3.3.
    """

    def __init__(
        self,
        mixer: SSMLayer | list | None = None,
        axes: int = 2,
        rank: int = 1,
        channels: int = 1,
        bidirectional: bool | list = True,
        bandlimit: float | None = None,
        state_dim: int | None = None,
        init: str | None = None,
        dt_min: float | None = None,
        dt_max: float | None = None,
        method: str = "auto",
        chunk_size: int | None = None,
        seed: int | None = None,
        **kwargs,
    ):
        axes, rank, channels = check_positive(axes=axes, rank=rank, channels=channels)
        if mixer is None:
            mixers = [S4D(64 if state_dim is None else state_dim, init or "lin")] * axes
        else:
            mixers = list(mixer) if isinstance(mixer, (list, tuple)) else [mixer] * axes
            if state_dim is not None or init is not None:
                raise ValueError(
                    "`state_dim` and `init` are those of the default mixer: give them to `mixer`. "
                    f"Received: state_dim={state_dim}, init={init!r} and a mixer"
                )
        mixers = [mixer_from_config(m) if isinstance(m, dict) else m for m in mixers]
        _check_count("mixer", mixers, axes)
        directions = _for_each_axis("bidirectional", bidirectional, axes)
        check_flags(**{"bidirectional": all(map(_is_flag, directions)) or bidirectional})
        directions = tuple(map(bool, directions))
        if seed is None:
            seed = getattr(mixers[0], "seed", None)
        super().__init__(
            bidirectional=directions[0] if len(set(directions)) == 1 else directions,
            seed=seed,
            **kwargs,
        )
        self.mixer = mixer if mixer is None else [_config(m) for m in mixers]
        self.axes = axes
        self.rank = rank
        self.channels = channels
        self.bandlimit = bandlimit
        self.state_dim = state_dim
        self.init = init
        self.dt_min = dt_min
        self.dt_max = dt_max
        settings = {"dt_min": dt_min, "dt_max": dt_max, "bandlimit": bandlimit}
        self.axis_layers = axis_layers(
            mixers, rank * channels, directions, settings, seed, self.dtype_policy
        )
        self._own = [(layer.method, layer.chunk_size) for layer in self.axis_layers]
        self.method, self.chunk_size = method, chunk_size

    def build_system(self, features: int) -> None:
        for layer in self.axis_layers:
            layer.build((None, None, features))
        D = self.make_rng().standard_normal((self.channels, features))
        self.D = self.add_system_weight("D", D)

    # What it says of itself

    @property
    def input_rank(self) -> int:
        """Axes of the input: batch, positions, features."""
        return self.axes + 2

    def checked_directions(self, bidirectional):
        return bidirectional  # checked against the number of axes

    def needs_transform(self, length: int | None) -> bool:
        return any(layer.needs_transform(length) for layer in self.axis_layers)

    # Settings of all axes

    @property
    def method(self):
        """`"auto"`, or the evaluation of all axes."""
        return self._method

    @method.setter
    def method(self, value):
        self._check_no_program("method", value)
        for layer, (own, _) in zip(getattr(self, "axis_layers", ()), self._owned(), strict=True):
            layer.method = own if value == "auto" else value
        self._method = value

    @property
    def chunk_size(self):
        """Steps in a chunk of all axes, or `None`: those of the mixers."""
        return self._chunk_size

    @chunk_size.setter
    def chunk_size(self, value):
        self._check_no_program("chunk_size", value)
        for layer, (_, own) in zip(getattr(self, "axis_layers", ()), self._owned(), strict=True):
            layer.chunk_size = own if value is None else value
        self._chunk_size = value

    def _owned(self):
        return getattr(self, "_own", ())

    def add_step_scale(self):
        """Adds nothing: every axis has its own."""

    @property
    def step_scale(self):
        """A tuple of the scalars that multiply every dt of an axis; set by one number or several.

        Half a step reads images of twice the resolution.
        """
        scales = tuple(layer.step_scale for layer in self.axis_layers)
        return scales if self.axes > 1 else scales[0]

    @step_scale.setter
    def step_scale(self, value):
        values = _for_each_axis("step_scale", value, self.axes)
        pairs = list(zip(self.axis_layers, values, strict=True))
        for layer, scale in pairs:  # all of them, before the first is set
            layer.checked_scale(scale)
        for layer, scale in pairs:
            layer.step_scale = scale

    # Sequences

    def evaluate(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        initial_state: State | None = None,
        return_state: bool = False,
    ) -> tuple[Tensor, State]:
        in_stream = initial_state is not None or return_state
        outputs = None if in_stream else by_matrices(self.axis_layers, x)
        if outputs is not None:
            return self.finish(x, ops.concatenate(outputs, axis=-1)), None
        first = self.stream_axis or 0
        y, state = self.along_first(x, first, mask, initial_state, return_state)
        return self.finish(x, self.along_others(y, first)), state

    def along_others(self, y, first):
        """Along all axes but the first one, of whole inputs or of frames, which lack it."""
        kernels = self.rank * self.channels
        of_frame = len(y.shape) < self.input_rank
        for i, layer in enumerate(self.axis_layers):
            if i == first:
                continue

            def along(rows, _, layer=layer):
                if kernels > 1:
                    return evaluate_apart(layer, rows, kernels), None
                return layer.evaluate(rows)

            y, _ = along_axis(y, i + 1 - (of_frame and i > first), along)
        return y

    def finish(self, x, y, D=None):
        """The mean over the products, and the skip, of the weights unless it is given."""
        if self.rank > 1:
            y = sum(ops.split(y, self.rank, axis=-1)) / self.rank
        D = self.tensor(self.D) if D is None else D
        return y + ops.concatenate([x * D[c] for c in range(self.channels)], axis=-1)

    # Kernels

    def kernel(self, sizes: int | tuple[int, ...]) -> Tensor:
        """Returns the convolution kernel of each feature.

        Args:
            sizes: tuple of int, one for each axis, or an int for all. Number of steps.

        Returns:
            Tensor `(features, *lags)`; `(channels, features, *lags)` with several channels. An
            axis that is read forwards has the lags 0 to n - 1, one that is read both ways
            -(n - 1) to n - 1.

        Raises:
            ValueError: for sizes that are not positive integers, or mixers without kernels.
        """
        sizes = _for_each_axis("sizes", sizes, self.axes)
        self.check_built()
        K = None
        for layer, n in zip(self.axis_layers, sizes, strict=True):
            if not hasattr(layer, "full_kernel"):
                raise ValueError(
                    "`kernel` needs mixers with a kernel for each feature, such as `S4D`. "
                    f"Received: a mixer {type(layer).__name__}"
                )
            check_positive(sizes=n)
            k = layer.full_kernel(n)
            if layer.bidirectional:
                past, later = ops.split(k, 2, axis=0)
                k = ops.concatenate([ops.flip(later[..., :-1], axis=-1), past], axis=-1)
            K = k if K is None else K[..., None] * ops.reshape(k, _spread(k.shape, K.shape))
        K = sum(ops.split(K, self.rank, axis=0)) / self.rank
        return K[0] if self.channels == 1 else K

    def get_config(self):
        return {
            **super().get_config(),
            "mixer": self.mixer,
            "axes": self.axes,
            "rank": self.rank,
            "channels": self.channels,
            "bandlimit": self.bandlimit,
            "state_dim": self.state_dim,
            "init": self.init,
            "dt_min": self.dt_min,
            "dt_max": self.dt_max,
        }


def _config(mixer):
    return layer_config(clone_mixer(mixer)) if isinstance(mixer, SSMLayer) else mixer


def _is_flag(value):
    return isinstance(value, (bool, np.bool_))


def _for_each_axis(name, value, axes):
    """A value for each axis."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(value, (list, tuple)):
        return (value,) * axes
    _check_count(name, value, axes)
    return tuple(value)


def _check_count(name, values, axes):
    if len(values) != axes:
        raise ValueError(
            f"`{name}` must be one for all axes, or a list of one for each of {axes}. "
            f"Received: {len(values)} of them"
        )


def _spread(shape, before):
    """The shape `(channels, features, 1, ..., steps)` beside axes that are there."""
    return (*shape[:2], *[1] * (len(before) - 2), shape[2])
