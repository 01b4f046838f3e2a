from collections.abc import Callable, Sequence

import keras

from keras_ssm.models.classification.classifier_task import ClassifierTask
from keras_ssm.models.image_preprocessor import ImagePreprocessor
from keras_ssm.models.ssm_backbone import SSMBackbone


@keras.saving.register_keras_serializable(package="keras_ssm")
class SSMImageClassifier(ClassifierTask):
    """Classifier of images or videos: a backbone of `S4ND`, pooling over the pixels, linear head.

    It returns logits. `compile()` without arguments uses `keras_ssm.optimizers.ssm_optimizer`,
    sparse cross-entropy and accuracy. Images of another resolution are read without another
    training: `model.step_scale = 0.5` for twice the pixels a side.

    Args:
        backbone: `keras_ssm.models.SSMBackbone` with a mixer of images, such as
            `S4ND(S4D(state_dim=32))`.
        num_classes: int. Number of classes.
        preprocessor: callable or `None`. Defaults to an `ImagePreprocessor` that fits the
            backbone.
        pooling: str. `"mean"`, `"max"` or `"attention"`; see `SequencePooling`. Defaults to
            `"mean"`.
        dropout: float. Rate before the head. Defaults to `0.0`.
        head_dtype: dtype policy of the head. Defaults to the backbone's.
        class_names: list of str or `None`. Names of the classes, which are saved with the model:
            labels may be names, and `predict_classes` answers in names. Defaults to `None`.
        compile: bool. Whether the model is compiled with its defaults. Defaults to `True`.
        name: str or `None`. Name of the model.
        trainable: bool. Whether the weights train. Defaults to `True`.

    Call arguments:
        inputs: float tensor `(batch, height, width, input_dim)`, with a further axis before the
            height for videos; or a dict of `inputs` and, optionally, `padding_mask` of its shape
            without features, True where valid.

    Returns:
        Logits `(batch, num_classes)`.

    Raises:
        ValueError: for a backbone of sequences, an unknown `pooling`, sizes below 1, or inputs of
            another kind or shape.

    Example:
        ```python
        backbone = keras_ssm.models.SSMBackbone(
            keras_ssm.layers.S4ND(state_dim=8), num_layers=1, hidden_dim=8
        )
        model = keras_ssm.models.SSMImageClassifier(backbone, num_classes=10)
        images = np.random.default_rng(0).integers(256, size=(4, 12, 12)).astype("uint8")
        model.fit(images, np.array([3, 1, 4, 1]), verbose=0)
        model.step_scale = 0.5
        model.predict(images.repeat(2, axis=1).repeat(2, axis=2), verbose=0)  # (4, 10)
        ```

    Reference:
        [S4ND](https://arxiv.org/abs/2210.06583), sections 4.1 and 4.3.
    """

    preprocessor_cls = ImagePreprocessor
    reads_images = True

    def __init__(
        self,
        backbone: SSMBackbone,
        num_classes: int,
        preprocessor: Callable | None = None,
        pooling: str = "mean",
        dropout: float = 0.0,
        head_dtype: str | keras.dtype_policies.DTypePolicy | None = None,
        class_names: Sequence[str] | None = None,
        compile: bool = True,
        name: str | None = None,
        trainable: bool = True,
    ):
        if pooling in ("last", None):
            raise ValueError(
                "`pooling` of images must be 'mean', 'max' or 'attention': their pixels have no "
                f"last one. Received: pooling={pooling!r}"
            )
        self.make_classifier(
            backbone, num_classes, preprocessor, pooling, dropout, head_dtype, class_names
        )
        inputs = backbone.input
        outputs = self.run(inputs)
        super().__init__(inputs=inputs, outputs=outputs, compile=compile, name=name)
        if not trainable:
            self.trainable = False  # the layers exist only now
        self.complete()

    @classmethod
    def default_preprocessor(cls, backbone: SSMBackbone) -> Callable:
        return cls.preprocessor_cls(axes=backbone.axes)

    def run(self, inputs, training=None, initial_state=None, return_state=False):
        """The graph."""
        context = {} if training is None else {"training": training}
        pooled = self.pooler(self.backbone(inputs, **context), mask=inputs["padding_mask"])
        return self.apply_head(pooled, **context)

    def stream(self, batch_size: int = 1) -> None:
        """Raises a `ValueError`: an image is pooled as a whole.

        Args:
            batch_size: int. Number of sequences of a stream.

        Raises:
            ValueError: always. A backbone with an axis that is read forwards, such as the time of
                a video, reads frame by frame: see `S4ND.step`.
        """
        raise ValueError(
            "An image is classified as a whole and not as it comes; the frames of a video go "
            "through `step` of a backbone whose first axis is read forwards. "
            f"Received: a stream of {batch_size} rows from a {type(self).__name__}"
        )
