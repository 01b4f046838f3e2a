import numpy as np

from keras_ssm.layers.conv_encoder import ConvEncoder
from keras_ssm.types import State, Tensor


class BackboneEncoder:
    """What a backbone says of its encoder: the samples of a step, and its part of a state."""

    @property
    def convolves(self) -> bool:
        """Whether the encoder is a `ConvEncoder`, which has a state of its own."""
        return isinstance(self.encoder_layer, ConvEncoder)

    @property
    def stride(self) -> int:
        """Samples to a step of the hidden sequence: 1, unless the encoder strides."""
        return self.encoder_layer.stride if self.convolves else 1

    def output_mask(self, mask: Tensor, state: State | None = None) -> Tensor:
        """The mask of the hidden sequence, for a mask of the inputs.

        Args:
            mask: boolean tensor `(batch, length)`, True where the inputs are valid.
            state: what the call gets as `initial_state`, or `None`. The steps are then as many
                as the inputs can complete: their length over the stride, rounded up.

        Returns:
            Boolean tensor `(batch, steps)`; the mask itself, unless the encoder strides.
        """
        if self.stride == 1:
            return mask
        if state is not None:
            return self.encoder_layer.mask_of_piece(mask, state["encoder"])
        return self.encoder_layer.mask_layer(mask)

    def encoder_and_layers(self, state, name):
        """The parts of a state: of the encoder and of the layers."""
        if not isinstance(state, dict) or set(state) != {"encoder", "layers"}:
            keys = sorted(state) if isinstance(state, dict) else type(state).__name__
            raise ValueError(
                f"`{name}` of a model with the encoder 'conv' must be a dict of 'encoder' and "
                f"'layers', as `get_initial_state` returns it. Received: {keys}"
            )
        return state["encoder"], state["layers"]

    def check_encoder_takes(self, arguments):
        """Raises a `ValueError` for arrays that go with every step and not with every sample."""
        if self.convolves and arguments:
            raise ValueError(
                f"{' and '.join(f'`{name}`' for name in arguments)} of every sample cannot go "
                "with the encoder 'conv', whose steps read several samples at once. "
                f"Received: {sorted(arguments)}"
            )

    def check_encoder_scale(self, scale):
        """Raises a `ValueError` for a `step_scale` that the encoder would not follow."""
        try:
            alike = float(scale) == 1.0
        except (TypeError, ValueError):
            return  # the layers raise the error
        if self.convolves and not alike:
            raise ValueError(
                "`step_scale` cannot be set with the encoder 'conv', whose weights are for samples "
                "of one rate: `rescaled(step_scale)` returns a model with other weights, and a "
                "preprocessor with a `sampling_rate` resamples. "
                f"Received: step_scale={scale}"
            )

    def check_rows(self, mask):
        """Raises a `ValueError` for a row, in NumPy, that is shorter than one stride."""
        if self.stride == 1 or not isinstance(mask, np.ndarray):
            return
        mask = mask.reshape(-1, mask.shape[-1]).astype(bool)
        first = mask.argmax(axis=1)
        last = mask.shape[1] - mask[:, ::-1].argmax(axis=1)
        short = mask.any(axis=1) & (last - first < self.stride)
        if short.any():
            row = int(short.argmax())
            raise ValueError(
                f"Every row must have at least {self.stride} samples, the stride of the encoder, "
                f"or it has no step. Received: {last[row] - first[row]} in row {row}"
            )

    def encoder_config(self):
        """What the configuration says of a `ConvEncoder` and of augmentation, if there is any."""
        config = {}
        if self.convolves:
            config["encoder_width"] = self.encoder_width
            config["encoder_stride"] = self.encoder_stride
        if self.augmentation:
            config["augmentation"] = self.augmentation
        return config
