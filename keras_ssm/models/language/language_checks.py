"""What a language model cannot be made of."""

import numpy as np

from keras_ssm.checks import check_flags
from keras_ssm.layers.exact_layers import Embedding

SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


def check_backbone(backbone, tie_embeddings, head_dtype):
    """Raises a `ValueError` for a backbone of which no language model can be made."""
    if backbone.vocabulary_size is None:
        raise ValueError(
            "`backbone` of a language model must read token ids: make it with a "
            f"`vocabulary_size`. Received: backbone {backbone.name} with vocabulary_size=None"
        )
    mixer = backbone.blocks[0].mixer
    if not mixer.causal:
        raise ValueError(
            "The mixer of a language model must be causal, or a token would be predicted from "
            f"itself. Received: a mixer {type(mixer).__name__} that reads later steps"
        )
    if not backbone.mask_inputs:
        raise ValueError(
            "`backbone` of a language model must leave out padding, or its states after a short "
            "row are wrong. Received: a backbone with mask_inputs=False"
        )
    check_flags(tie_embeddings=tie_embeddings)
    if tie_embeddings and not isinstance(backbone.token_embedding, Embedding):
        raise ValueError(
            "`tie_embeddings` needs the encoder 'embedding'. "
            f"Received: tie_embeddings=True, encoder={backbone.encoder!r}"
        )
    if tie_embeddings and head_dtype is not None:
        raise ValueError(
            "`head_dtype` is that of a head of its own: pass `tie_embeddings=False`. "
            f"Received: head_dtype={head_dtype}"
        )


def check_vocabulary(backbone, preprocessor):
    """Raises a `ValueError` for a tokenizer with more tokens than the backbone embeds."""
    size = getattr(getattr(preprocessor, "tokenizer", None), "vocabulary_size", None)
    try:
        tokens = size() if callable(size) else None
    except (AttributeError, TypeError, ValueError):  # a tokenizer whose files are still to be read
        return
    if tokens is not None and tokens > backbone.vocabulary_size:
        raise ValueError(
            f"`backbone` must embed all {tokens} tokens of the `preprocessor`'s tokenizer. "
            f"Received: vocabulary_size={backbone.vocabulary_size}"
        )


def checked_special(ids, vocabulary_size):
    """Ids of special tokens as a dict of plain integers and lists of them, or `None`."""
    if ids is None:
        return None
    known = isinstance(ids, dict) and set(ids) <= set(SPECIAL)
    if not known or not all(is_id(i, vocabulary_size) for i in _flat(ids)):
        raise ValueError(
            f"`special_token_ids` must be a dict of {', '.join(SPECIAL)}, with ids from 0 to "
            f"{vocabulary_size - 1}. Received: special_token_ids={ids}"
        )
    return {
        name: [int(i) for i in value] if np.ndim(value) else int(value)
        for name, value in ids.items()
    }


def is_id(value, vocabulary_size):
    """Whether a value is the id of a token."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return whole and 0 <= value < vocabulary_size


def _flat(ids):
    return [i for value in ids.values() for i in (value if np.ndim(value) else [value])]
