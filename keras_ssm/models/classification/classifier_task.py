from collections.abc import Callable

import keras

from keras_ssm.checks import check_number, check_positive
from keras_ssm.layers.exact_layers import Dense
from keras_ssm.layers.sequence_pooling import SequencePooling
from keras_ssm.models.logits_task import LogitsTask
from keras_ssm.models.ssm_backbone import SSMBackbone


class ClassifierTask(LogitsTask):
    """Base class of the classifiers: pooling, a linear head, and how they are trained.

    A classifier calls `make_head` first, builds its graph of `backbone`, `pooler`, `head_dropout`
    and `head`, and passes it on.

    Args:
        inputs, outputs: symbolic tensors of the functional model.
        **kwargs: `compile`, `name`, `trainable`.
    """

    def make_head(
        self,
        backbone: SSMBackbone,
        num_classes: int,
        preprocessor: Callable | None,
        pooling: str | None,
        dropout: float,
        head_dtype: str | keras.dtype_policies.DTypePolicy | None,
    ) -> None:
        """Checks the arguments and makes the layers of the head."""
        self.set_parts(backbone, preprocessor, head_dtype)
        (num_classes,) = check_positive(num_classes=num_classes)
        check_number("dropout", dropout, low=0, high=1)
        if preprocessor is None:
            tokens = backbone.vocabulary_size is not None
            self.preprocessor = self.preprocessor_cls(tokens=tokens)
        policy = backbone.dtype_policy
        self.pooler = SequencePooling(pooling, dtype=policy, name="pooling")
        self.head_dropout = keras.layers.Dropout(dropout, dtype=policy, name="head_dropout")
        self.head = Dense(num_classes, dtype=self.head_policy, name="logits")
        self.num_classes = num_classes
        self.pooling = pooling
        self.dropout = dropout

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "auto",
        loss="auto",
        *,
        metrics="auto",
        **kwargs,
    ) -> None:
        """Configures training; see `keras.Model.compile`.

        Args:
            optimizer: `"auto"`, name or optimizer. Defaults to `ssm_optimizer()`.
            loss: `"auto"`, name or loss. Defaults to sparse cross-entropy on logits. Names mean
                their form for logits, which the model returns.
            metrics: `"auto"` or metrics. Defaults to accuracy. Names as for the loss.
            **kwargs: Further arguments of `keras.Model.compile`.

        Raises:
            ValueError: for a loss or metric that reads probabilities.
        """
        if isinstance(metrics, str) and metrics == "auto":
            metrics = ["accuracy"]
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "pooling": self.pooling,
            "dropout": self.dropout,
        }
