from collections.abc import Callable

import keras
from keras_hub.models import CausalLM

from keras_ssm.checks import check_flags
from keras_ssm.layers.discrete_system import DiscreteSystem
from keras_ssm.layers.exact_layers import Dense
from keras_ssm.models.language.generation import Generation
from keras_ssm.models.language.language_checks import (
    check_backbone,
    check_vocabulary,
    checked_special,
)
from keras_ssm.models.language.next_token_training import NextTokenTraining
from keras_ssm.models.language.scores import Scores
from keras_ssm.models.language.ssm_causal_lm_preprocessor import SSMCausalLMPreprocessor
from keras_ssm.models.logits_task import LogitsTask
from keras_ssm.models.ssm_backbone import SSMBackbone
from keras_ssm.ops import backend
from keras_ssm.types import State, Tensor


@keras.saving.register_keras_serializable(package="keras_ssm")
class SSMCausalLM(Generation, Scores, NextTokenTraining, LogitsTask, CausalLM):
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
        special_token_ids: dict or `None`. What `"bos_token_id"`, `"eos_token_id"` and
            `"pad_token_id"` are, as a published configuration says it, where no tokenizer does:
            an id or a list of ids. `generate` stops at the end tokens, and exports to transformers
            keep them. Defaults to `None`.
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
    pipeline_tag = "text-generation"

    def __init__(
        self,
        backbone: SSMBackbone,
        preprocessor: Callable | None = None,
        tie_embeddings: bool = True,
        head_dtype: str | keras.dtype_policies.DTypePolicy | None = None,
        special_token_ids: dict[str, int | list[int]] | None = None,
        compile: bool = True,
        name: str | None = None,
        trainable: bool = True,
    ):
        self.set_parts(backbone, preprocessor, head_dtype)
        check_backbone(backbone, tie_embeddings, head_dtype)
        check_flags(trainable=trainable)
        check_vocabulary(backbone, preprocessor)
        self.special_token_ids = checked_special(special_token_ids, backbone.vocabulary_size)
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

    def sample_outputs(self, inputs):
        """A few logits: all of a large vocabulary would fill megabytes of a `preset.json`."""
        return self(inputs)[:, -4:, :: -(-self.num_logits // 64)]

    def enable_lora(self, rank: int, target_layer_names: list[str] | None = None) -> None:
        """Adds low-rank updates to the backbone's projections; only these train, not the head.

        The model is compiled anew with the same settings, since other weights train.

        Args:
            rank: int. Rank of the updates.
            target_layer_names: list of str or `None`. Names of the layers to adapt. Defaults
                to those of the mixer, such as `in_proj`, `x_proj` and `out_proj` of `Mamba`, and
                those of the blocks, `output_dense`.

        A `.keras` file keeps the updates apart; presets and files of weights hold them merged.
        `save_lora_weights` saves them alone.

        Raises:
            ValueError: for a rank below 1, layers that are not there, or a second time.

        Reference:
            [LoRA](https://arxiv.org/abs/2106.09685), equation 3.
        """
        if self.head is None:
            super().enable_lora(rank, target_layer_names)
            return
        trains, self.head.trainable = self.head.trainable, False
        try:
            super().enable_lora(rank, target_layer_names)
        except ValueError:
            self.head.trainable = trains
            raise

    def get_config(self):
        special = self.special_token_ids
        own = {} if special is None else {"special_token_ids": dict(special)}
        return {**super().get_config(), "tie_embeddings": self.tie_embeddings, **own}
