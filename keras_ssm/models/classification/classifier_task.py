from collections.abc import Callable, Sequence

import keras

from keras_ssm.checks import check_positive
from keras_ssm.models.classification.class_names import ClassNames
from keras_ssm.models.logits_task import LogitsTask
from keras_ssm.models.pooled_head import PooledHead
from keras_ssm.models.ssm_backbone import SSMBackbone
from keras_ssm.models.trainer.logits import sparse_loss


class ClassifierTask(ClassNames, PooledHead, LogitsTask):
    """Base class of the classifiers: a pooled head of logits, and how they are trained.

    Args:
        inputs, outputs: symbolic tensors of the functional model.
        **kwargs: `compile`, `name`, `trainable`.
    """

    head_size = "num_classes"
    of_head = ("class_names",)

    def make_classifier(
        self,
        backbone: SSMBackbone,
        num_classes: int,
        preprocessor: Callable | None,
        pooling: str | None,
        dropout: float,
        head_dtype: str | keras.dtype_policies.DTypePolicy | None,
        class_names: Sequence[str] | None,
    ) -> None:
        """Checks the arguments and makes the layers of the head."""
        (num_classes,) = check_positive(num_classes=num_classes)
        self.make_head(
            backbone, num_classes, preprocessor, pooling, dropout, head_dtype, name="logits"
        )
        self.num_classes = num_classes
        self.set_class_names(class_names)

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "auto",
        loss="auto",
        *,
        metrics="auto",
        ignore_class: int | None = None,
        **kwargs,
    ) -> None:
        """Configures training; see `keras.Model.compile`.

        Args:
            optimizer: `"auto"`, name or optimizer. Defaults to `ssm_optimizer()`.
            loss: `"auto"`, name or loss. Defaults to sparse cross-entropy on logits. Names mean
                their form for logits, which the model returns.
            metrics: `"auto"` or metrics. Defaults to accuracy. Names as for the loss.
            ignore_class: int or `None`. A label, such as -1, of outputs that count in no loss and
                no metric. Goes with sparse cross-entropy. Defaults to `None`.
            **kwargs: Further arguments of `keras.Model.compile`.

        Raises:
            ValueError: for a loss or metric that reads probabilities, or `ignore_class` with
                another loss.
        """
        if ignore_class is not None:
            loss = sparse_loss(loss, ignore_class, reduction=self.loss_reduction)
        if isinstance(metrics, str) and metrics == "auto":
            metrics = ["accuracy"]
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes}
