import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Self

import keras
import numpy as np
from keras_hub.models import CausalLMPreprocessor
from keras_hub.tokenizers import Tokenizer

from keras_ssm import presets
from keras_ssm.attributes import Attributes
from keras_ssm.checks import check_choice, check_flags, check_positive
from keras_ssm.keras_internals import brief_errors
from keras_ssm.models.language.documents import documents_of, is_graph
from keras_ssm.models.language.graph_calls import call_from_graph
from keras_ssm.models.language.next_tokens import is_text, next_tokens, padder
from keras_ssm.models.language.packing import PACKING, pack, pad_prompts, row_weights
from keras_ssm.models.saving.preset_loading import opened, tokenizer_of
from keras_ssm.models.ssm_backbone import SSMBackbone
from keras_ssm.models.trainer.targets import as_arrays, to_numpy
from keras_ssm.types import PathLike


@keras.saving.register_keras_serializable(package="keras_ssm")
class SSMCausalLMPreprocessor(Attributes, CausalLMPreprocessor):
    """Turns texts into the inputs and targets of a language model.

    Rows are padded on the right, and the target of each token is the next one. Targets and weights
    follow the lengths of the texts: an end token counts in the loss although its id may be that of
    padding, as in the published Mamba models.

    Args:
        tokenizer: `keras_hub.tokenizers.Tokenizer`, such as `keras_ssm.tokenizers.ByteTokenizer`,
            `keras_ssm.tokenizers.JSONTokenizer` or one of keras_hub, with the attributes
            `end_token_id`, `start_token_id` and `pad_token_id` as far as they are used.
        sequence_length: int. Steps of a row. Defaults to `1024`.
        add_start_token: bool. Whether a text begins with the tokenizer's start token, in training
            and in prompts. Defaults to `False`: the published Mamba models read none.
        add_end_token: bool. Whether a text ends with the tokenizer's end token, but not a prompt.
            Defaults to `True`.
        packing: str or `None`. What becomes of a text that is longer than a row. `None`: a text is
            a row, cut off before its end token, as keras_hub does. `"split"`: a text goes on in
            further rows. `"join"`: all texts stand one after the other, without padding but in
            the last row, and are split; the end token parts them, and the first token of a text
            is no target, so that no loss reaches from one text to the next. The states of the
            model do: it learns to forget at an end token. Each batch is packed by itself, so pack
            lists whole, or many texts at a time and batch the rows: `texts.batch(1000)
            .map(preprocessor).unbatch().batch(8)` in `tf.data`. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: a text, str or bytes, or a batch of them: a list, an array, a tensor of strings. Or
            token ids, which the start and end token are added to as to a text: an integer array
            `(length,)` or `(batch, length)`, a list of rows of different lengths, a ragged tensor.
            A dict of `token_ids` and, optionally, `padding_mask` gets nothing added or cut but
            the last step, which is a target alone: as models read token ids that pass by a
            preprocessor.
        y: `None`; or targets of one's own for each step of token ids `x`, which are then taken as
            they are, padded alone.
        sample_weight: array `(batch,)` with a weight for each text, or `None`.
        sequence_length: int or `None`. In place of the layer's.

    Returns:
        Tuple `(x, y, sample_weight)`: a dict of `token_ids` and `padding_mask`, the next tokens,
        and where these count, all of shape `(batch, sequence_length)`; with `packing` the number
        of rows is another. One text without `packing` gives arrays `(sequence_length,)`. With `y`
        only what was given.

    Raises:
        ValueError: for something else than texts or token ids, `y` beside texts, a tokenizer
            without the tokens that are to be added, or `packing="join"` without a token between
            texts.

    Example:
        ```python
        preprocessor = keras_ssm.models.SSMCausalLMPreprocessor(
            keras_ssm.tokenizers.ByteTokenizer(), sequence_length=6
        )
        x, y, sample_weight = preprocessor(["state", "spaces"])
        # x["token_ids"][0]: 115 116 97 116 101 258, y[0]: 116 97 116 101 258 256
        prompts = preprocessor.generate_preprocess(["sta"])
        texts = preprocessor.generate_postprocess(prompts)  # ["sta"]
        ```
    """

    backbone_cls = SSMBackbone
    settable = ("tokenizer", "sequence_length", "add_start_token", "add_end_token", "packing")

    def __init__(
        self,
        tokenizer: Callable,
        sequence_length: int = 1024,
        add_start_token: bool = False,
        add_end_token: bool = True,
        packing: str | None = None,
        **kwargs,
    ):
        if not callable(tokenizer) or not hasattr(tokenizer, "detokenize"):
            raise ValueError(
                "`tokenizer` must be a `keras_hub.tokenizers.Tokenizer`. "
                f"Received: tokenizer={tokenizer!r}"
            )
        super().__init__(tokenizer, sequence_length, add_start_token, add_end_token, **kwargs)
        self.packing = packing
        self.build(None)

    # Read anew for each batch: what is set here acts from the next one on.

    @property
    def sequence_length(self) -> int:
        """Steps of a row."""
        return self._sequence_length

    @sequence_length.setter
    def sequence_length(self, value):
        check_positive(sequence_length=value)
        self._sequence_length = value

    @property
    def add_start_token(self) -> bool:
        """Whether a text begins with the start token."""
        return self._add_start_token

    @add_start_token.setter
    def add_start_token(self, value):
        check_flags(add_start_token=value)
        self._add_start_token = value

    @property
    def add_end_token(self) -> bool:
        """Whether a text ends with the end token."""
        return self._add_end_token

    @add_end_token.setter
    def add_end_token(self, value):
        check_flags(add_end_token=value)
        self._add_end_token = value

    @property
    def packing(self) -> str | None:
        """What becomes of a text that is longer than a row."""
        return self._packing

    @packing.setter
    def packing(self, value):
        check_choice("packing", value, PACKING)
        self._packing = value

    def build(self, input_shape):
        self.built = True

    def call(
        self,
        x: object,
        y: object = None,
        sample_weight: object = None,
        sequence_length: int | None = None,
    ) -> tuple:
        with brief_errors():
            if y is not None:
                return self._with_targets(x, y, sample_weight)
            if isinstance(x, dict):
                return next_tokens(padder()(x), sample_weight, None, ())
            length = self._length(sequence_length)

            def run(x, weights):
                documents, batched = documents_of(x, self.tokenizer)
                if weights is not None:
                    weights = row_weights(weights if batched else [weights], len(documents))
                packed = pack(documents, length, self.packing, *self._tokens(), weights=weights)
                alone = not batched and not self.packing
                return tuple(part[0] if alone else part for part in packed)

            if is_graph(x):
                dtypes = ("int32", "bool", "int32", "bool" if sample_weight is None else "float32")
                parts = call_from_graph(run, x, sample_weight, dtypes, length, self.packing)
            else:
                parts = run(x, sample_weight)
            token_ids, valid, y, sample_weight = parts
            return {"token_ids": token_ids, "padding_mask": valid}, y, sample_weight

    def generate_preprocess(self, x: object, sequence_length: int | None = None) -> dict:
        """Turns prompts into token ids, without an end token.

        Args:
            x: texts or token ids, as for a call.
            sequence_length: int or `None`. In place of the layer's. What does not fit is cut off,
                with a warning.

        Returns:
            Dict of `token_ids` and `padding_mask`, `(batch, sequence_length)`.

        Raises:
            ValueError: for something else than texts or token ids, or a tokenizer without the
                token that is to be added.
        """
        length = self._length(sequence_length)

        def run(x, weights=None):
            documents, batched = documents_of(x, self.tokenizer)
            start, _, pad = self._tokens(end=False)
            longest = len(start) + max(len(row) for row in documents)
            if longest > length:
                warnings.warn(
                    f"A prompt of {longest} tokens was cut to the {length} of `sequence_length`.",
                    stacklevel=3,
                )
            parts = pad_prompts(documents, length, start, pad)
            return parts if batched else tuple(part[0] for part in parts)

        if is_graph(x):
            token_ids, valid = call_from_graph(run, x, None, ("int32", "bool"), length)
        else:
            token_ids, valid = run(x)
        return {"token_ids": token_ids, "padding_mask": valid}

    def generate_postprocess(self, x: dict) -> str | list[str]:
        """Turns token ids into texts, without padding, special tokens, and ids that have no token.

        Args:
            x: dict of `token_ids` and `padding_mask`, `(batch, length)` or `(length,)`.

        Returns:
            List of str, or str.
        """
        token_ids, valid = (
            np.asarray(to_numpy(as_arrays(x[key]))) for key in ("token_ids", "padding_mask")
        )
        # A table of embeddings may have more rows than there are tokens.
        size = self.tokenizer.vocabulary_size()
        known = (token_ids >= 0) & (token_ids < (2**31 if size is None else size))
        special = getattr(self.tokenizer, "special_token_ids", [])
        kept = valid.astype(bool) & known & ~np.isin(token_ids, special)
        rows = [row[keep].tolist() for row, keep in zip(*_rows(token_ids, kept), strict=True)]
        texts = list(self.tokenizer.detokenize(rows))
        return texts if token_ids.ndim > 1 else texts[0]

    @classmethod
    def from_preset(cls, preset: PathLike, revision: str | None = None, **kwargs) -> Self:
        """Loads the preprocessor of a preset; see `SSMClassifier.from_preset`."""
        with opened(preset, revision) as files:
            return super().from_preset(str(files.directory), **kwargs)

    @classmethod
    def _add_missing_kwargs(cls, loader, kwargs):
        """Takes the tokenizer of a preset whose task has another preprocessor."""
        if "tokenizer" not in kwargs:
            if loader.config.get("config", {}).get("vocabulary_size") is None:
                saved = presets.Documents(Path(loader.preset)).get("task.json", {})
                saved = saved.get("class_name", "SSMBackbone")
                raise ValueError(
                    f"Preset '{loader.preset}' must read token ids to be a language model: load "
                    f"it by `{saved}.from_preset`. Received: {saved}, a model of floats"
                )
            if tokenizer_of(loader.preset) is None:
                raise ValueError(
                    f"Preset '{loader.preset}' holds no tokenizer: pass `tokenizer`, or to a model "
                    "`preprocessor=None`. Received: no tokenizer.json"
                )
            kwargs = {**kwargs, "tokenizer": loader.load_tokenizer(Tokenizer)}
        return kwargs

    def get_config(self):
        return {**super().get_config(), "packing": self.packing}

    def _length(self, sequence_length):
        if sequence_length is None:
            return self.sequence_length
        check_positive(sequence_length=sequence_length)
        return sequence_length

    def _tokens(self, end=True):
        """The ids before and after a text, and that of padding."""
        add_end = end and self.add_end_token
        if self.packing == "join" and end and not (self.add_start_token or add_end):
            raise ValueError(
                "`packing='join'` needs a token between texts. "
                "Received: add_start_token=False, add_end_token=False"
            )
        start = self._token("start") if self.add_start_token else ()
        pad = getattr(self.tokenizer, "pad_token_id", None)
        return start, self._token("end") if add_end else (), 0 if pad is None else pad

    def _token(self, name):
        found = getattr(self.tokenizer, f"{name}_token_id", None)
        if found is None:
            raise ValueError(
                f"`add_{name}_token=True` needs a tokenizer with a `{name}_token_id`. Received: "
                f"{type(self.tokenizer).__name__} with {name}_token_id=None"
            )
        return tuple(found) if isinstance(found, (list, tuple)) else (found,)

    def _with_targets(self, x, y, sample_weight):
        if is_text(x):
            raise ValueError(
                "`y` must be None where `x` holds texts, whose next tokens are the targets. "
                f"Received: y of type {type(y).__name__}"
            )
        return padder()(x, y=y, sample_weight=sample_weight)


def _rows(*arrays):
    return [np.atleast_2d(array) for array in arrays]
