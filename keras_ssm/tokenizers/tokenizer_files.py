"""Reading a `tokenizer.json` and what stands beside it, without trust in either."""

import contextlib
from pathlib import Path

import tokenizers

from keras_ssm.presets.preset_files import read_json

LIBRARY_FILE = "tokenizer.json"
LARGEST = 256 * 2**20  # bytes: eight times the largest vocabulary published

# Names of special tokens here, in transformers, and in a file without the files of transformers.
ROLES = {
    "start_token": "bos_token",
    "end_token": "eos_token",
    "pad_token": "pad_token",
}
_USUAL = {
    "start_token": ("<|endoftext|>", "<s>", "<bos>", "<|begin_of_text|>"),
    "end_token": ("<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>"),
    "pad_token": ("<|padding|>", "<pad>", "[PAD]", "<|pad|>"),
}
_BY_TOKEN = ("tokenizer_config.json", "special_tokens_map.json")
_BY_ID = ("generation_config.json", "config.json")


def read_file(path):
    """Returns the bytes of a `tokenizer.json`, the file itself or one of a directory.

    Args:
        path: str or `Path`.

    Raises:
        ValueError: if there is none, or it is too large to be one.
    """
    path = Path(path).expanduser()
    path = path / LIBRARY_FILE if path.is_dir() else path
    if not path.is_file():
        raise ValueError(
            f"`file` must be a `{LIBRARY_FILE}` or a directory that holds one. "
            f"Received: no file '{path}'"
        )
    _check_size(path)
    return path.read_bytes()


def parse(content):
    """Returns a `tokenizers.Tokenizer` that neither cuts nor pads.

    Args:
        content: bytes of a `tokenizer.json`.

    Raises:
        ValueError: if the library refuses it.
    """
    with explained(f"`file` must be a complete `{LIBRARY_FILE}` of the tokenizers library."):
        library = tokenizers.Tokenizer.from_buffer(content)
        library.no_truncation()
        library.no_padding()
        if not library.get_vocab_size():
            raise ValueError("a vocabulary without a token")
        return library


@contextlib.contextmanager
def explained(message):
    """Turns whatever the library raises into a `ValueError`, its panics included.

    Args:
        message: str. What was expected, a sentence.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{message} Received: {str(error)[:500]}") from None


def find_special_tokens(path, library):
    """Finds the special tokens of a tokenizer in the files of its directory.

    The files of transformers go first, in this order: `tokenizer_config.json`,
    `special_tokens_map.json`, `generation_config.json`, `config.json`. What they do not say is
    looked up by its usual names among the special tokens of the tokenizer.

    Args:
        path: `Path` of the `tokenizer.json` or of its directory.
        library: `tokenizers.Tokenizer`.

    Returns:
        Dict of `start_token`, `end_token` and `pad_token` to a str or `None`.

    Raises:
        ValueError: for a file that is damaged or too large.
    """
    path = Path(path).expanduser()
    directory = path if path.is_dir() else path.parent
    token_of_role = dict.fromkeys(ROLES)
    for name in (*_BY_TOKEN, *_BY_ID):
        if not (directory / name).is_file():
            continue
        _check_size(directory / name)
        document = read_json(directory / name)
        for role, theirs in ROLES.items():
            if token_of_role[role] is None:
                known = _by_token if name in _BY_TOKEN else _by_id
                token_of_role[role] = known(document, theirs, library)
    special = {t.content for t in library.get_added_tokens_decoder().values() if t.special}
    for role, names in _USUAL.items():
        if token_of_role[role] is None:
            token_of_role[role] = next((name for name in names if name in special), None)
    return token_of_role


def _by_token(document, name, library):
    token = document.get(name)
    token = token.get("content") if isinstance(token, dict) else token
    known = isinstance(token, str) and library.token_to_id(token) is not None
    return token if known else None


def _by_id(document, name, library):
    index = document.get(f"{name}_id")
    index = index[0] if isinstance(index, list) and index else index
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < 2**32:
        return None
    return library.id_to_token(index)


def _check_size(path):
    size = path.stat().st_size
    if size > LARGEST:
        raise ValueError(f"`{path}` must have at most {LARGEST:,} bytes. Received: {size:,} bytes")
