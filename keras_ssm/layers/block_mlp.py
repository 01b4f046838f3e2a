"""The second branch of a residual block: what mixes the features of each step."""

from keras import ops

from keras_ssm.checks import check_positive
from keras_ssm.layers.activations import get_activation
from keras_ssm.layers.norms import make_norm, normalize


class BlockMLP:
    """An MLP with a norm and a residual sum of its own, behind the first branch of `SSMBlock`."""

    def check_mlp(self, intermediate_dim):
        """Raises a `ValueError` for a width that is none."""
        if intermediate_dim is not None:
            check_positive(intermediate_dim=intermediate_dim)

    def make_mlp(self, **norm):
        """Makes the layers whose sizes need no input; `norm` are arguments of a norm."""
        self.mlp_norm = self.mlp_dropout = self.mlp_dense = self.mlp_output_dense = None
        if self.intermediate_dim is None:
            return
        self.mlp_norm = make_norm(**norm, dtype=self.dtype_policy, name="mlp_norm")
        self.mlp_dropout = self._make_dropout("mlp_dropout")
        self._activate_mlp = get_activation("gelu_tanh")

    def build_mlp(self, shape):
        """Adds the projections, for inputs of this shape to the block."""
        if self.intermediate_dim is None:
            return
        if self.mlp_norm is not None:
            self.mlp_norm.build(shape)
        wide = (*shape[:-1], self.intermediate_dim)
        self.mlp_dense = self._dense("mlp_dense", shape, self.intermediate_dim, True)
        self.mlp_output_dense = self._dense("mlp_output_dense", wide, shape[-1], True)

    def mix_features(self, x, apply, training=False):
        """The second branch; on sequences and on single samples.

        Args:
            x: what comes out of the first branch.
            apply: as for `normalize`.
            training: bool or `None`.
        """
        if self.intermediate_dim is None:
            return x
        y = ops.cast(x, self.compute_dtype)
        y = normalize(self.mlp_norm, x, apply) if self.prenorm else y
        y = apply(self.mlp_output_dense, self._activate_mlp(apply(self.mlp_dense, y)))
        return self._summed(self.mlp_norm, x, self._drop(self.mlp_dropout, y, training), apply)
