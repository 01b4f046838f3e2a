import keras

from keras_ssm.checks import check_choice
from keras_ssm.tokenizers.text_tokenizer import TextTokenizer

ERRORS = ("strict", "replace", "ignore", "surrogateescape", "backslashreplace")
SPECIAL = ("<pad>", "<start>", "<end>")


@keras.saving.register_keras_serializable(package="keras_ssm")
class ByteTokenizer(TextTokenizer):
    """Tokenizer whose tokens are the bytes of UTF-8, without files.

    Ids 0 to 255 are the bytes themselves, 256 is padding (`pad_token_id`), 257 the start of a text
    (`start_token_id`), 258 its end (`end_token_id`): `vocabulary_size()` is 259. No text becomes a
    special token, whatever it says, and nothing is normalised. `SequencePreprocessor` gives bytes
    the same ids.

    Args:
        errors: str. What becomes of bytes that are no UTF-8 when ids become text, as in
            `bytes.decode`: `"replace"`, `"strict"`, `"ignore"`, `"backslashreplace"`, or
            `"surrogateescape"`, with which every row of bytes comes back from its text exactly.
            Defaults to `"replace"`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: str or bytes, a list of them of any depth, an array or tensor of strings.

    Returns:
        List of ids for one text, otherwise lists of such lists.

    Raises:
        ValueError: for what is no text, an id that is none, or bytes that `"strict"` refuses.

    Example:
        ```python
        tokenizer = keras_ssm.tokenizers.ByteTokenizer()
        ids = tokenizer(["Zoë", b"\\x00"])  # [[90, 111, 195, 171], [0]]
        texts = tokenizer.detokenize([90, 111, 195, 171, 258])  # "Zoë"
        ```

    Reference:
        [ByT5](https://arxiv.org/abs/2105.13626), section 3, for models of bytes.
    """

    pad_token, start_token, end_token = SPECIAL
    pad_token_id, start_token_id, end_token_id = 256, 257, 258
    settable = ("errors",)

    def __init__(self, errors: str = "replace", **kwargs):
        super().__init__(**kwargs)
        self.errors = errors
        self.built = True

    @property
    def errors(self) -> str:
        """How bytes that are no UTF-8 are decoded."""
        return self._errors

    @errors.setter
    def errors(self, value):
        check_choice("errors", value, ERRORS)
        self._errors = value

    def encode_texts(self, texts: list) -> list[list[int]]:
        try:
            return [
                list(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))
                for text in texts
            ]
        except UnicodeEncodeError as error:
            raise ValueError(
                "Texts must be Unicode, without single surrogates but those of "
                f"`errors='surrogateescape'`. Received: {error}"
            ) from None

    def decode_rows(self, rows: list[list[int]]) -> list[str]:
        try:
            return [bytes(i for i in row if i < 256).decode("utf-8", self.errors) for row in rows]
        except UnicodeDecodeError as error:
            raise ValueError(
                f"Token ids must be UTF-8 for a tokenizer with `errors='strict'`. Received: {error}"
            ) from None

    def count_bytes(self, ids: list[int]) -> int:
        return sum(0 <= i < 256 for i in ids)

    def vocabulary_size(self) -> int:
        """Returns 259."""
        return 256 + len(SPECIAL)

    def get_vocabulary(self) -> dict[str, int]:
        """Returns a dict from token to id; a byte is the character of its number."""
        return {self.id_to_token(i): i for i in range(self.vocabulary_size())}

    def id_to_token(self, id: int) -> str:
        """Returns the name of a token."""
        if not 0 <= id < self.vocabulary_size():
            raise ValueError(
                f"`id` must be from 0 to {self.vocabulary_size() - 1}. Received: id={id}"
            )
        return chr(id) if id < 256 else SPECIAL[id - 256]

    def token_to_id(self, token: str) -> int:
        """Returns the id of a token."""
        if token in SPECIAL:
            return 256 + SPECIAL.index(token)
        if not isinstance(token, str) or len(token) != 1 or ord(token) > 255:
            raise ValueError(
                f"`token` must be the character of a byte, or one of {', '.join(SPECIAL)}. "
                f"Received: token={token!r}"
            )
        return ord(token)

    @property
    def special_tokens(self) -> list[str]:
        """Names of the special tokens."""
        return list(SPECIAL)

    @property
    def special_token_ids(self) -> list[int]:
        """Ids of the special tokens."""
        return [256, 257, 258]

    def get_config(self):
        return {**super().get_config(), "errors": self.errors}
