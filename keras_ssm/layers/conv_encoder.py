import keras
from keras import ops

from keras_ssm.attributes import Attributes
from keras_ssm.checks import check_positive
from keras_ssm.layers.exact_layers import Dense
from keras_ssm.layers.inference import infer
from keras_ssm.layers.step_mask import masked
from keras_ssm.layers.stride_mask import StrideMask
from keras_ssm.ops import backend
from keras_ssm.ops.strides import from_first_valid, windows
from keras_ssm.types import State, Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class ConvEncoder(Attributes, keras.layers.Layer):
    """Causal convolution with a stride: many samples become few steps of more features.

    Step j reads the `width` samples up to sample `(j + 1) * stride - 1`, with zeros before the
    first. The last samples of a row, if they fill no stride, make no step. So a sequence that
    comes in pieces of any size has the steps of the whole.

    Masks: the strides of a row begin with its first valid sample, and its last step ends with the
    last valid one or before, so that padding on either side changes nothing. A covered sample
    between valid ones reads as zero while time goes on; a step of covered samples alone is covered.

    Args:
        units: int. Features of a step.
        width: int. Samples that a step reads, at least 2 and at least `stride`.
        stride: int. Samples from one step to the next. Defaults to `1`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: list of a float tensor `(batch, length, features)`, zero where covered, and a
            boolean mask `(batch, length)`, True where valid.

    Returns:
        Tuple `(y, mask)`: `(batch, length // stride, units)` and `(batch, length // stride)`.

    Raises:
        ValueError: for sizes below 1, a `width` below 2 or below `stride`, or fewer samples than
            a stride.

    Example:
        ```python
        encoder = keras_ssm.layers.ConvEncoder(units=8, width=16, stride=4)
        x, mask = np.ones((2, 1000, 1), "float32"), np.ones((2, 1000), bool)
        y, mask = encoder([x, mask])  # (2, 250, 8), (2, 250)
        ```

    Reference:
        [An Image is Worth 16x16 Words](https://arxiv.org/abs/2010.11929), section 3.1 (an
        embedding of patches).
    """

    def __init__(self, units: int, width: int, stride: int = 1, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.units, self.width, self.stride = check_positive(
            units=units, width=width, stride=stride
        )
        if self.width < max(2, self.stride):
            raise ValueError(
                "`width` must be at least 2 and at least `stride`, or samples would be left out. "
                f"Received: width={width}, stride={stride}"
            )
        self.dense = Dense(self.units, dtype=self.dtype_policy, name="input_dense")
        self.mask_layer = StrideMask(self.stride, name="input_mask")

    def build(self, input_shape):
        shape = input_shape[0] if isinstance(input_shape[0], (list, tuple)) else input_shape
        self.features = int(shape[-1])
        self.dense.build((None, None, self.width * self.features))
        self.built = True

    def call(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        x, mask = (ops.convert_to_tensor(part) for part in inputs)
        mask = ops.cast(mask, "bool")
        self.check_length(x.shape[1])
        steps = (x.shape[1] or ops.shape(x)[1]) // self.stride
        x = ops.pad(x, [[0, 0], [self.width - self.stride, self.stride - 1], [0, 0]])
        x = windows(x, from_first_valid(mask, self.stride), steps, self.width, self.stride)
        mask = self.mask_layer(mask)
        return masked(self.dense(x), mask), mask

    def check_length(self, length):
        """Raises a `ValueError` for a known length below that of one stride."""
        if isinstance(length, int) and length < self.stride:
            raise ValueError(
                f"The inputs must have at least {self.stride} samples, the stride of the encoder. "
                f"Received: {length} samples"
            )

    def read(self, x: Tensor, mask: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Reads the next piece of a sequence.

        Args:
            x: float tensor `(batch, length, features)`, zero where covered.
            mask: boolean tensor `(batch, length)` that pads on the right.
            state: what `get_initial_state` or the last `read` returned.

        Returns:
            Tuple `(y, mask, state)`. `y` has as many steps as the piece can complete, the length
            over the stride rounded up; those that it does not complete are covered by the mask.
        """
        x, mask = ops.convert_to_tensor(x), ops.cast(ops.convert_to_tensor(mask), "bool")
        self.check_pads_right(mask)
        before = ops.cast(ops.convert_to_tensor(state["samples"]), x.dtype)
        count = ops.cast(ops.convert_to_tensor(state["count"]), "int32")
        context = self.width - 1
        samples = ops.concatenate([before, x], axis=1)
        steps = self.steps_of_piece(x)
        padded = ops.pad(samples, [[0, 0], [0, self.stride - 1], [0, 0]])
        start = self.stride - 1 - count
        y = self.dense(windows(padded, start, steps, self.width, self.stride))
        lengths = ops.sum(ops.cast(mask, "int32"), axis=1)
        mask = self.mask_of_piece(mask, state)
        places = ops.expand_dims(lengths, 1) + ops.arange(0, context, dtype="int32")
        state = {
            "count": ops.mod(count + lengths, self.stride),
            "samples": ops.cast(backend.take_steps(samples, places), self.state_dtype),
        }
        return masked(y, mask), mask, state

    def mask_of_piece(self, mask: Tensor, state: State) -> Tensor:
        """The mask of the steps that `read` returns."""
        mask = ops.cast(ops.convert_to_tensor(mask), "int32")
        count = ops.cast(ops.convert_to_tensor(state["count"]), "int32")
        complete = (count + ops.sum(mask, axis=1)) // self.stride
        places = ops.arange(0, self.steps_of_piece(mask), dtype="int32")
        return places < ops.expand_dims(complete, 1)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Advances by one step, at inference.

        Args:
            x: float tensor `(batch, features)`, or `(batch, stride, features)` with a stride.
            state: what `get_initial_state`, `read` or the last step returned.

        Returns:
            Tuple `(y, state)`: `(batch, units)` and the next state.
        """
        x = ops.expand_dims(x, 1) if self.stride == 1 else x
        before = ops.cast(ops.convert_to_tensor(state["samples"]), x.dtype)
        samples = ops.concatenate([before, x], axis=1)
        last = samples
        if self.stride > 1:  # the step ends with its last sample, and others may wait already
            count = ops.cast(ops.convert_to_tensor(state["count"]), "int32")
            places = ops.arange(0, self.width, dtype="int32") + (self.stride - 1)
            last = backend.take_steps(samples, places - ops.expand_dims(count, 1))
        y = infer(self.dense, ops.reshape(last, (-1, self.width * self.features)))
        samples = ops.cast(samples[:, self.stride :], self.state_dtype)
        return y, {"count": state["count"], "samples": samples}

    def steps_of_piece(self, x):
        """Most steps that a piece can complete."""
        return -(-(x.shape[1] or ops.shape(x)[1]) // self.stride)

    def get_initial_state(self, batch_size: int | Tensor) -> State:
        """The state before the first sample: no sample of a stride, and zeros before."""
        return {
            key: ops.zeros((batch_size, *part.shape[1:]), dtype=part.dtype)
            for key, part in self.state_spec(None).items()
        }

    def state_spec(self, batch):
        """The state of `batch` rows as symbolic tensors."""
        shape = (batch, self.width - 1, self.features)
        return {
            "count": keras.KerasTensor((batch,), dtype="int32"),
            "samples": keras.KerasTensor(shape, dtype=self.state_dtype),
        }

    def check_pads_right(self, mask):
        """Raises a `ValueError` for a mask of a piece with valid samples after covered ones."""
        values = backend.static_value(mask)
        if values is not None and (values[:, 1:] > values[:, :-1]).any():
            raise ValueError(
                "`initial_state` and `return_state` need a mask that pads on the right: True up to "
                "each row's last valid sample, then False. Received: a mask with valid samples "
                "after masked ones"
            )

    @property
    def state_dtype(self):
        """The dtype of the samples that are kept."""
        return "float64" if self.variable_dtype == "float64" else "float32"

    def compute_output_shape(self, input_shape):
        batch, length = input_shape[0][:2]
        steps = None if length is None else length // self.stride
        return (batch, steps, self.units), (batch, steps)

    def compute_output_spec(self, inputs):
        self.check_length(inputs[0].shape[1])
        if not self.built:
            self.build([x.shape for x in inputs])
        y, mask = self.compute_output_shape([x.shape for x in inputs])
        return (
            keras.KerasTensor(y, dtype=self.compute_dtype),
            keras.KerasTensor(mask, dtype="bool"),
        )

    def compute_mask(self, inputs, previous_mask):
        return None

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "width": self.width,
            "stride": self.stride,
        }
