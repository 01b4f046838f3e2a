import functools
from collections.abc import Callable, Collection

import keras
import keras_hub
from keras_hub.models import CausalLM

from keras_ssm.checks import check_flags
from keras_ssm.layers.discrete_system import DiscreteSystem
from keras_ssm.layers.exact_layers import Dense, Embedding
from keras_ssm.models.language.generation import Generation
from keras_ssm.models.language.next_tokens import (
    is_text,
    next_tokens,
    padder,
    texts_of,
    without_boundaries,
)
from keras_ssm.models.language.scores import Scores
from keras_ssm.models.language.ssm_causal_lm_preprocessor import SSMCausalLMPreprocessor
from keras_ssm.models.logits_task import LogitsTask
from keras_ssm.models.ssm_backbone import SSMBackbone
from keras_ssm.models.trainer.targets import as_arrays
from keras_ssm.ops import backend
from keras_ssm.optimizers import ssm_optimizer
from keras_ssm.types import State, Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class SSMCausalLM(Generation, Scores, LogitsTask, CausalLM):
    """Language model: a backbone on token ids and, at every step, logits of the next token.

    Any mixer that is causal makes one: `Mamba` and `Mamba2` as published, and `S4D`, `S5` and the
    others.

    Args:
        backbone: `keras_ssm.models.SSMBackbone` with a `vocabulary_size`.
        preprocessor: callable or `None`. Turns texts into token ids and targets, such as an
            `SSMCausalLMPreprocessor` or one of keras_hub. Token ids pass it by. Defaults to
            `None`: token ids alone.
        tie_embeddings: bool. Whether the logits are products with the embeddings of the tokens,
            rather than those of a layer of its own, `head`. Defaults to `True`.
        head_dtype: dtype policy of the head. Defaults to the backbone's.
        compile: bool. Whether the model is compiled with its defaults. Defaults to `True`.
        name: str or `None`. Name of the model.
        trainable: bool. Whether the weights train. Defaults to `True`.

    Call arguments:
        inputs: integers `(batch, length)`, or a dict of `token_ids` and, optionally,
            `padding_mask` `(batch, length)`, True where valid.
        initial_state: list of the states of the layers, as `get_initial_state`, `step` or an
            earlier call returned it, for a text that comes in pieces.
        return_state: bool. Whether the states after each row's last valid token are returned.

    Returns:
        Logits `(batch, length, vocabulary_size)`, float32 or float64 under every policy. With
        `return_state` a tuple of them and the states.

    Raises:
        ValueError: for a backbone without a vocabulary, one that reads padding or later tokens,
            or inputs of another kind or shape.

    Example:
        ```python
        backbone = keras_ssm.models.SSMBackbone(
            keras_ssm.layers.Mamba(state_dim=4),
            num_layers=1,
            hidden_dim=8,
            vocabulary_size=256,
            activation=None,
            gate=None,
            norm="rms",
            prenorm=True,
            final_norm="rms",
        )
        model = keras_ssm.models.SSMCausalLM(backbone)
        logits = model(np.array([[104, 101, 108, 108, 111]]))  # (1, 5, 256)
        ```

    Reference:
        [Mamba](https://arxiv.org/abs/2312.00752), section 4.2.
    """

    preprocessor_cls = SSMCausalLMPreprocessor
    settable = ("preprocessor", "sampler", "generate_function")
    makes_targets = True
    loss_reduction = "mean_with_sample_weight"  # the mean over the tokens that count

    def __init__(
        self,
        backbone: SSMBackbone,
        preprocessor: Callable | None = None,
        tie_embeddings: bool = True,
        head_dtype: str | keras.dtype_policies.DTypePolicy | None = None,
        compile: bool = True,
        name: str | None = None,
        trainable: bool = True,
    ):
        self.set_parts(backbone, preprocessor, head_dtype)
        check_backbone(backbone, tie_embeddings, head_dtype)
        check_flags(trainable=trainable)
        self.tie_embeddings = tie_embeddings
        self.head = None
        if not tie_embeddings:
            self.head = Dense(
                backbone.vocabulary_size, use_bias=False, dtype=self.head_policy, name="head"
            )
        # Half of the bits do not tell the probabilities of rare tokens apart.
        self.widen = None
        if self.head_policy.compute_dtype not in ("float32", "float64"):
            self.widen = keras.layers.Activation("linear", dtype="float32", name="float32_logits")
        inputs = backbone.input
        outputs = self.run(inputs)
        super().__init__(inputs=inputs, outputs=outputs, compile=compile, name=name)
        if not trainable:
            self.trainable = False  # reaches the layers only now
        self.complete()

    def run(self, inputs, training=None, initial_state=None, return_state=False):
        """The graph, and beside it what a graph does not know: states and `timesteps`."""
        given = {"training": training, "initial_state": initial_state}
        given = {name: value for name, value in given.items() if value is not None}
        if not return_state:
            return self.logits(self.backbone(inputs, **given))
        hidden, states = self.backbone(inputs, return_state=True, **given)
        return self.logits(hidden), states

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns the logits of hidden features, of sequences or of single steps.

        Args:
            hidden: float tensor `(..., hidden_dim)`, as the backbone returns it.

        Returns:
            Tensor `(..., vocabulary_size)`, float32 or float64.
        """
        if self.head is None:
            y = self.backbone.token_embedding(hidden, reverse=True)
        else:
            y = self.head(hidden)
        return y if self.widen is None else self.widen(y)

    def check_state(self, initial_state, return_state):
        """Raises a `ValueError` for states that do not exist, or are of another number."""
        self.backbone.check_state(initial_state, return_state)

    def state_spec(self, batch):
        """The states of `batch` rows as symbolic tensors."""
        return self.backbone.state_spec(batch)

    def step(
        self, token_ids: Tensor, states: list[State], systems: list | None = None, **arguments
    ) -> tuple[Tensor, list[State]]:
        """Reads one more token and returns the logits of the next, at inference, without gradients.

        Args:
            token_ids: integers `(batch,)`.
            states: what `get_initial_state`, the last step or a call with `return_state` gave.
            systems: what `discretize` returned, or `None` to compute it here.
            **arguments: whatever else the mixer's `step` takes of its `call_arguments`.

        Returns:
            Tuple `(logits, states)`: `(batch, vocabulary_size)` and the next states.

        Raises:
            ValueError: for inputs or states of another shape.

        Example:
            ```python
            logits, states = model(np.array([[3, 1]]), return_state=True)
            logits, states = model.step(np.array([4]), states)
            ```
        """
        with backend.without_gradients():  # which an endless text would pile up
            hidden, states = self.backbone.step(token_ids, states, systems, **arguments)
            return self.logits(hidden), states

    def discretize(self) -> list[DiscreteSystem | None]:
        """Returns the discrete system of every layer, for a loop of `step`."""
        return self.backbone.discretize()

    def get_initial_state(self, batch_size: int | Tensor) -> list[State]:
        """Returns the states before the first token, for `batch_size` rows."""
        return self.backbone.get_initial_state(batch_size)

    # Training

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "auto",
        loss="auto",
        *,
        weighted_metrics="auto",
        sampler: str | keras_hub.samplers.Sampler = "top_k",
        document_end_ids: int | Collection[int] | None = None,
        **kwargs,
    ) -> None:
        """Configures training and generation; see `keras_hub.models.CausalLM.compile`.

        Args:
            optimizer: `"auto"`, name or optimizer. Defaults to
                `ssm_optimizer(1e-3, 1e-3, weight_decay=0.1, global_clipnorm=1.0)`: AdamW that
                clips the gradients together. Matrices decay, the embeddings among them; A, D, dt,
                biases and norms do not.
            loss: `"auto"`, name or loss. Defaults to sparse cross-entropy on logits. By name it
                is the mean over the tokens that count: padding does not.
            weighted_metrics: `"auto"` or metrics. Defaults to the accuracy. Metrics that leave
                out padding, as `metrics` would not.
            sampler: str or `keras_hub.samplers.Sampler`. How `generate` picks a token. Defaults
                to `"top_k"`, as in keras-hub.
            document_end_ids: int, collection of int, or `None`. Tokens that end a document in
                rows that hold several. The token after one, the first of another document, is
                then no target where `fit` and `evaluate` find the targets themselves. Defaults
                to `None`.
            **kwargs: Further arguments of `keras.Model.compile`.

        Raises:
            ValueError: for a loss or metric that reads probabilities, or ids that the model
                does not have.
        """
        if isinstance(optimizer, str) and optimizer == "auto":
            optimizer = ssm_optimizer(1e-3, 1e-3, weight_decay=0.1, global_clipnorm=1.0)
        if isinstance(weighted_metrics, str) and weighted_metrics == "auto":
            weighted_metrics = [keras.metrics.SparseCategoricalAccuracy()]
        ends = self._checked_ends(document_end_ids)
        super().compile(
            optimizer, loss, weighted_metrics=weighted_metrics, sampler=sampler, **kwargs
        )
        self._document_ends = ends
        self._compile_alike = functools.partial(self._compile_alike, document_end_ids=ends)

    @property
    def document_end_ids(self) -> tuple[int, ...]:
        """The tokens that end a document, as compiled."""
        return getattr(self, "_document_ends", ())

    def _checked_ends(self, ids):
        ends = (ids,) if isinstance(ids, int) else tuple(ids or ())
        if not all(isinstance(i, int) and 0 <= i < self.num_logits for i in ends):
            raise ValueError(
                f"`document_end_ids` must be ids from 0 to {self.num_logits - 1}. "
                f"Received: document_end_ids={ids}"
            )
        return ends

    def preprocess_samples(self, x, y=None, sample_weight=None):
        """Texts through the preprocessor, which makes the targets; token ids padded."""
        if is_text(x):
            if self.preprocessor is None:
                raise ValueError(
                    "Texts need a `preprocessor`, which turns them into token ids. "
                    "Received: texts, with preprocessor=None"
                )
            weighs = isinstance(self.preprocessor, SSMCausalLMPreprocessor)
            if y is not None or (sample_weight is not None and not weighs):
                raise ValueError(
                    "Texts bring their own targets, the next tokens: pass them alone, or token "
                    f"ids with targets. Received: y of type {type(y).__name__}, "
                    f"sample_weight of type {type(sample_weight).__name__}"
                )
            weights = {} if sample_weight is None else {"sample_weight": sample_weight}
            packed = keras.tree.map_structure(as_arrays, self.preprocessor(texts_of(x), **weights))
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(packed)
            if y is not None:
                ends = self.document_end_ids
                sample_weight = without_boundaries(x["token_ids"], sample_weight, ends)
        elif self.preprocessor is None or reads_texts(self.preprocessor):
            x = padder()(x)
        else:
            x = self.preprocessor(x)
        return x, y, sample_weight  # packed by Keras, weights without targets would be lost

    def make_targets(self, x, sample_weight, lengths):
        return next_tokens(x, sample_weight, lengths, self.document_end_ids)

    def get_compile_config(self):
        config = super().get_compile_config()
        if not self.compiled or not config:
            return config
        sampler = keras_hub.samplers.serialize(self.sampler)
        return {**config, "sampler": sampler, "document_end_ids": list(self.document_end_ids)}

    def get_config(self):
        return {**super().get_config(), "tie_embeddings": self.tie_embeddings}


def reads_texts(preprocessor):
    """Whether a preprocessor reads texts alone, so that token ids pass it by."""
    return isinstance(preprocessor, keras_hub.models.CausalLMPreprocessor)


def check_backbone(backbone, tie_embeddings, head_dtype):
    """Raises a `ValueError` for a backbone of which no language model can be made."""
    if backbone.vocabulary_size is None:
        raise ValueError(
            "`backbone` of a language model must read token ids: make it with a "
            f"`vocabulary_size`. Received: backbone {backbone.name} with vocabulary_size=None"
        )
    mixer = backbone.blocks[0].mixer
    if not mixer.causal:
        raise ValueError(
            "The mixer of a language model must be causal, or a token would be predicted from "
            f"itself. Received: a mixer {type(mixer).__name__} that reads later steps"
        )
    if not backbone.mask_inputs:
        raise ValueError(
            "`backbone` of a language model must leave out padding, or its states after a short "
            "row are wrong. Received: a backbone with mask_inputs=False"
        )
    check_flags(tie_embeddings=tie_embeddings)
    if tie_embeddings and not isinstance(backbone.token_embedding, Embedding):
        raise ValueError(
            "`tie_embeddings` needs the encoder 'embedding'. "
            f"Received: tie_embeddings=True, encoder={backbone.encoder!r}"
        )
    if tie_embeddings and head_dtype is not None:
        raise ValueError(
            "`head_dtype` is that of a head of its own: pass `tie_embeddings=False`. "
            f"Received: head_dtype={head_dtype}"
        )
