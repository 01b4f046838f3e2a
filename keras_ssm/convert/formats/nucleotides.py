"""The tokenizer of HyenaDNA as a `tokenizer.json`: a token for each nucleotide."""

SPECIAL = ("[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]")
NUCLEOTIDES = "ACGTN"


def characters_of(settings: dict) -> str:
    """The characters that a `tokenizer_config.json` names, by their code points, or nucleotides.

    Args:
        settings: dict.

    Raises:
        ValueError: for what are no characters.
    """
    ords = settings.get("char_ords")
    if ords is None:
        return NUCLEOTIDES
    try:
        characters = "".join(map(chr, ords))
    except (TypeError, ValueError, OverflowError):
        characters = ""
    if not characters or len(set(characters)) < len(characters):
        raise ValueError(
            "`char_ords` of a `tokenizer_config.json` must be different code points. "
            f"Received: char_ords={str(ords)[:80]}"
        )
    return characters


def character_tokenizer(characters: str) -> dict:
    """Returns the content of a `tokenizer.json` with a token for each character.

    Any other character is the token `[UNK]`. Nothing is put in front of a text or behind it.

    Args:
        characters: str.

    Example:
        ```python
        document = character_tokenizer("ACGTN")
        assert document["model"]["vocab"]["A"] == 7
        ```

    Reference:
        [HyenaDNA](https://arxiv.org/abs/2306.15794), section 3.1.
    """
    tokens = [*SPECIAL, *characters]
    added = [
        {
            "id": i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, token in enumerate(SPECIAL)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "[\\s\\S]"},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "WordLevel",
            "vocab": {token: i for i, token in enumerate(tokens)},
            "unk_token": "[UNK]",
        },
    }
