import numpy as np
from keras import ops

from keras_ssm.checks import check_choice, check_flags, check_positive
from keras_ssm.models.backbone_layers import run_layers
from keras_ssm.models.language.next_tokens import is_text
from keras_ssm.models.language.token_costs import count_bytes, rows_of, segments_of, total_cost
from keras_ssm.ops import backend
from keras_ssm.types import Tensor


class Scores:
    """What a language model makes of texts: scores of tokens, perplexity, bits per byte."""

    def score(
        self,
        token_ids: Tensor | str | list[str],
        padding_mask: Tensor | None = None,
        scoring_mode: str = "logits",
        layer_intercept_fn=None,
        target_ids: Tensor | None = None,
    ) -> Tensor:
        """Scores token ids, as `keras_hub.models.GPT2CausalLM.score` does.

        Args:
            token_ids: integers `(batch, length)`; or, with a preprocessor, a text or a list of
                texts, which bring their own `target_ids`.
            padding_mask: bool `(batch, length)`, True where valid. Defaults to all.
            scoring_mode: str. `"logits"`, or `"loss"`: what each of the `target_ids` costs, in
                nats. Defaults to `"logits"`.
            layer_intercept_fn: callable or `None`. Called with the embeddings and -1, then with
                the output of each block and its number; what it returns goes on in their place.
            target_ids: integers `(batch, length)`, the tokens that come next.

        Returns:
            Float tensor `(batch, length, vocabulary_size)`, or with `"loss"` `(batch, length)`,
            0 where `padding_mask` is False.

        Raises:
            ValueError: for another mode, `"loss"` without targets, or texts without a
                preprocessor.

        Example:
            ```python
            ids = np.array([[3, 1, 4, 1]])
            losses = model.score(ids[:, :-1], scoring_mode="loss", target_ids=ids[:, 1:])
            ```
        """
        check_choice("scoring_mode", scoring_mode, ("logits", "loss"))
        if isinstance(token_ids, (str, bytes)):
            token_ids = [token_ids]
        inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
        if is_text(token_ids):
            inputs, next_ids, _ = self.preprocess_samples(token_ids)
            target_ids = next_ids if target_ids is None else target_ids
        if scoring_mode == "loss" and target_ids is None:
            raise ValueError(
                "scoring_mode='loss' compares with `target_ids`, the tokens that come next. "
                "Received: target_ids=None"
            )
        inputs = self.as_tensors(inputs)
        if backend.is_stateless():
            self.jax_state_sync()  # this may be a callback of a running `fit`
        body = self.backbone
        hidden = run_layers(
            inputs["token_ids"],
            inputs["padding_mask"],
            body.encoder_layer,
            body.blocks,
            body.last_norm,
            body.mask_inputs,
            intercept=layer_intercept_fn,
        )
        logits = self.logits(hidden)
        if scoring_mode == "logits":
            return logits
        target_ids = ops.convert_to_tensor(target_ids)
        losses = ops.sparse_categorical_crossentropy(target_ids, logits, from_logits=True)
        valid = ops.cast(inputs["padding_mask"], "bool")
        return ops.where(valid, losses, ops.zeros_like(losses))

    def perplexity(
        self,
        data: object,
        window: int | None = None,
        carry_state: bool = False,
        batch_size: int = 8,
    ) -> float:
        """Returns the perplexity of texts: e to the mean cost of a token, in nats.

        Every token counts once, but for the first of a row, which nothing predicts, and those
        behind `document_end_ids`. Rows are read in pieces with the state carried on, so memory
        does not grow with their length. The costs are summed in float64.

        Args:
            data: texts, if there is a preprocessor, or token ids: one row `(length,)`,
                `(batch, length)`, a list of rows of different lengths, or a dict of `token_ids`
                and `padding_mask`.
            window: int or `None`. Tokens that are read from a zero state: longer rows are cut into
                such windows, as models are evaluated that read no more at a time. Defaults to
                `None`: rows are read whole, from their first token.
            carry_state: bool. Whether a window goes on from the state of the one before it, which
                gives what whole rows give. Defaults to `False`.
            batch_size: int. Rows, or windows, that are read side by side. Defaults to `8`.

        Returns:
            Float.

        Raises:
            ValueError: for data that is neither, or without two tokens in a row.

        Example:
            ```python
            ids = np.random.default_rng(0).integers(256, size=5000)
            model.perplexity(ids), model.perplexity(ids, window=512)
            ```
        """
        rows, _ = rows_of(self, data)
        nats, count = self._cost(rows, window, carry_state, batch_size, self.document_end_ids)
        return float(np.exp(nats / count))

    def bits_per_byte(
        self,
        data: object,
        num_bytes: int | None = None,
        window: int | None = None,
        carry_state: bool = False,
        batch_size: int = 8,
    ) -> float:
        """Returns the bits that a byte of text costs: nats / ln 2 / bytes, for any tokenizer.

        Args:
            data: as for `perplexity`. Of texts the end token is left out, and the bytes of a
                first token that nothing predicts do not count.
            num_bytes: int or `None`. Bytes that the predicted tokens stand for, all but the first
                of each row. Needed for token ids; texts are counted in UTF-8.
            window, carry_state, batch_size: as for `perplexity`.

        Returns:
            Float.

        Raises:
            ValueError: as for `perplexity`, and for token ids without `num_bytes`.

        Example:
            ```python
            ids = np.frombuffer(b"a text as bytes", np.uint8)
            model.bits_per_byte(ids, num_bytes=len(ids) - 1)
            ```
        """
        rows, texts = rows_of(self, data, add_end=False)
        if num_bytes is None and texts is None:
            raise ValueError(
                "`num_bytes` must say how many bytes the predicted tokens stand for, where `data` "
                "is no text. Received: num_bytes=None"
            )
        if num_bytes is None:
            num_bytes = count_bytes(self, texts, rows)
        check_positive(num_bytes=num_bytes)
        nats, _ = self._cost(rows, window, carry_state, batch_size)
        return float(nats / np.log(2) / num_bytes)

    def _cost(self, rows, window, carry_state, batch_size, ends=()):
        """Nats and number of the tokens that count."""
        check_positive(batch_size=batch_size)
        check_flags(carry_state=carry_state)
        if window is not None:
            check_positive(window=window)
        segments = segments_of(rows, None if carry_state else window)
        nats, count = total_cost(self, segments, window if carry_state else None, batch_size, ends)
        if not count:
            raise ValueError(
                "`data` must have rows of at least two tokens, of which one predicts the other. "
                f"Received: {len(rows)} rows, no token to predict"
            )
        return nats, count
