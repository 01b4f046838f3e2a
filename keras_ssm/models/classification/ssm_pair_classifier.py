from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

from keras_ssm.layers.activations import get_activation
from keras_ssm.layers.exact_layers import Dense
from keras_ssm.models.backbone_inputs import full_mask
from keras_ssm.models.classification.classifier_task import ClassifierTask
from keras_ssm.models.classification.ssm_pair_classifier_preprocessor import (
    SSMPairClassifierPreprocessor,
)
from keras_ssm.models.model_timesteps import model_timesteps
from keras_ssm.models.ssm_backbone import SSMBackbone
from keras_ssm.types import Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class SSMPairClassifier(ClassifierTask):
    """Classifier of pairs of sequences: one backbone for both, a head on how they compare.

    Both sequences of a pair go through the same backbone and pooling. If these give a and b, the
    head reads [a, b, a - b, a b] through a hidden layer. It returns logits.

    Args:
        backbone: `keras_ssm.models.SSMBackbone`.
        num_classes: int. Number of classes.
        preprocessor: callable or `None`. Defaults to an `SSMPairClassifierPreprocessor` that
            fits the backbone.
        pooling: str. `"mean"`, `"last"`, `"max"` or `"attention"`; see `SequencePooling`. Defaults
            to `"mean"`.
        head_dim: int or `None`. Units of the hidden layer. Defaults to the backbone's
            `hidden_dim`.
        head_activation: str. Activation of the hidden layer, as in `SSMBlock`. Defaults to
            `"gelu"`; published S5 models have `"gelu_tanh"`.
        dropout: float. Rate before the last layer. Defaults to `0.0`.
        head_dtype: dtype policy of the head. Defaults to the backbone's.
        class_names: list of str or `None`. Names of the classes, which are saved with the model:
            labels may be names, and `predict_classes` answers in names. Defaults to `None`.
        compile: bool. Whether the model is compiled with its defaults. Defaults to `True`.
        name: str or `None`. Name of the model.
        trainable: bool. Whether the weights train. Defaults to `True`.

    Call arguments:
        inputs: float tensor `(batch, 2, length, input_dim)`, or integers `(batch, 2, length)`
            if the backbone has a vocabulary; or a dict of `inputs` or `token_ids` and,
            optionally, `padding_mask` `(batch, 2, length)`, True where valid, and `timesteps`
            of the same shape, as for the backbone.

    Returns:
        Logits `(batch, num_classes)`.

    Raises:
        ValueError: for an unknown `pooling` or `head_activation`, sizes below 1, or inputs of
            another kind or shape.

    Example:
        ```python
        backbone = keras_ssm.models.SSMBackbone(
            keras_ssm.layers.S4D(state_dim=8), num_layers=1, hidden_dim=8, vocabulary_size=256
        )
        model = keras_ssm.models.SSMPairClassifier(backbone, num_classes=2)
        pairs = [("state", "space"), ("one text", "and another")]
        model.fit(pairs, np.array([0, 1]), verbose=0)
        ```

    Reference:
        [Long Range Arena](https://arxiv.org/abs/2011.04006), section 2.2.3 (document retrieval).
    """

    preprocessor_cls = SSMPairClassifierPreprocessor

    def __init__(
        self,
        backbone: SSMBackbone,
        num_classes: int,
        preprocessor: Callable | None = None,
        pooling: str = "mean",
        head_dim: int | None = None,
        head_activation: str = "gelu",
        dropout: float = 0.0,
        head_dtype: str | keras.dtype_policies.DTypePolicy | None = None,
        class_names: Sequence[str] | None = None,
        compile: bool = True,
        name: str | None = None,
        trainable: bool = True,
    ):
        if pooling is None:
            raise ValueError(
                "`pooling` must be 'mean', 'last', 'max' or 'attention': a pair is compared as a "
                "whole. Received: pooling=None"
            )
        self.make_classifier(
            backbone, num_classes, preprocessor, pooling, dropout, head_dtype, class_names
        )
        self.head_dim = backbone.hidden_dim if head_dim is None else head_dim
        self.head_activation = head_activation
        self._activate = get_activation(head_activation)
        self.pair_dense = Dense(self.head_dim, dtype=self.head_policy, name="pair_dense")
        key, x = backbone.input_key, backbone.input[backbone.input_key]
        inputs = {
            key: keras.Input((2, *x.shape[1:]), dtype=x.dtype, name=key),
            "padding_mask": keras.Input((2, None), dtype="bool", name="padding_mask"),
        }
        outputs = self.run(inputs)
        super().__init__(inputs=inputs, outputs=outputs, compile=compile, name=name)
        if not trainable:
            self.trainable = False  # the layers exist only now
        self.complete()

    def run(self, inputs, training=None, initial_state=None, return_state=False):
        """Runs the graph, and hands on `timesteps`, which are no input of it."""
        context = {} if training is None else {"training": training}
        # First all the first sequences, then all the second ones.
        rows = {k: ops.concatenate([v[:, 0], v[:, 1]], axis=0) for k, v in inputs.items()}
        mask = self.backbone.output_mask(rows["padding_mask"])
        pooled = self.pooler(self.backbone(rows, **context), mask=mask)
        a, b = ops.split(pooled, 2, axis=0)
        y = self._activate(self.pair_dense(ops.concatenate([a, b, a - b, a * b], axis=-1)))
        return self.apply_head(y, **context)

    def standardize(self, inputs: Tensor | dict) -> dict[str, Tensor]:
        """Brings what a person passes into the dict that the graph takes; see the class."""
        key = self.input_key
        tensors = dict(inputs) if isinstance(inputs, dict) else {key: inputs}
        tensors = {k: v for k, v in tensors.items() if v is not None}
        tensors = {k: v if hasattr(v, "shape") else np.asarray(v) for k, v in tensors.items()}
        for name, value in tensors.items():
            if len(value.shape) < 3 or value.shape[1] != 2:
                features = ", features" if name == "inputs" else ""
                raise ValueError(
                    f"`{name}` of a pair classifier must have shape (batch, 2, length{features}). "
                    f"Received: {name}.shape={tuple(value.shape)}"
                )
        if key in tensors and "padding_mask" not in tensors:
            x = tensors[key]
            tensors["padding_mask"] = full_mask(x if key == "token_ids" else x[..., 0])
        for document in (0, 1):  # checks
            self.backbone.standardize({k: v[:, document] for k, v in tensors.items()})
        if "timesteps" in tensors:
            tensors["timesteps"] = model_timesteps(tensors["timesteps"], tensors["padding_mask"])
        return tensors

    def sample_inputs(self):
        """Returns a short, fixed input of one pair."""
        x = self.backbone.sample_inputs()
        return np.stack([x, x[:, ::-1]], axis=1)

    def get_config(self):
        return {
            **super().get_config(),
            "head_dim": self.head_dim,
            "head_activation": self.head_activation,
        }
