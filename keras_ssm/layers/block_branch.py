"""What a residual block does around its mixer."""

import keras
from keras import ops

from keras_ssm.layers.norms import normalize


class BlockBranch:
    """Activation, gate, dropout, residual sum and post-norm of `SSMBlock`."""

    def finish(self, x, y, apply, training=False):
        """Activation, gate, residual sum and post-norm; on sequences and on single samples."""
        g = self._drop(self.inner_dropout, self._activate(y), training)
        if self.gate is not None:
            z = apply(self.output_dense, g)
            if self.gate in ("glu", "full_glu"):
                first, second = ops.split(z, 2, axis=-1)
                g = first * ops.sigmoid(second)
            elif self.gate == "linear":
                g = z
            else:
                g = (g if self.gate == "half_glu1" else y) * ops.sigmoid(z)
        y = x + ops.cast(self._drop(self.outer_dropout, g, training), x.dtype)
        return y if self.prenorm else ops.cast(normalize(self.norm, y, apply), x.dtype)

    def _drop(self, layer, x, training):
        if not (training and layer.rate > 0 and self.tie_dropout):
            return layer(x, training=training) if training and layer.rate > 0 else x
        # What is tied is drawn for one step: Keras would spread it over all before it applies it.
        one = (slice(None), *[slice(0, 1)] * (len(x.shape) - 2))
        return x * layer(ops.ones_like(x[one]), training=training)

    def make_dropout(self, name):
        noise = (None, *[1] * (self.mixer.input_rank - 2), None)
        return keras.layers.Dropout(
            self.dropout,
            noise_shape=noise if self.tie_dropout else None,
            dtype=self.dtype_policy,
            name=name,
        )
