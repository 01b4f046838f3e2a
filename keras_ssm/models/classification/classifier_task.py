from collections.abc import Callable

import keras
import numpy as np

from keras_ssm.checks import check_number, check_positive
from keras_ssm.layers.exact_layers import Dense
from keras_ssm.layers.sequence_pooling import SequencePooling
from keras_ssm.models.ssm_backbone import SSMBackbone
from keras_ssm.models.ssm_task import SSMTask
from keras_ssm.models.trainer import targets
from keras_ssm.models.trainer.logits import loss_on_logits, metric_on_logits
from keras_ssm.optimizers import ssm_optimizer


class ClassifierTask(SSMTask):
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
        if not isinstance(backbone, SSMBackbone):
            raise ValueError(f"`backbone` must be an `SSMBackbone`. Received: {backbone!r}")
        check_positive(num_classes=num_classes)
        check_number("dropout", dropout, low=0, high=1)
        if preprocessor is None:
            preprocessor = self.preprocessor_cls(tokens=backbone.vocabulary_size is not None)
        policy = backbone.dtype_policy
        self.head_policy = policy if head_dtype is None else keras.dtype_policies.get(head_dtype)
        self.backbone = backbone
        self.preprocessor = preprocessor
        self.pooler = SequencePooling(pooling, dtype=policy, name="pooling")
        self.head_dropout = keras.layers.Dropout(dropout, dtype=policy, name="head_dropout")
        self.head = Dense(num_classes, dtype=self.head_policy, name="logits")
        self.num_classes = num_classes
        self.pooling = pooling
        self.dropout = dropout
        self.head_dtype = None if head_dtype is None else self.head_policy

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
        if isinstance(optimizer, str) and optimizer == "auto":
            optimizer = ssm_optimizer()
        if isinstance(loss, str) and loss == "auto":
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        if isinstance(metrics, str) and metrics == "auto":
            metrics = ["accuracy"]
        loss = loss_on_logits(loss)
        metrics = metric_on_logits(metrics, self.num_classes)
        if kwargs.get("weighted_metrics") is not None:
            kwargs["weighted_metrics"] = metric_on_logits(
                kwargs["weighted_metrics"], self.num_classes
            )
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)

    def check_targets(self, y):
        loss = self.loss
        while isinstance(loss, (list, tuple, dict)) and len(loss) == 1:
            (loss,) = loss.values() if isinstance(loss, dict) else loss
        if not isinstance(loss, keras.losses.SparseCategoricalCrossentropy):
            targets.check_like_outputs(self, y, loss)
            return
        steps = 1 if self.pooling is None else 0
        if y.ndim not in (1 + steps, 2 + steps) or (y.ndim == 2 + steps and y.shape[-1] != 1):
            expected = "(batch, length)" if steps else "(batch,)"
            raise ValueError(
                f"`y` must hold one label for each output, of shape {expected}. "
                f"Received: y.shape={y.shape}"
            )
        ignored = getattr(loss, "ignore_class", None)
        labels = y if ignored is None else y[y != ignored]
        if labels.dtype.kind == "f" and (labels != np.round(labels)).any():
            raise ValueError(
                "`y` must hold whole numbers, the labels of classes; for real numbers compile the "
                "model with a loss such as 'mse'. "
                f"Received: {labels[labels != np.round(labels)][0]} among them"
            )
        if labels.size and not (labels.min() >= 0 and labels.max() < self.num_classes):
            raise ValueError(
                f"`y` must hold labels from 0 to {self.num_classes - 1}. "
                f"Received: labels from {labels.min()} to {labels.max()}"
            )

    def get_config(self):
        head_dtype = self.head_dtype
        if self.head.quantization_mode is not None:
            head_dtype = self.head.dtype_policy
            if isinstance(head_dtype, keras.dtype_policies.DTypePolicyMap):
                head_dtype = head_dtype[self.head.path]
        if head_dtype is not None:
            head_dtype = keras.dtype_policies.serialize(head_dtype)
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "pooling": self.pooling,
            "dropout": self.dropout,
            "head_dtype": head_dtype,
        }
