from collections.abc import Callable

import keras
from keras import ops

from keras_ssm.layers.discrete_system import DiscreteSystem
from keras_ssm.layers.inference import infer
from keras_ssm.models.classification.classifier_task import ClassifierTask
from keras_ssm.models.sequence_preprocessor import SequencePreprocessor
from keras_ssm.models.ssm_backbone import SSMBackbone
from keras_ssm.ops import backend
from keras_ssm.types import Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class SSMClassifier(ClassifierTask):
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
        compile: bool = True,
        name: str | None = None,
        trainable: bool = True,
    ):
        self.make_head(backbone, num_classes, preprocessor, pooling, dropout, head_dtype)
        inputs = backbone.input
        outputs = self.run(inputs)
        super().__init__(inputs=inputs, outputs=outputs, compile=compile, name=name)
        if not trainable:
            self.trainable = False  # reaches the layers only now
        self.complete()

    def run(self, inputs, training=None, initial_state=None, return_state=False):
        """The graph, and beside it what a graph does not know: states and `timesteps`."""
        context = {} if training is None else {"training": training}
        mask = inputs["padding_mask"]
        if initial_state is None and not return_state:
            y = self.backbone(inputs, **context)
            y = self.pooler(y, mask=self.backbone.output_mask(mask))
            return self.head(self.head_dropout(y, **context))
        if initial_state is None:
            initial_state = self.get_initial_state(ops.shape(mask)[0])
        y, layers = self.backbone(
            inputs, initial_state=initial_state["layers"], return_state=True, **context
        )
        mask = self.backbone.output_mask(mask, initial_state["layers"])
        y, pooled = self.pooler.pool(y, mask, _pooled(initial_state))
        y = self.head(self.head_dropout(y, **context))
        return (y, {"layers": layers, **pooled}) if return_state else y

    def check_state(self, initial_state, return_state):
        """Raises a `ValueError` for states that do not exist, or of another structure."""
        layers = None
        if initial_state is not None:
            keys = {"layers", *self.pooler.state_keys}
            if not isinstance(initial_state, dict) or set(initial_state) != keys:
                given = isinstance(initial_state, dict)
                raise ValueError(
                    "`initial_state` must be what `get_initial_state`, `step` or a call with "
                    f"`return_state` gave, a dict of {sorted(keys)}. Received: "
                    f"{sorted(initial_state) if given else type(initial_state).__name__}"
                )
            layers = initial_state["layers"]
        self.backbone.check_state(layers, return_state)

    def state_spec(self, batch):
        """The state of `batch` rows as symbolic tensors."""
        pooled = self.pooler.state_spec(batch, self.backbone.hidden_dim)
        return {"layers": self.backbone.state_spec(batch), **pooled}

    def step(
        self,
        x: Tensor,
        state: dict,
        systems: list | None = None,
        timesteps: Tensor | None = None,
        **arguments,
    ) -> tuple[Tensor, dict]:
        """Reads one more sample and returns the logits so far, at inference, without gradients.

        Args:
            x: float tensor `(batch, input_dim)` as the preprocessor would scale it, or token
                ids `(batch,)`.
            state: what `get_initial_state` or the last step returned.
            systems: what `discretize` returned, or `None` to compute it here.
            timesteps: float tensor `(batch,)` or `None`; see `S5.step`.
            **arguments: whatever else the mixer's `step` takes of its `call_arguments`.

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
        with backend.without_gradients():  # which an endless stream would pile up
            y, layers = self.backbone.step(x, state["layers"], systems, timesteps, **arguments)
            y, pooled = self.pooler.pool(ops.expand_dims(y, 1), None, _pooled(state))
            y = y[:, 0] if self.pooling is None else y
            return infer(self.head, y), {"layers": layers, **pooled}

    def discretize(self) -> list[DiscreteSystem | None]:
        """Returns the discrete system of every layer, for a loop of `step`."""
        return self.backbone.discretize()

    def get_initial_state(self, batch_size: int | Tensor) -> dict:
        """Returns the state before the first sample, for `batch_size` rows."""
        pooled = self.pooler.get_initial_state(batch_size, self.backbone.hidden_dim)
        return {"layers": self.backbone.get_initial_state(batch_size), **pooled}


def _pooled(state):
    """The part of a state that is not of the layers."""
    return {key: part for key, part in state.items() if key != "layers"}
