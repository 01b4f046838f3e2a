import functools
from collections.abc import Collection

import keras
import keras_hub
import numpy as np

from keras_ssm.models.language.next_tokens import (
    is_text,
    next_tokens,
    padder,
    texts_of,
    without_boundaries,
)
from keras_ssm.models.language.sampler_checks import sampler_of
from keras_ssm.models.language.ssm_causal_lm_preprocessor import SSMCausalLMPreprocessor
from keras_ssm.models.trainer.targets import as_arrays
from keras_ssm.optimizers import ssm_optimizer


class NextTokenTraining:
    """How a language model trains: on texts or token ids, of which each predicts the next."""

    makes_targets = True
    loss_reduction = "mean_with_sample_weight"  # the mean over the tokens that count

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
            ValueError: for a loss or metric that reads probabilities, ids that the model does not
                have, or a sampler of no known name.
        """
        if isinstance(optimizer, str) and optimizer == "auto":
            optimizer = ssm_optimizer(1e-3, 1e-3, weight_decay=0.1, global_clipnorm=1.0)
        if isinstance(weighted_metrics, str) and weighted_metrics == "auto":
            weighted_metrics = [keras.metrics.SparseCategoricalAccuracy()]
        ends, sampler = self._checked_ends(document_end_ids), sampler_of(sampler)
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

    def _prepare(self, x, y, sample_weight, converter):
        found = super()._prepare(x, y, sample_weight, converter)
        weights = found[2]  # none of a stream, of which one batch may have nothing to learn
        none_left = isinstance(weights, np.ndarray) and weights.size and not weights.any()
        if none_left and sample_weight is None and converter.purpose != "predict":
            raise ValueError(
                "`x` must hold a token that another one predicts: without a start and an end token "
                "a text of one token has none. "
                f"Received: {len(weights)} rows of which no token is left to learn from"
            )
        return found

    def make_targets(self, x, sample_weight, lengths):
        return next_tokens(x, sample_weight, lengths, self.document_end_ids)

    def get_compile_config(self):
        config = super().get_compile_config()
        if not self.compiled or not config:
            return config
        sampler = keras_hub.samplers.serialize(self.sampler)
        return {**config, "sampler": sampler, "document_end_ids": list(self.document_end_ids)}


def reads_texts(preprocessor):
    """Whether a preprocessor reads texts alone, so that token ids pass it by."""
    return isinstance(preprocessor, keras_hub.models.CausalLMPreprocessor)
