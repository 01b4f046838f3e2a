"""A language model of a few weights, and what it says by NumPy."""

import numpy as np

from keras_ssm.layers import Mamba
from keras_ssm.models import SSMBackbone, SSMCausalLM
from tests.backend_tools import to_numpy


def backbone(mixer=None, **kwargs):
    settings = {"num_layers": 2, "hidden_dim": 4, "vocabulary_size": 7, "norm": "rms"}
    settings |= {"prenorm": True, "final_norm": "rms", "activation": None, "gate": None}
    return SSMBackbone(Mamba(state_dim=2, seed=0) if mixer is None else mixer, **settings | kwargs)


def language_model(mixer=None, tied=True, preprocessor=None, seed=0, **kwargs):
    """A model whose logits are far from equal."""
    model = SSMCausalLM(backbone(mixer, **kwargs), preprocessor, tie_embeddings=tied)
    rng = np.random.default_rng(seed)
    weights = model.backbone.token_embedding.embeddings
    weights.assign(rng.standard_normal(weights.shape))
    return model


def nats(model, row, logits=None):
    """What each token of a row but the first costs, in nats; the logits may be padded."""
    logits = to_numpy(model(np.asarray(row)[None]))[0] if logits is None else logits
    logits = logits.astype("float64")
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -log_p[np.arange(len(row) - 1), row[1:]]
