from collections.abc import Callable

import keras

from keras_ssm.checks import check_number
from keras_ssm.layers.exact_layers import Dense
from keras_ssm.layers.inference import infer
from keras_ssm.layers.sequence_pooling import SequencePooling
from keras_ssm.models.ssm_backbone import SSMBackbone
from keras_ssm.types import Tensor


class PooledHead:
    """The head of a task on what a backbone gives: pooling, dropout, a linear layer.

    A task calls `make_head` first, builds its graph of `backbone`, `pooler` and `apply_head`, and
    passes it on.
    """

    def make_head(
        self,
        backbone: SSMBackbone,
        units: int,
        preprocessor: Callable | None,
        pooling: str | None,
        dropout: float,
        head_dtype: str | keras.dtype_policies.DTypePolicy | None,
        name: str,
    ) -> None:
        """Checks the arguments and makes the layers of the head, the last one of this name."""
        self.set_parts(backbone, preprocessor, head_dtype)
        check_number("dropout", dropout, low=0, high=1)
        if preprocessor is None:
            self.preprocessor = self.default_preprocessor(backbone)
        policy = backbone.dtype_policy
        self.pooler = SequencePooling(pooling, dtype=policy, name="pooling")
        self.head_dropout = keras.layers.Dropout(dropout, dtype=policy, name="head_dropout")
        self.head = Dense(units, dtype=self.head_policy, name=name)
        self.pooling = pooling
        self.dropout = dropout

    @classmethod
    def default_preprocessor(cls, backbone: SSMBackbone) -> Callable:
        """Returns the preprocessor that fits a backbone."""
        return cls.preprocessor_cls(tokens=backbone.vocabulary_size is not None)

    def apply_head(self, y: Tensor, training: bool | None = None) -> Tensor:
        """Returns the outputs for pooled features, `(batch, ..., features)`."""
        context = {} if training is None else {"training": training}
        return self.head(self.head_dropout(y, **context))

    def infer_head(self, y: Tensor) -> Tensor:
        """`apply_head` at inference, past the detours of Keras where they change nothing."""
        return infer(self.head, y)

    def get_config(self):
        return {**super().get_config(), "pooling": self.pooling, "dropout": self.dropout}
