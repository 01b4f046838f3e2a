from collections.abc import Callable, Sequence

import keras

from keras_ssm.models.classification.classifier_task import ClassifierTask
from keras_ssm.models.pooled_stream import PooledStream
from keras_ssm.models.sequence_preprocessor import SequencePreprocessor
from keras_ssm.models.ssm_backbone import SSMBackbone


@keras.saving.register_keras_serializable(package="keras_ssm")
class SSMClassifier(PooledStream, ClassifierTask):
    """Sequence classifier: backbone, pooling over the valid steps, linear head.

    It returns logits. `compile()` without arguments uses `keras_ssm.optimizers.ssm_optimizer`,
    sparse cross-entropy and accuracy.

    Args:
        backbone: `keras_ssm.models.SSMBackbone`.
        num_classes: int. Number of classes.
        preprocessor: callable or `None`. Defaults to a `SequencePreprocessor` that fits
            the backbone.
        pooling: str or `None`. `"mean"`, `"last"`, `"max"`, `"attention"` (see
            `SequencePooling`), or `None`: logits at every step, trained on labels
            `(batch, length)`; padded steps count in no loss and no metric (see `fit`).
            Defaults to `"mean"`.
        dropout: float. Rate before the head. Defaults to `0.0`.
        head_dtype: dtype policy of the head. Defaults to the backbone's.
        class_names: list of str or `None`. Names of the classes, which are saved with the model:
            labels may be names, and `predict_classes` answers in names. Defaults to `None`.
        compile: bool. Whether the model is compiled with its defaults. Defaults to `True`.
        name: str or `None`. Name of the model.
        trainable: bool. Whether the weights train. Defaults to `True`.

    Call arguments:
        inputs: as for the backbone.
        initial_state: what `get_initial_state`, `step` or an earlier call returned, for a
            sequence that comes in pieces.
        return_state: bool. Whether the state after this piece is returned.

    Returns:
        Logits `(batch, num_classes)`; `(batch, length, num_classes)` without pooling. With
        `return_state` a tuple of them and the state.

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

    preprocessor_cls = SequencePreprocessor

    def __init__(
        self,
        backbone: SSMBackbone,
        num_classes: int,
        preprocessor: Callable | None = None,
        pooling: str | None = "mean",
        dropout: float = 0.0,
        head_dtype: str | keras.dtype_policies.DTypePolicy | None = None,
        class_names: Sequence[str] | None = None,
        compile: bool = True,
        name: str | None = None,
        trainable: bool = True,
    ):
        self.make_classifier(
            backbone, num_classes, preprocessor, pooling, dropout, head_dtype, class_names
        )
        inputs = backbone.input
        outputs = self.run(inputs)
        super().__init__(inputs=inputs, outputs=outputs, compile=compile, name=name)
        if not trainable:
            self.trainable = False  # the layers exist only now
        self.complete()
