import warnings
from collections.abc import Callable

import keras
import numpy as np

from keras_ssm.checks import check_flags, check_positive
from keras_ssm.layers.inference import infer
from keras_ssm.models.headed_task import HeadedTask
from keras_ssm.models.pooled_stream import PooledStream
from keras_ssm.models.regression.target_scaling import TargetScaling
from keras_ssm.models.sequence_preprocessor import SequencePreprocessor
from keras_ssm.models.ssm_backbone import SSMBackbone
from keras_ssm.models.trainer import targets
from keras_ssm.models.trainer.logits import refuse_classes
from keras_ssm.optimizers import ssm_optimizer
from keras_ssm.types import Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class SSMRegressor(PooledStream, HeadedTask):
    """Numbers of a sequence, or of each of its steps: backbone, pooling, linear head.

    `compile()` without arguments uses `keras_ssm.optimizers.ssm_optimizer`, the mean squared error
    and, as a metric, the mean absolute error, both in the units of the targets.

    Targets of any size train as well as small ones: the first `fit` of arrays or lists takes their
    mean and deviation, and the head gives numbers of the size of one, which a last layer brings
    there. That layer is part of the model: outputs, streams and files are in the units of the
    targets. Later ones leave it as it is. A first `train_on_batch` takes those of its batch. Before
    data that comes as a stream, or a loop of your own, call `adapt_targets`.

    Args:
        backbone: `keras_ssm.models.SSMBackbone`.
        num_outputs: int. Numbers of an output. Defaults to `1`.
        preprocessor: callable or `None`. Defaults to a `SequencePreprocessor` that fits
            the backbone.
        pooling: str or `None`. `"mean"`, `"last"`, `"max"`, `"attention"` (see
            `SequencePooling`), or `None`: numbers at every step, trained on targets
            `(batch, length)` or `(batch, length, num_outputs)`; padded steps count in no loss and
            no metric (see `fit`). Defaults to `"mean"`.
        dropout: float. Rate before the head. Defaults to `0.0`.
        normalize_targets: bool. Whether the first `fit` takes mean and deviation of the targets
            of its training part. Defaults to `True`.
        head_dtype: dtype policy of the head. Defaults to the backbone's.
        compile: bool. Whether the model is compiled with its defaults. Defaults to `True`.
        name: str or `None`. Name of the model.
        trainable: bool. Whether the weights train. Defaults to `True`.

    Call arguments:
        inputs: as for the backbone.
        initial_state: what `get_initial_state`, `step` or an earlier call returned, for a
            sequence that comes in pieces.
        return_state: bool. Whether the state after this piece is returned.

    Returns:
        Tensor `(batch, num_outputs)`; `(batch, length, num_outputs)` without pooling; float32 or
        float64 under every policy. With `return_state` a tuple of it and the state.

    Raises:
        ValueError: for an unknown `pooling`, sizes below 1, or inputs of another kind or shape.

    Example:
        ```python
        backbone = keras_ssm.models.SSMBackbone(
            keras_ssm.layers.S4D(state_dim=32), num_layers=2, hidden_dim=32, input_dim=2
        )
        model = keras_ssm.models.SSMRegressor(backbone)
        series = [np.zeros((50, 2), "float32"), np.ones((80, 2), "float32")]
        model.fit(series, np.array([120.0, 310.0]), verbose=0)
        model.predict(series, verbose=0)  # (2, 1)
        ```

    Reference:
        [S4](https://arxiv.org/abs/2111.00396), section 4.
    """

    preprocessor_cls = SequencePreprocessor
    head_size = "num_outputs"

    def __init__(
        self,
        backbone: SSMBackbone,
        num_outputs: int = 1,
        preprocessor: Callable | None = None,
        pooling: str | None = "mean",
        dropout: float = 0.0,
        normalize_targets: bool = True,
        head_dtype: str | keras.dtype_policies.DTypePolicy | None = None,
        compile: bool = True,
        name: str | None = None,
        trainable: bool = True,
    ):
        (num_outputs,) = check_positive(num_outputs=num_outputs)
        check_flags(normalize_targets=normalize_targets)
        self.make_head(
            backbone, num_outputs, preprocessor, pooling, dropout, head_dtype, name="numbers"
        )
        self.scaling = TargetScaling(dtype=backbone.dtype_policy.variable_dtype, name="scaling")
        self.num_outputs = num_outputs
        self.normalize_targets = normalize_targets
        inputs = backbone.input
        outputs = self.run(inputs)
        super().__init__(inputs=inputs, outputs=outputs, compile=compile, name=name)
        if not trainable:
            self.trainable = False  # the layers exist only now
        self.complete()

    def apply_head(self, y: Tensor, training: bool | None = None) -> Tensor:
        """Returns the outputs for pooled features, `(batch, ..., features)`."""
        return self.scaling(super().apply_head(y, training))

    def infer_head(self, y: Tensor) -> Tensor:
        """`apply_head` at inference, past the detours of Keras where they change nothing."""
        return infer(self.scaling, super().infer_head(y))

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
            loss: `"auto"`, name or loss. Defaults to the mean squared error.
            metrics: `"auto"` or metrics. Defaults to the mean absolute error.
            **kwargs: Further arguments of `keras.Model.compile`.

        Raises:
            ValueError: for a loss or metric that reads classes.
        """
        if isinstance(optimizer, str) and optimizer == "auto":
            optimizer = ssm_optimizer()
        if isinstance(loss, str) and loss == "auto":
            loss = "mse"
        if isinstance(metrics, str) and metrics == "auto":
            metrics = ["mae"]
        refuse_classes("loss", loss)
        refuse_classes("metrics", metrics)
        refuse_classes("weighted_metrics", kwargs.get("weighted_metrics"))
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)

    def adapt_targets(self, y: object, sample_weight: object = None) -> None:
        """Takes mean and deviation of targets, with which the outputs then begin.

        The first `fit` of arrays or lists does so by itself. Called on a trained model it changes
        what the model answers.

        Args:
            y: array `(rows,)`, `(rows, num_outputs)`, or with an output at every step
                `(rows, length)`, `(rows, length, num_outputs)` or a list of arrays of different
                lengths. Targets of training.
            sample_weight: array of one weight a row (or step), or `None`. What weighs nothing is
                left out.

        Raises:
            ValueError: for targets that are not finite, of another shape, or none.

        Example:
            ```python
            backbone = keras_ssm.models.SSMBackbone(
                keras_ssm.layers.S4D(state_dim=4), num_layers=1, hidden_dim=4
            )
            model = keras_ssm.models.SSMRegressor(backbone)
            model.adapt_targets(np.array([120.0, 310.0, 95.0]))
            ```
        """
        if self.has_step_outputs and isinstance(y, (list, tuple)):
            rows = [self._in_rows(targets.to_numpy(row)[None]) for row in y]
            y = np.concatenate(rows) if rows else np.zeros((0, self.num_outputs))
        else:
            y = self._in_rows(targets.to_numpy(y))
        if sample_weight is not None:
            ragged = self.has_step_outputs and isinstance(sample_weight, (list, tuple))
            parts = sample_weight if ragged else [sample_weight]
            counts = np.concatenate([targets.to_numpy(part).reshape(-1) for part in parts]) > 0
            if len(counts) != len(y):
                raise ValueError(
                    f"`sample_weight` must have one entry for each of the {len(y)} targets. "
                    f"Received: {len(counts)} entries"
                )
            y = y[counts]
        if not len(y) or not np.isfinite(y).all():
            raise ValueError(
                "`y` must hold at least one target, and finite ones alone. "
                f"Received: {len(y)} targets, {(~np.isfinite(y)).sum()} of them not finite"
            )
        self.scaling.adapt(y)

    def before_fit(self, x, y, sample_weight, validation_split):
        """Takes mean and deviation of the targets that train, the first time."""
        if not self.normalize_targets or self._is_adapted():
            return
        if y is None:
            warnings.warn(
                "Targets that come in batches are not read in advance, so the outputs begin at the "
                "size of one: call `adapt_targets` with some of them, or pass "
                "`normalize_targets=False` if that is their size.",
                stacklevel=4,
            )
            return
        share = 1.0 - (validation_split or 0.0)
        rows = int(len(y) * share) if isinstance(y, np.ndarray) else 0
        values = self._counted(x, y, sample_weight, rows)
        if len(values):
            self.scaling.adapt(values)

    def before_batch(self, x, y, sample_weight):
        """Takes mean and deviation of the first batch, unless it has too few targets to tell."""
        if not self.normalize_targets or self._is_adapted():
            return
        values = self._counted(x, y, sample_weight)
        if len(values) > 1:
            self.scaling.adapt(values)
            return
        warnings.warn(
            "One batch of too few targets does not tell their size, so the outputs begin at the "
            "size of one: call `adapt_targets` with some of them, or pass "
            "`normalize_targets=False` if that is their size.",
            stacklevel=4,
        )

    def _is_adapted(self):
        return float(keras.ops.convert_to_numpy(self.scaling.count)) > 0

    def _counted(self, x, y, sample_weight, rows=None):
        """Those targets of the first rows that count, `(targets, num_outputs)`; none if unknown."""
        if not isinstance(y, np.ndarray) or not targets.is_like_outputs(self, y):
            return np.zeros((0, self.num_outputs))
        counts = np.ones(y.shape[:1], bool)
        if self.has_step_outputs:
            mask = self.backbone.output_mask(x["padding_mask"])
            counts = np.asarray(targets.to_numpy(mask), bool)
        if sample_weight is not None:
            counts = counts & (targets.to_numpy(sample_weight) > 0)
        values = self._in_rows(y[:rows])[counts[:rows].reshape(-1)]
        return values if np.isfinite(values).all() else values[:0]

    def check_targets(self, y):
        if targets.reads_every_target(self):  # a custom loss knows its targets
            self._in_rows(y)

    def _in_rows(self, y):
        """Targets as an array `(targets, num_outputs)`."""
        if not targets.is_like_outputs(self, y):
            steps = ", length" * self.has_step_outputs
            plain = f" or (batch{steps})" if self.num_outputs == 1 else ""
            raise ValueError(
                "`y` must hold one number for each output, of shape "
                f"(batch{steps}, {self.num_outputs}){plain}. Received: y.shape={y.shape}"
            )
        return y.reshape(-1, self.num_outputs)

    @property
    def head_statistics(self):
        """Weights of the head that are set rather than trained, and travel with it."""
        return self.scaling.weights

    def get_config(self):
        return {
            **super().get_config(),
            "num_outputs": self.num_outputs,
            "normalize_targets": self.normalize_targets,
        }
