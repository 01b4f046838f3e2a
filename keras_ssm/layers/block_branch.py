"""What a residual block does around its mixer."""

import keras
from keras import ops

from keras_ssm.checks import check_choice, check_flags, check_number, check_positive
from keras_ssm.layers.exact_layers import Dense
from keras_ssm.layers.mixer_checks import check_samples
from keras_ssm.layers.norms import make_norm, normalize, normalize_sum
from keras_ssm.ops import backend

GATES = (None, "linear", "glu", "full_glu", "half_glu1", "half_glu2", "wide")
GATES_OF_EQUAL_SIZE = (None, "half_glu1", "half_glu2")


class BlockBranch:
    """Bottleneck, activation, gate, dropout, residual sum and post-norm of `SSMBlock`."""

    def check_branch(self, mixer, gate, gate_expand, bottleneck, bottleneck_norm):
        """Raises a `ValueError` for a gate or a bottleneck that does not fit."""
        check_choice("gate", gate, GATES)
        if mixer.channels > 1 and gate in GATES_OF_EQUAL_SIZE:
            raise ValueError(
                "A mixer with several channels needs gate='glu', 'linear' or 'wide', which bring "
                f"the features back. Received: gate={gate!r}, mixer.channels={mixer.channels}"
            )
        check_number("gate_expand", gate_expand)
        if gate_expand <= 0:
            raise ValueError(f"`gate_expand` must be positive. Received: gate_expand={gate_expand}")
        if bottleneck is not None:
            check_positive(bottleneck=bottleneck)
        check_flags(bottleneck_norm=bottleneck_norm)
        if bottleneck_norm and bottleneck is None:
            raise ValueError(
                "`bottleneck_norm` needs a `bottleneck`. Received: bottleneck=None, "
                "bottleneck_norm=True"
            )

    def make_branch(self, **norm):
        """Makes the layers whose sizes need no input; `norm` are arguments of a norm."""
        self.inner_norm = None
        if self.bottleneck_norm:
            self.inner_norm = make_norm(**norm, dtype=self.dtype_policy, name="inner_norm")
        self.inner_dropout = self._make_dropout("inner_dropout")
        self.outer_dropout = self._make_dropout("outer_dropout")
        self.bottleneck_dense = self.gate_dense = self.wide_dense = self.output_dense = None

    def mixed_shape(self, shape):
        """The shape of what the mixer reads, for inputs of this shape."""
        return tuple(shape) if self.bottleneck is None else (*shape[:-1], self.bottleneck)

    def check_block_inputs(self, x, rank=None):
        """Raises a `ValueError` unless these are inputs of the block."""
        if self.bottleneck is None:
            self.mixer.check_inputs(x.shape, x.dtype, rank)
            return
        rank = self.input_rank if rank is None else rank
        check_samples(x.shape, x.dtype, rank, self.features if self.built else None, self.name)

    def build_branch(self, shape):
        """Adds the projections, for inputs of this shape to the block."""
        features, mixed = shape[-1], self.mixed_shape(shape)
        wide = self.mixer.compute_output_shape(mixed)
        if wide[-1] != features and self.gate in GATES_OF_EQUAL_SIZE:
            raise ValueError(
                "A mixer that changes the number of features, or one with a `bottleneck`, needs "
                f"gate='glu', 'linear' or 'wide'. Received: gate={self.gate!r}, {features} "
                f"features in and {wide[-1]} out"
            )
        if self.bottleneck is not None:
            self.bottleneck_dense = self._dense("bottleneck_dense", shape, self.bottleneck, False)
            if self.inner_norm is not None:
                self.inner_norm.build(mixed)
        if self.gate is None:
            return
        units = 2 * features if self.gate in ("glu", "full_glu") else features
        if self.gate == "wide":
            size = max(1, round(self.gate_expand * features))
            self.gate_dense = self._dense("gate_dense", shape, size, False)
            self.wide_dense = self._dense("wide_dense", wide, size, False)
            wide = (*wide[:-1], size)
        self.output_dense = self._dense("output_dense", wide, units, True)

    def enter(self, x, apply):
        """What the mixer reads of the inputs of the branch."""
        if self.bottleneck is None:
            return x
        return normalize(self.inner_norm, self._activate(apply(self.bottleneck_dense, x)), apply)

    def finish(self, x, read, y, apply, training=False):
        """Activation, gate, residual sum and post-norm; on sequences and on single samples.

        Args:
            x: what came into the block.
            read: what the branch read of it.
            y: outputs of the mixer.
            apply: as for `normalize`.
            training: bool or `None`.
        """
        if self.gate == "wide":
            g = self._activate(apply(self.gate_dense, read)) * apply(self.wide_dense, y)
            g = apply(self.output_dense, self._drop_inner(g, training))
        else:
            g = self._gated(y, apply, training)
        return self._summed(self.norm, x, self._drop(self.outer_dropout, g, training), apply)

    def _summed(self, norm, x, y, apply):
        """x + y, or the norm of it where norms come last."""
        if self.prenorm:
            return x + ops.cast(y, x.dtype)
        return ops.cast(normalize_sum(norm, x, y, apply), x.dtype)

    def _gated(self, y, apply, training):
        g = self._drop_inner(self._activate(y), training)
        if self.gate is None:
            return g
        z = apply(self.output_dense, g)
        if self.gate in ("glu", "full_glu"):
            return backend.glu(z)
        if self.gate == "linear":
            return z
        return backend.sigmoid_gated(g if self.gate == "half_glu1" else y, z)

    def _drop_inner(self, x, training):
        alone = self.intermediate_dim is None
        return self._drop(self.inner_dropout, x, training) if alone else x

    def _drop(self, layer, x, training):
        if not (training and layer.rate > 0 and self.tie_dropout):
            return layer(x, training=training) if training and layer.rate > 0 else x
        # What is tied is drawn for one step: Keras would spread it over all before it applies it.
        one = (slice(None), *[slice(0, 1)] * (len(x.shape) - 2))
        return x * layer(ops.ones_like(x[one]), training=training)

    def _dense(self, name, shape, units, use_bias):
        dense = Dense(units, use_bias=use_bias, dtype=self.dtype_policy, name=name)
        dense.build(shape)
        return dense

    def _make_dropout(self, name):
        noise = (None, *[1] * (self.mixer.input_rank - 2), None)
        return keras.layers.Dropout(
            self.dropout,
            noise_shape=noise if self.tie_dropout else None,
            dtype=self.dtype_policy,
            name=name,
        )
