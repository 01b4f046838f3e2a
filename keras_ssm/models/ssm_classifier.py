import keras
from keras import ops

from keras_ssm.models.classifier_task import ClassifierTask
from keras_ssm.models.ssm_classifier_preprocessor import SSMClassifierPreprocessor


@keras.saving.register_keras_serializable(package="keras_ssm")
class SSMClassifier(ClassifierTask):
    """Sequence classifier: backbone, pooling over the valid steps, linear head.

    It returns logits. `compile()` without arguments uses `keras_ssm.optimizers.ssm_optimizer`,
    sparse cross-entropy and accuracy.

    Args:
        backbone: `keras_ssm.models.SSMBackbone`.
        num_classes: int. Number of classes.
        preprocessor: callable or `None`. Defaults to an `SSMClassifierPreprocessor` that fits
            the backbone.
        pooling: str or `None`. `"mean"`, `"last"`, or `None` (logits at every step).
            Defaults to `"mean"`.
        dropout: float. Rate before the head. Defaults to `0.0`.
        head_dtype: dtype policy of the head. Defaults to the backbone's.
        compile: bool. Whether the model is compiled with its defaults. Defaults to `True`.
        name: str or `None`. Name of the model.
        trainable: bool. Whether the weights train. Defaults to `True`.

    Call arguments:
        inputs: as for the backbone.

    Returns:
        Logits `(batch, num_classes)`; `(batch, length, num_classes)` without pooling.

    Raises:
        ValueError: for an unknown `pooling`, sizes below 1, or inputs of another kind or shape.

    Example:
        ```python
        model = keras_ssm.models.SSMClassifier.from_preset("s4d_digits")
        digits = np.zeros((3, 64), "float32")  # pixels 0 to 16, row after row
        model.predict(digits).argmax(axis=-1)

        backbone = keras_ssm.models.SSMBackbone(
            keras_ssm.layers.S4D(state_dim=32), num_layers=2, hidden_dim=32, input_dim=2
        )
        model = keras_ssm.models.SSMClassifier(backbone, num_classes=3)
        series = [np.zeros((50, 2), "float32"), np.zeros((80, 2), "float32")]
        model.fit(series, np.array([0, 2]), verbose=0)
        ```

    Reference:
        [S4](https://arxiv.org/abs/2111.00396), section 4.
    """

    preprocessor_cls = SSMClassifierPreprocessor

    def __init__(
        self,
        backbone,
        num_classes,
        preprocessor=None,
        pooling="mean",
        dropout=0.0,
        head_dtype=None,
        compile=True,
        name=None,
        trainable=True,
    ):
        self.set_up(backbone, num_classes, preprocessor, pooling, dropout, head_dtype)
        inputs = backbone.input
        y = self.pooler(backbone(inputs), mask=inputs["padding_mask"])
        outputs = self.head(self.head_dropout(y))
        super().__init__(inputs=inputs, outputs=outputs, compile=compile, name=name)
        if not trainable:
            self.trainable = False  # reaches the layers only now
        self.complete()

    def step(self, x, state, systems=None):
        """Reads one more sample and returns the logits so far, at inference.

        Args:
            x: float tensor `(batch, input_dim)` as the preprocessor would scale it, or token
                ids `(batch,)`.
            state: what `get_initial_state` or the last step returned.
            systems: what `discretize` returned, or `None` to compute it here.

        Returns:
            Tuple `(logits, state)`: the logits of the sequence read so far,
            `(batch, num_classes)`, and the next state.

        Raises:
            ValueError: for inputs of another shape, or a bidirectional mixer.

        Example:
            ```python
            state, systems = model.get_initial_state(1), model.discretize()
            for pixel in np.zeros((64, 1, 1), "float32"):
                logits, state = model.step(pixel, state, systems)
            ```
        """
        y, layers = self.backbone.step(x, state["layers"], systems)
        count = state["count"] + 1
        total = state["total"] + ops.cast(y, state["total"].dtype)
        if self.pooling == "mean":
            y = ops.cast(total / ops.cast(count, total.dtype), self.pooler.compute_dtype)
        return self.head(y), {"layers": layers, "total": total, "count": count}

    def discretize(self):
        """Returns the discrete system of every layer, for a loop of `step`."""
        return self.backbone.discretize()

    def get_initial_state(self, batch_size):
        """Returns the state before the first sample, for `batch_size` rows."""
        dtype = "float64" if self.pooler.compute_dtype == "float64" else "float32"
        return {
            "layers": self.backbone.get_initial_state(batch_size),
            "total": ops.zeros((batch_size, self.backbone.hidden_dim), dtype=dtype),
            "count": ops.zeros((), dtype="int32"),
        }
