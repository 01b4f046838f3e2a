from collections.abc import Iterator

import keras
import numpy as np

from keras_ssm.models.language.decoding import Decoding
from keras_ssm.models.language.generation_state import GenerationState
from keras_ssm.models.language.prompts import Prompts
from keras_ssm.models.language.text_stream import TextStream


class GenerationStream:
    """The pieces of what is generated, as they come: what `generate(..., stream=True)` returns.

    Pieces of text together are the text that `generate` returns without `stream`, pieces of token
    ids its token ids.

    Attributes:
        state: `GenerationState` after the last piece, with `return_state=True`.

    Example:
        ```python
        backbone = keras_ssm.models.SSMBackbone(
            keras_ssm.layers.Mamba(state_dim=4), num_layers=1, hidden_dim=8, vocabulary_size=32
        )
        model = keras_ssm.models.SSMCausalLM(backbone)
        pieces = model.generate([3, 1, 4], max_length=20, stream=True, return_state=True)
        for piece in pieces:
            print(piece, flush=True)
        state = pieces.state
        ```
    """

    def __init__(
        self,
        model: keras.Model,
        prompts: Prompts,
        decoding: Decoding,
        texts: list[TextStream] | None,
        chunks: Iterator[list[np.ndarray]],
        strip_prompt: bool,
        one_by_one: bool,
    ):
        self._model = model
        self._prompts = prompts
        self._decoding = decoding
        self._texts = texts
        self._chunks = chunks
        self._strip_prompt = strip_prompt
        self._one_by_one = one_by_one  # whether each token makes a piece
        self._state = None
        self._pieces = self._run()

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._pieces)

    def close(self) -> None:
        """Ends the generation before its end."""
        self._pieces.close()

    @property
    def state(self) -> GenerationState:
        """The state after the last piece."""
        if self._state is None:
            raise ValueError(
                "`state` is that after the last piece of a generation with `return_state=True`. "
                "Received: a stream that has not ended, or one without"
            )
        return self._state

    def result(self, pad: int, width: int | None) -> object:
        """All pieces as one, in the form of the prompts."""
        rows = [[] for _ in self._prompts.rows]
        for piece in self._rows_of_pieces():
            for row, part in zip(rows, piece, strict=True):
                row.append(part)
        if self._prompts.form == "text":
            texts = ["".join(row) for row in rows]
            return texts[0] if self._prompts.single else texts
        return self._prompts.written([_concatenated(row) for row in rows], pad, width)

    def _run(self):
        for piece in self._rows_of_pieces():
            if not any(map(len, piece)):
                continue
            if self._prompts.form == "text":
                yield piece[0] if self._prompts.single else piece
            else:
                yield self._prompts.piece(piece)

    def _rows_of_pieces(self):
        """Yields lists with one piece for each row: text, or arrays of ids."""
        text = self._prompts.form == "text"
        prompts, texts = self._prompts.rows, self._texts
        if texts is not None:
            prompt_texts = [stream.prompt(row) for stream, row in zip(texts, prompts, strict=True)]
        if not self._strip_prompt:
            yield prompt_texts if text else prompts
        for rows in self._chunks:
            # A stop string ends a row within its chunk, so its tokens are read one by one.
            single = self._one_by_one or (texts is not None and texts[0].stops.strings)
            for t, part in enumerate(_steps(rows) if single else [rows]):
                pieces = part
                if texts is not None:
                    part, pieces = self._read(t, part)
                yield pieces if text else part
        if text:
            yield [stream.end(whole=not self._decoding.keep_state) for stream in texts]
        if self._decoding.keep_state:
            self._state = self._state_after()

    def _read(self, t, part):
        """What of the tokens at place t of a chunk counts, and the text that comes with it."""
        part = [row[:0] if s.stopped else row for s, row in zip(self._texts, part, strict=True)]
        pieces = []
        for i, (stream, row) in enumerate(zip(self._texts, part, strict=True)):
            going = not stream.stopped
            pieces.append(stream.feed(row))
            if going and stream.stopped:
                self._decoding.stop(i, t + 1)
        return part, pieces

    def _state_after(self):
        layers, tokens = self._decoding.state_after()
        count = len(self._prompts.rows)
        windows = [((), 0)] * count if self._texts is None else [t.window for t in self._texts]
        form = self._prompts.form, self._prompts.single
        return GenerationState.of(self._model, layers, tokens, windows, self._decoding.seeds, form)


def _steps(rows):
    """The tokens of a chunk one after the other, a part of each row at a time."""
    for t in range(max(map(len, rows), default=0)):
        yield [row[t : t + 1] for row in rows]


def _concatenated(parts):
    return np.concatenate([np.zeros(0, "int32"), *parts]).astype("int32")
