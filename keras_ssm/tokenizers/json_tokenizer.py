import re
from pathlib import Path

import keras
from tokenizers import decoders

from keras_ssm.tokenizers.text_tokenizer import TextTokenizer
from keras_ssm.tokenizers.tokenizer_files import (
    LIBRARY_FILE,
    ROLES,
    explained,
    find_special_tokens,
    parse,
    read_file,
)
from keras_ssm.types import PathLike

BYTE = re.compile("<0x[0-9A-F]{2}>")


@keras.saving.register_keras_serializable(package="keras_ssm")
class JSONTokenizer(TextTokenizer):
    """Any tokenizer of a `tokenizer.json`, by the `tokenizers` library: GPT-NeoX and all others.

    Ids are those of the library: normalisation, added tokens such as runs of spaces, and special
    tokens in the text included. A beginning or end that the file would add by itself, cutting and
    padding are left to the preprocessor. Files and presets of a model hold the `tokenizer.json`.

    Args:
        file: str, `Path` or `None`. A `tokenizer.json`, or a directory that holds one. `None`
            for a tokenizer that a preset or a file is about to fill.
        start_token, end_token, pad_token: str or `None`. The tokens that begin a text, end it,
            and fill rows; `None` for none. Default to `"auto"`: what `tokenizer_config.json`,
            `special_tokens_map.json`, `generation_config.json` or `config.json` beside the file
            say, or a special token with a usual name, such as `<|endoftext|>` or `</s>`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: str or UTF-8 bytes, a list of them of any depth, an array or tensor of strings.

    Returns:
        List of ids for one text, otherwise lists of such lists.

    Raises:
        ValueError: for a file that is missing, damaged or no such tokenizer, a special token that
            it does not know, what is no text, or an id that is none.

    Example:
        ```python
        import tokenizers

        library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"state": 0, "space": 1}))
        library.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        library.save("tokenizer.json")
        tokenizer = keras_ssm.tokenizers.JSONTokenizer("tokenizer.json", end_token="space")
        ids = tokenizer(["state space", "state"])  # [[0, 1], [0]]
        ```

    Reference:
        [GPT-NeoX](https://arxiv.org/abs/2204.06745), section 3.2, whose tokenizer the published
        Mamba models read.
    """

    def __init__(
        self,
        file: PathLike | None = None,
        start_token: str | None = "auto",
        end_token: str | None = "auto",
        pad_token: str | None = "auto",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.file_assets = [LIBRARY_FILE]
        self._tokens = {"start_token": start_token, "end_token": end_token, "pad_token": pad_token}
        for name, token in self._tokens.items():
            if token is not None and not isinstance(token, str):
                raise ValueError(f"`{name}` must be a str or `None`. Received: {name}={token!r}")
        self._content = self._library = None
        self._ids = dict.fromkeys(ROLES)
        self._size = 0
        if file is not None:
            self._load(file)
        self.built = True

    @property
    def start_token(self) -> str | None:
        """The token that begins a text, or `None`."""
        return self._tokens["start_token"]

    @property
    def end_token(self) -> str | None:
        """The token that ends a text, or `None`."""
        return self._tokens["end_token"]

    @property
    def pad_token(self) -> str | None:
        """The token that fills rows, or `None`."""
        return self._tokens["pad_token"]

    @property
    def start_token_id(self) -> int | None:
        """Id of `start_token`."""
        return self._ids["start_token"]

    @property
    def end_token_id(self) -> int | None:
        """Id of `end_token`."""
        return self._ids["end_token"]

    @property
    def pad_token_id(self) -> int | None:
        """Id of `pad_token`."""
        return self._ids["pad_token"]

    @property
    def library(self):
        """The `tokenizers.Tokenizer`, which neither cuts nor pads."""
        if self._library is None:
            raise ValueError(
                f"{self.name} has no vocabulary yet: pass `file`, or load it from a preset. "
                "Received: file=None"
            )
        return self._library

    def encode_texts(self, texts: list) -> list[list[int]]:
        texts = [_decoded(text) if isinstance(text, bytes) else text for text in texts]
        library = self.library
        with explained("Texts must be Unicode that this tokenizer knows."):
            encodings = library.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode_rows(self, rows: list[list[int]]) -> list[str]:
        library = self.library
        with explained("Token ids must be such that this tokenizer gives them a text."):
            return library.decode_batch(rows, skip_special_tokens=True)

    def count_bytes(self, ids: list[int]) -> int:
        added = self.library.get_added_tokens_decoder()
        special = set(self.special_token_ids)
        by_byte = isinstance(self.library.decoder, decoders.ByteLevel)
        total = 0
        for i in ids:
            if i in special:
                continue
            token = self.id_to_token(i)
            if BYTE.fullmatch(token):  # of a vocabulary with byte fallback
                total += 1
            elif by_byte and i not in added:  # a character of the token is a byte
                total += len(token)
            else:
                total += len(self.decode_rows([[i]])[0].encode())
        return total

    def vocabulary_size(self) -> int:
        """Returns the number of ids: one more than the largest."""
        return self._size or self.library.get_vocab_size()

    def get_vocabulary(self) -> dict[str, int]:
        """Returns a dict from token to id, added tokens included."""
        return self.library.get_vocab(with_added_tokens=True)

    def id_to_token(self, id: int) -> str:
        """Returns the token of an id."""
        known = isinstance(id, int) and 0 <= id < self.vocabulary_size()
        token = self.library.id_to_token(id) if known else None
        if token is None:
            raise ValueError(f"`id` must be that of a token. Received: id={id!r}")
        return token

    def token_to_id(self, token: str) -> int:
        """Returns the id of a token."""
        token_id = self.library.token_to_id(token) if isinstance(token, str) else None
        if token_id is None:
            raise ValueError(f"`token` must be in the vocabulary. Received: token={token!r}")
        return token_id

    @property
    def begins_with_start_token(self) -> bool:
        """Whether the file would itself begin every text with the start token."""
        with explained("The file must say what stands before a text."):
            added = self.library.encode("", add_special_tokens=True).ids
        return self.start_token_id is not None and added[:1] == [self.start_token_id]

    @property
    def special_tokens(self) -> list[str]:
        """The special tokens of the file, and those given by name."""
        return [self.id_to_token(i) for i in self.special_token_ids]

    @property
    def special_token_ids(self) -> list[int]:
        """Ids of the special tokens of the file, and of those given by name."""
        added = self.library.get_added_tokens_decoder().items()
        special = {i for i, token in added if token.special}
        return sorted(special | {i for i in self._ids.values() if i is not None})

    def save_assets(self, dir_path: PathLike) -> None:
        """Writes `tokenizer.json` into a directory, byte for byte as it was read."""
        if self._content is None:
            self.library  # noqa: B018, an error that says what is missing
        (Path(dir_path) / LIBRARY_FILE).write_bytes(self._content)

    def load_assets(self, dir_path: PathLike) -> None:
        """Reads the `tokenizer.json` of a directory."""
        self._load(dir_path)

    def _load(self, path):
        content = read_file(path)
        library = parse(content)
        names = dict(self._tokens)
        if "auto" in names.values():
            special = find_special_tokens(path, library)
            names = {key: special[key] if name == "auto" else name for key, name in names.items()}
        ids = {
            key: None if name is None else library.token_to_id(name) for key, name in names.items()
        }
        for key, name in names.items():
            if name is not None and ids[key] is None:
                raise ValueError(
                    f"`{key}` must be in the vocabulary of the tokenizer. Received: {key}={name!r}"
                )
        self._content, self._library, self._tokens, self._ids = content, library, names, ids
        self._size = 1 + max(library.get_vocab(with_added_tokens=True).values())

    def get_config(self):
        return {**super().get_config(), **self._tokens}

    @classmethod
    def from_config(cls, config):
        if config.get("file") is not None:
            raise ValueError(
                "The configuration of a tokenizer names no file: presets and model files hold "
                f"their `{LIBRARY_FILE}`. Received: file={config['file']!r}"
            )
        return super().from_config(config)


def _decoded(text):
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            "Bytes must be UTF-8: decode them first, such as by `text.decode('utf-8', 'replace')`. "
            f"Received: {error}"
        ) from None
