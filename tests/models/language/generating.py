"""Small language models to generate with, and a preprocessor whose tokens are pieces of bytes."""

import keras
import numpy as np
from keras import ops

from keras_ssm.layers import Mamba
from keras_ssm.models import SSMBackbone, SSMCausalLM

PAD, END = 256, 257
PIECES = [bytes([i]) for i in range(256)] + [
    b"",
    b"",
    b"ab",
    "ö".encode() + b"\xf0",
    b"\x9f\x98\x80.",
]


class Pieces:
    """A tokenizer: bytes, padding, an end, and three longer pieces."""

    pad_token_id, end_token_id, special_token_ids = PAD, END, [PAD, END]

    def vocabulary_size(self):
        return len(PIECES)


class Preprocessor:
    """The part of keras_hub's contract that `generate` needs."""

    sequence_length = 24
    tokenizer = Pieces()

    def generate_preprocess(self, x, sequence_length=None):
        rows = [list(text.encode())[:sequence_length] for text in x]
        ids, mask = np.full((len(x), sequence_length), PAD), np.zeros((len(x), sequence_length))
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        return {"token_ids": ids, "padding_mask": mask}

    def generate_postprocess(self, x):
        pairs = zip(x["token_ids"], np.asarray(x["padding_mask"], bool), strict=True)
        return [
            b"".join(PIECES[i] for i in ids[mask]).decode("utf-8", "replace") for ids, mask in pairs
        ]


def language_model(mixer=None, vocabulary_size=32, preprocessor=None, sampler="greedy", **kwargs):
    """One block, with weights that say more than that every token is like any other."""
    keras.utils.set_random_seed(3)
    settings = {"num_layers": 1, "hidden_dim": 8, "norm": "rms", "prenorm": True}
    settings |= {"final_norm": "rms", "activation": None, "gate": None}
    mixer = Mamba(state_dim=2, seed=0) if mixer is None else mixer
    backbone = SSMBackbone(mixer, vocabulary_size=vocabulary_size, **settings | kwargs)
    model = SSMCausalLM(backbone, preprocessor, tie_embeddings=False)
    model.compile(sampler=sampler)
    return model


def says(text_ids):
    """A model that says these tokens in turn, whatever it read: each is known by the one before.

    No token may come twice.
    """
    size = len(PIECES)
    model = language_model(vocabulary_size=size, preprocessor=Preprocessor(), hidden_dim=size)
    table = np.eye(size, dtype="float32")
    model.backbone.token_embedding.embeddings.assign(table)
    for block in model.backbone.blocks:
        block.mixer.out_proj.kernel.assign(ops.zeros_like(block.mixer.out_proj.kernel))
    following = np.zeros_like(table)
    for one, other in zip(text_ids, [*text_ids[1:], END], strict=True):
        following[one, other] = 1
    model.head.kernel.assign(following)
    return model
