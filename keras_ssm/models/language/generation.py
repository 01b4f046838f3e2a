from collections.abc import Iterable

import numpy as np

from keras_ssm.checks import check_flags, check_positive
from keras_ssm.models.language.decoding import Decoding, largest_chunk
from keras_ssm.models.language.generation_state import GenerationState
from keras_ssm.models.language.generation_stream import GenerationStream
from keras_ssm.models.language.programs import Programs
from keras_ssm.models.language.prompts import read_prompts
from keras_ssm.models.language.sampler_checks import check_sampler, sampler_of
from keras_ssm.models.language.text_stream import TextStream, decoder
from keras_ssm.ops import backend
from keras_ssm.types import Tensor

CHECKED_AT_ONCE = 32  # tokens between two looks for stop strings, at most


class Generation:
    """What a language model gains to generate: `generate`, its state and its stream.

    The model has `backbone`, `preprocessor`, `sampler`, `logits`, `discretize` and
    `get_initial_state`.
    """

    def generate(
        self,
        inputs: str | list | dict | Tensor | None,
        max_length: int | None = None,
        stop_token_ids: str | int | Iterable[int] | None = "auto",
        strip_prompt: bool = False,
        stream: bool = False,
        state: GenerationState | None = None,
        return_state: bool = False,
        stop_strings: str | Iterable[str] | None = None,
        max_new_tokens: int | None = None,
    ) -> object:
        """Goes on from prompts, token by token, with the sampler that `compile` was given.

        A prompt is read in one pass. Prompts of different lengths are padded on the right, and the
        state of each row is that after its own last token: a row becomes what it would alone. Every
        further token costs the same and takes no more memory, however long the text is. Another
        `max_length` compiles nothing anew. Ids that the tokenizer does not know, which pad the
        table of a published model, are never chosen.

        Args:
            inputs: str, or a list or array of them; token ids, as an array `(length,)` or
                `(batch, length)` or a list of ints or of rows of different lengths; a dict of
                `token_ids` and `padding_mask`, True where valid; a `tf.data.Dataset` of batches of
                any of these; or `None`, which goes on from a `state`.
            max_length: int or `None`. Tokens of the result, those of the prompt counted; after a
                `state`, those that were read before are not. Defaults to the `sequence_length` of
                the preprocessor, and to the length of `token_ids` that come with a `padding_mask`.
            stop_token_ids: int, iterable of int, `"auto"` or `None`. A row stops after the first
                of these. Defaults to `"auto"`: the tokens that end a text for the tokenizer, or
                without one by the `special_token_ids` of the model.
            strip_prompt: bool. Whether the result begins after the prompt. Defaults to `False`.
            stream: bool. Whether the result is an iterator over its pieces as they come: first the
                prompt, unless it is stripped, then text as soon as it is complete, down to the
                characters. For a batch a piece is a list with one for each row, `""` where there is
                nothing new. A sampler that decides at the end, such as beam search, gives all
                pieces then. Defaults to `False`.
            state: `GenerationState` or `None`. Goes on from there: `inputs` is what follows.
            return_state: bool. Whether a tuple of the result and the `GenerationState` after it is
                returned; a stream has it as its `state` after the last piece. Text then ends before
                a character whose bytes are not all there: it comes from the state.
            stop_strings: str, iterable of str or `None`. Text ends before the first of these that
                is generated, which may begin and end within tokens. The state, and token ids, go
                up to the token that completed it.
            max_new_tokens: int or `None`. Tokens for each row beside its prompt, in place of
                `max_length`.

        Returns:
            What came in: str, list of str, token ids (int32, padded behind the end of a row) or a
            dict of `token_ids` and `padding_mask`, with what was generated. With `return_state` a
            tuple of it and the state; with `stream` an iterator.

        Raises:
            ValueError: for an empty prompt, one that is longer than `max_length`, ids outside of
                the vocabulary, texts without a preprocessor, a state of another model or batch,
                a sampler that needs what there is not, or logits that are NaN; with beam and
                contrastive search only the first logits after the prompts are looked at.

        Example:
            ```python
            backbone = keras_ssm.models.SSMBackbone(
                keras_ssm.layers.Mamba(state_dim=4), num_layers=1, hidden_dim=8, vocabulary_size=32
            )
            model = keras_ssm.models.SSMCausalLM(backbone)
            model.compile(sampler="greedy")
            model.generate([[3, 1, 4], [1, 5]], max_length=8)  # two rows of 8 ids

            ids, state = model.generate([3, 1, 4], max_new_tokens=5, return_state=True)
            ids += model.generate(None, max_new_tokens=5, state=state)
            for piece in model.generate([3, 1, 4], max_new_tokens=5, stream=True):
                print(piece)
            ```
        """
        check_flags(strip_prompt=strip_prompt, stream=stream, return_state=return_state)
        if hasattr(inputs, "as_numpy_iterator"):
            if stream or return_state or state is not None:
                raise ValueError(
                    "`inputs` that are a `tf.data.Dataset` go without `stream`, `state` and "
                    f"`return_state`. Received: inputs={inputs}"
                )
            parts = [
                self.generate(
                    batch,
                    max_length,
                    stop_token_ids,
                    strip_prompt,
                    stop_strings=stop_strings,
                    max_new_tokens=max_new_tokens,
                )
                for batch in inputs.as_numpy_iterator()
            ]
            return _joined(parts, self._pad_id())
        if state is not None and not isinstance(state, GenerationState):
            raise ValueError(
                "`state` must be the `GenerationState` that `generate(..., return_state=True)` "
                f"returned. Received: {type(state).__name__}"
            )
        self.backbone.check_state(None, return_state=True)
        if backend.is_stateless():
            self.jax_state_sync()  # `fit` may be running, and this one of its callbacks
        size = self.backbone.vocabulary_size
        prompts = read_prompts(inputs, self.preprocessor, size, state)
        limits = self._limits(prompts, max_length, max_new_tokens, state)
        stops = self._stop_tokens(stop_token_ids)
        strings = self._stop_strings(stop_strings)
        decoding = Decoding(
            self.make_generate_function(), prompts.rows, limits, stops, state, return_state
        )
        texts = None
        if prompts.form == "text" or strings:
            decode = decoder(self.preprocessor)
            windows = [((), 0)] * len(limits) if state is None else state.windows
            texts = [TextStream(decode, strings, window) for window in windows]
        first, largest = (1, CHECKED_AT_ONCE) if stream or strings else (largest_chunk(),) * 2
        pieces = GenerationStream(
            self, prompts, decoding, texts, decoding.chunks(first, largest), strip_prompt, stream
        )
        if stream:
            return pieces
        result = pieces.result(self._pad_id(), _width(prompts, max_length, strip_prompt))
        return (result, pieces.state) if return_state else result

    def generate_step(self, inputs: dict, stop_token_ids: Iterable[int] | None = None) -> dict:
        """Generates up to the length of `token_ids`; what keras_hub calls a step.

        Args:
            inputs: dict of `token_ids` and `padding_mask`, `(batch, length)`.
            stop_token_ids: iterable of int or `None`. Tokens after which a row stops.

        Returns:
            Dict of `token_ids` and `padding_mask`, of the same shape.
        """
        return self.generate(inputs, stop_token_ids=stop_token_ids)

    def make_generate_function(self) -> Programs:
        """Returns the compiled programs of the model and its sampler, and makes them if need be."""
        # As `compile` would; a name may have been set since.
        self.sampler = sampler_of(getattr(self, "sampler", None) or "top_k")
        known = self.backbone.vocabulary_size
        tokenizer = getattr(self.preprocessor, "tokenizer", None)
        if hasattr(tokenizer, "vocabulary_size"):
            known = min(known, tokenizer.vocabulary_size() or known)
        check_sampler(self.sampler, known)
        programs = getattr(self, "generate_function", None)
        if programs is None or not programs.fit(self.sampler, known):
            self.generate_function = Programs(self, self.sampler, known)
        return self.generate_function

    # Arguments

    def _limits(self, prompts, max_length, max_new_tokens, state):
        """How many tokens each row may get."""
        counts = np.array([len(row) for row in prompts.rows])
        if max_new_tokens is not None:
            if max_length is not None:
                raise ValueError(
                    "`max_length` counts the prompt and `max_new_tokens` does not: pass one of "
                    f"them. Received: max_length={max_length}, max_new_tokens={max_new_tokens}"
                )
            check_positive(max_new_tokens=max_new_tokens)
            return np.full(len(counts), max_new_tokens)
        given = max_length is not None
        if not given:
            max_length = prompts.width or getattr(self.preprocessor, "sequence_length", None)
        if max_length is None:
            raise ValueError(
                "`max_length` or `max_new_tokens` must say how far to go, where neither a "
                "preprocessor nor padding does. Received: max_length=None"
            )
        check_positive(max_length=max_length)
        if counts.max() > max_length:
            which = "`max_length`" if given else "`max_length`, which the preprocessor gives,"
            raise ValueError(
                f"{which} must be at least the number of tokens of each prompt, which it counts. "
                f"Received: max_length={max_length}, a prompt of {counts.max()} tokens"
            )
        return max_length - counts

    def _stop_tokens(self, stop_token_ids):
        if isinstance(stop_token_ids, str) and stop_token_ids == "auto":
            tokenizer = getattr(self.preprocessor, "tokenizer", None)
            found = [getattr(tokenizer, name, None) for name in ("end_token_id", "end_token2_id")]
            if tokenizer is None and self.special_token_ids:
                found = np.ravel(self.special_token_ids.get("eos_token_id", [])).tolist()
            return tuple(sorted({int(i) for i in found if i is not None}))
        ids = () if stop_token_ids is None else stop_token_ids
        ids = [ids] if np.ndim(ids) == 0 and not isinstance(ids, (set, frozenset)) else list(ids)
        size = self.backbone.vocabulary_size
        for i in ids:
            whole = isinstance(i, (int, np.integer)) and not isinstance(i, bool)
            if not whole or not 0 <= i < size:
                raise ValueError(
                    f"`stop_token_ids` must be token ids from 0 to {size - 1}, 'auto' or None. "
                    f"Received: {i!r} in stop_token_ids={stop_token_ids!r}"
                )
        return tuple(sorted({int(i) for i in ids}))

    def _stop_strings(self, stop_strings):
        if stop_strings is None:
            return ()
        several = isinstance(stop_strings, Iterable) and not isinstance(stop_strings, str)
        strings = tuple(stop_strings) if several else (stop_strings,)
        for string in strings:
            if not isinstance(string, str) or not string:
                raise ValueError(
                    "`stop_strings` must be texts of at least one character. "
                    f"Received: stop_strings={stop_strings!r}"
                )
        if strings and not hasattr(self.preprocessor, "generate_postprocess"):
            raise ValueError(
                "`stop_strings` need a preprocessor that turns token ids into text. "
                f"Received: stop_strings={stop_strings!r}, preprocessor={self.preprocessor}"
            )
        return strings

    def _pad_id(self):
        tokenizer = getattr(self.preprocessor, "tokenizer", None)
        found = getattr(tokenizer, "pad_token_id", None)
        return 0 if found is None else int(found)


def _width(prompts, max_length, strip_prompt):
    """The length of the ids in a dict, as keras_hub pads them."""
    if prompts.form != "dict" or strip_prompt:
        return None
    return prompts.width if max_length is None else max_length


def _joined(parts, pad):
    """The results of batches, or of single prompts, as one."""
    if parts and isinstance(parts[0], dict):
        pads = {"token_ids": pad, "padding_mask": False}
        return {key: _stacked([part[key] for part in parts], pads[key]) for key in parts[0]}
    if parts and isinstance(parts[0], np.ndarray):
        return _stacked(parts, pad)
    return [row for part in parts for row in ([part] if isinstance(part, str) else part)]


def _stacked(arrays, pad):
    """Rows, or batches of them, one below the other, padded to one length."""
    width = max(array.shape[-1] for array in arrays)
    return np.concatenate(
        [
            np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=pad)
            for rows in map(np.atleast_2d, arrays)
        ]
    )
