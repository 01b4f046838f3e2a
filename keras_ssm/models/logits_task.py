import keras
import numpy as np

from keras_ssm.models.headed_task import HeadedTask
from keras_ssm.models.trainer import targets
from keras_ssm.models.trainer.logits import loss_on_logits, metric_on_logits
from keras_ssm.optimizers import ssm_optimizer


class LogitsTask(HeadedTask):
    """Base class of the tasks that return logits: losses, metrics, checks of labels.

    Args:
        inputs, outputs: symbolic tensors of the functional model.
        **kwargs: `compile`, `name`, `trainable`.
    """

    loss_reduction = "sum_over_batch_size"  # of losses that are given by name

    @property
    def num_logits(self) -> int:
        """Number of logits of an output."""
        return self.outputs[0].shape[-1]

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "auto",
        loss="auto",
        *,
        metrics=None,
        weighted_metrics=None,
        **kwargs,
    ) -> None:
        """Configures training; see `keras.Model.compile`.

        Args:
            optimizer: `"auto"`, name or optimizer. Defaults to `ssm_optimizer()`.
            loss: `"auto"`, name or loss. Defaults to sparse cross-entropy on logits. Names mean
                their form for logits, which the model returns.
            metrics, weighted_metrics: metrics. Names as for the loss.
            **kwargs: Further arguments of `keras.Model.compile`.

        Raises:
            ValueError: for a loss or metric that reads probabilities.
        """
        if isinstance(optimizer, str) and optimizer == "auto":
            optimizer = ssm_optimizer()
        if isinstance(loss, str) and loss == "auto":
            loss = "sparse_categorical_crossentropy"
        for name, value in (("metrics", metrics), ("weighted_metrics", weighted_metrics)):
            if value is not None:
                kwargs[name] = metric_on_logits(value, self.num_logits)
        loss = loss_on_logits(loss, reduction=self.loss_reduction)
        super().compile(optimizer=optimizer, loss=loss, **kwargs)

    def check_targets(self, y):
        loss = self.loss
        while isinstance(loss, (list, tuple, dict)) and len(loss) == 1:
            (loss,) = loss.values() if isinstance(loss, dict) else loss
        if not isinstance(loss, keras.losses.SparseCategoricalCrossentropy):
            targets.check_like_outputs(self, y, loss)
            return
        steps = int(self.has_step_outputs)
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
        if labels.size and not (labels.min() >= 0 and labels.max() < self.num_logits):
            raise ValueError(
                f"`y` must hold labels from 0 to {self.num_logits - 1}. "
                f"Received: labels from {labels.min()} to {labels.max()}"
            )
