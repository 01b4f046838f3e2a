import keras

from keras_ssm.types import Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class TokenDense(keras.layers.Embedding):
    """Dense layer on one-hot tokens, computed as a lookup: an embedding with a bias.

    Published S5 models encode tokens this way. The one-hot vectors are never formed.

    Weights: `embeddings` `(input_dim, output_dim)`, the kernel, and `bias` `(output_dim,)`.

    Args:
        input_dim: int. Number of tokens.
        output_dim: int. Features of the output.
        **kwargs: Arguments of `keras.layers.Embedding`.

    Call arguments:
        inputs: integer tensor `(batch, length)`.

    Returns:
        Float tensor `(batch, length, output_dim)`.

    Example:
        ```python
        y = keras_ssm.layers.TokenDense(20, 16)(np.array([[3, 1, 0]]))  # (1, 3, 16)
        ```

    Reference:
        [S5](https://arxiv.org/abs/2208.04933), appendix G.1.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: str | keras.initializers.Initializer = "lecun_normal",
        **kwargs,
    ):
        super().__init__(
            input_dim, output_dim, embeddings_initializer=embeddings_initializer, **kwargs
        )

    def build(self, input_shape=None):
        super().build(input_shape)
        self.bias = self.add_weight(name="bias", shape=(self.output_dim,), initializer="zeros")

    @property
    def variable_serialization_spec(self):
        """What files hold, in their order: the bias too, which `Embedding` does not know."""
        spec = super().variable_serialization_spec
        return {mode: [*names, "bias"] for mode, names in spec.items()}

    def call(self, inputs: Tensor) -> Tensor:
        y = super().call(inputs)
        return y + keras.ops.cast(self.bias, y.dtype)

    def quantized_call(self, inputs):
        y = super().quantized_call(inputs)
        return y + keras.ops.cast(self.bias, y.dtype)
