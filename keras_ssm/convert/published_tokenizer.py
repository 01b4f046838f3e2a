"""The tokenizer of a published model: a `tokenizer.json` beside its weights, in and out."""

import json
import tempfile
from pathlib import Path

from keras_ssm import presets
from keras_ssm.convert.formats.nucleotides import character_tokenizer, characters_of
from keras_ssm.models import SSMCausalLMPreprocessor
from keras_ssm.models.language.language_checks import SPECIAL, is_id
from keras_ssm.tokenizers import JSONTokenizer

# Of HyenaDNA, by the arguments of our tokenizer.
TOKENS = {"start_token": "[BOS]", "end_token": "[SEP]", "pad_token": "[PAD]"}

FILE, SETTINGS = "tokenizer.json", "tokenizer_config.json"


def preprocessor_of(directory, nucleotides=False):
    """The preprocessor of a published model, `None` without a tokenizer.

    Args:
        directory: `Path` of the model.
        nucleotides: int or False. Size of the vocabulary of a model of DNA, whose tokenizer is the
            same in every directory.

    Returns:
        `SSMCausalLMPreprocessor` or `None`. It adds a start token where the published tokenizer
        does, and an end token to what it trains on where there is one.

    Raises:
        ValueError: for a file that is no tokenizer.
    """
    if not (directory / FILE).is_file():
        return _of_nucleotides(directory, nucleotides) if nucleotides else None
    tokenizer = JSONTokenizer(directory)
    adds_start = tokenizer.begins_with_start_token
    if (directory / SETTINGS).is_file():
        said = presets.read_json(directory / SETTINGS).get("add_bos_token")
        adds_start = said if isinstance(said, bool) else adds_start
    return SSMCausalLMPreprocessor(
        tokenizer,
        add_start_token=adds_start and tokenizer.start_token_id is not None,
        add_end_token=tokenizer.end_token_id is not None,
    )


def _of_nucleotides(directory, vocabulary_size):
    """The preprocessor of a model of DNA, `None` for one with fewer tokens than nucleotides."""
    settings = directory / SETTINGS
    document = character_tokenizer(
        characters_of(presets.read_json(settings) if settings.is_file() else {})
    )
    if len(document["model"]["vocab"]) > vocabulary_size:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / FILE).write_text(json.dumps(document), encoding="utf-8")
        tokenizer = JSONTokenizer(scratch, **TOKENS)
    return SSMCausalLMPreprocessor(tokenizer, add_start_token=False, add_end_token=True)


def special_token_ids(config, vocabulary_size):
    """The ids of special tokens that a `config.json` of transformers says, or `None`."""
    ids = {name: config[name] for name in SPECIAL if config.get(name) is not None}
    ids = {
        name: value
        for name, value in ids.items()
        if all(is_id(i, vocabulary_size) for i in (value if isinstance(value, list) else [value]))
    }
    return ids or None


def write_tokenizer(model, directory):
    """Writes the tokenizer of a model as transformers loads it, if it is a `JSONTokenizer`.

    Args:
        model: `SSMCausalLM`.
        directory: `Path`.
    """
    tokenizer = getattr(model.preprocessor, "tokenizer", None)
    if not isinstance(tokenizer, JSONTokenizer):
        return
    tokenizer.save_assets(directory)
    tokens = {
        "bos_token": tokenizer.start_token,
        "eos_token": tokenizer.end_token,
        "pad_token": tokenizer.pad_token,
    }
    settings = {
        **{name: token for name, token in tokens.items() if token is not None},
        "add_bos_token": getattr(model.preprocessor, "add_start_token", False),
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    text = json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (directory / SETTINGS).write_text(text, encoding="utf-8")
