"""Language models of bytes on tinyshakespeare, 1,115,394 bytes split 90 / 5 / 5 % in order."""

import gzip
import math

import keras
import numpy as np

from keras_ssm.layers import S4D, Mamba2
from keras_ssm.models import SSMBackbone, SSMCausalLM, SSMCausalLMPreprocessor
from keras_ssm.optimizers import ssm_optimizer
from keras_ssm.tokenizers import ByteTokenizer
from keras_ssm.training import EpochData, NGram, Recipe, Splits, one_epoch

BYTES = 1_115_394

DESCRIPTION = (
    "A small language model that reads and writes bytes, trained on plays of Shakespeare. It shows "
    "generation, streaming, fine-tuning and a state that goes on."
)

EXAMPLE = """\
model.compile(sampler="random")
print(model.generate("ROMEO:", max_length=200))"""

OWN_FILE = """\
from pathlib import Path

text = Path("scene.txt").read_text(encoding="utf-8")
print(model.bits_per_byte([text]), "bits for each byte of it")
print(model.generate(text[-500:], max_length=700))  # how it goes on"""

LIMITS = (
    "It has read one megabyte of plays and knows nothing else. What it writes looks like a play "
    "and means nothing."
)

DATA_LICENCE = "plays of W. Shakespeare, public domain, as collected by A. Karpathy (char-rnn)"


# Settings that counted n-grams lack.
TRAINING_SETTINGS = ("num_layers", "hidden_dim", "state_dim", "dropout", "rows", "steps")
TRAINING_SETTINGS += ("learning_rate", "weight_decay", "clipnorm")


class Windows(EpochData):
    """Windows of the text at random places; the target of each byte is the next one.

    Args:
        ids: int array `(bytes,)`.
        window: int. Bytes a row.
        rows: int. Rows a batch.
        seed, batches: see `EpochData`.
    """

    def __init__(self, ids: np.ndarray, window: int, rows: int, seed: int, batches: int):
        super().__init__(seed, batches)
        self.ids = ids
        self.window = window
        self.rows = rows

    def batch(self, rng):
        starts = rng.integers(len(self.ids) - self.window, size=self.rows)
        rows = np.stack([self.ids[start : start + self.window + 1] for start in starts])
        return rows[:, :-1], rows[:, 1:]


class TinyShakespeare(Recipe):
    """Mamba-2 and S4D of about half a million weights, beside an LSTM of as many and a 5-gram."""

    name = "tinyshakespeare"
    settings = {
        "num_layers": 4,
        "hidden_dim": 128,
        "state_dim": 32,
        "dropout": 0.0,
        "window": 256,
        "rows": 8,
        "epochs": 7,
        "steps": 250,
        "learning_rate": 4e-3,
        "weight_decay": 0.05,
        "clipnorm": 1.0,
    }
    systems = {
        "mamba2": {},
        "s4d": {"hidden_dim": 184, "state_dim": 64, "learning_rate": 1e-2, "epochs": 8},
        "lstm": {"hidden_dim": 256, "num_layers": None, "state_dim": None, "epochs": 14},
        "ngram": {"order": 5, "epochs": 1, **dict.fromkeys(TRAINING_SETTINGS)},
    }
    baselines = ("lstm", "ngram")

    def read(self, directory):
        path = directory / self.name / "input.txt.gz"
        if not path.is_file():
            raise ValueError(
                f"The data must lie in '{path}': input.txt of karpathy/char-rnn, compressed by "
                "gzip. Received: no such file"
            )
        ids = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8).astype("int32")
        if len(ids) != BYTES:
            raise ValueError(f"'{path}' must hold {BYTES:,} bytes. Received: {len(ids):,} bytes")
        first, second = BYTES * 90 // 100, BYTES * 95 // 100
        return Splits(ids[:first], ids[first:second], ids[second:])

    def limited(self, splits, limit, settings):
        size = limit * settings["window"] + 2
        return Splits(*(ids[:size] for ids in splits))

    def make_model(self, system, seed, settings):
        if system == "ngram":
            return NGram(settings["order"])
        keras.utils.set_random_seed(seed)
        tokenizer = ByteTokenizer()
        steps = settings["epochs"] * settings["steps"]

        def cosine(peak):
            return keras.optimizers.schedules.CosineDecay(
                0.0, steps, alpha=0.05, warmup_target=peak, warmup_steps=min(50, steps // 10)
            )

        rate, clip = settings["learning_rate"], {"global_clipnorm": settings["clipnorm"]}
        if system == "lstm":
            model = _lstm(tokenizer.vocabulary_size(), settings)
            optimizer = keras.optimizers.AdamW(
                cosine(rate), weight_decay=settings["weight_decay"], **clip
            )
        else:
            preprocessor = SSMCausalLMPreprocessor(tokenizer, sequence_length=settings["window"])
            backbone = _backbone(system, tokenizer.vocabulary_size(), seed, settings)
            model = SSMCausalLM(backbone, preprocessor=preprocessor)
            optimizer = ssm_optimizer(
                cosine(rate), cosine(rate / 4), weight_decay=settings["weight_decay"], **clip
            )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=optimizer, loss=loss, weighted_metrics=[])
        return model

    def training_data(self, splits, seed, settings):
        return Windows(
            splits.train, settings["window"], settings["rows"], seed, batches=settings["steps"]
        )

    def fit(self, model, splits, seed, settings, callbacks, limit=None):
        if isinstance(model, NGram):
            with one_epoch(callbacks):
                model.fit(splits.train)
            return
        super().fit(model, splits, seed, settings, callbacks, limit)

    def score(self, model, part, settings):
        return {
            "bits per byte in windows": _windows(model, part, settings["window"]),
            "bits per byte with the state carried": carried(model, part),
        }

    def facts(self, system, settings):
        return {
            "description": DESCRIPTION,
            "pipeline_tag": "text-generation",
            "example": EXAMPLE,
            "own_file": OWN_FILE,
            "limits": LIMITS,
            "data": {
                "name": "tinyshakespeare",
                "source": "karpathy/char-rnn",
                "split": "90 / 5 / 5 % of the bytes, in order",
            },
            "licences": {"weights": "Apache-2.0", "data": DATA_LICENCE},
        }


def _backbone(system, vocabulary_size, seed, settings):
    layers, state_dim = settings["num_layers"], settings["state_dim"]
    if system == "s4d":
        mixer = S4D(state_dim=state_dim, seed=seed)
        block = {"norm": "layer", "final_norm": "layer"}
    else:
        mixer = Mamba2(state_dim=state_dim, head_dim=32, residual_layers=layers, seed=seed)
        block = {"norm": "rms", "final_norm": "rms", "gate": None, "activation": None}
    return SSMBackbone(
        mixer,
        num_layers=layers,
        hidden_dim=settings["hidden_dim"],
        vocabulary_size=vocabulary_size,
        prenorm=True,
        dropout=settings["dropout"],
        **block,
    )


def _lstm(vocabulary_size, settings, stateful=False):
    ids = keras.Input(batch_shape=(1 if stateful else None, None), dtype="int32")
    x = keras.layers.Embedding(vocabulary_size, settings["hidden_dim"] // 2)(ids)
    x = keras.layers.LSTM(settings["hidden_dim"], return_sequences=True, stateful=stateful)(x)
    x = keras.layers.Dropout(settings["dropout"])(x)
    return keras.Model(ids, keras.layers.Dense(vocabulary_size)(x))


def _windows(model, ids, window):
    """Bits for each byte but the first in whole windows, each of which begins without a state."""
    rows = (len(ids) - 1) // window
    if isinstance(model, NGram):
        windows = np.stack([ids[i * window : (i + 1) * window + 1] for i in range(rows)])
        return float(-np.log2(model.probabilities(windows)).mean())
    x, y = (ids[i : i + rows * window].reshape(rows, window) for i in (0, 1))
    # A dict, since models may have further metrics.
    scores = model.evaluate(x, y, batch_size=16, verbose=0, return_dict=True)
    return float(scores["loss"]) / math.log(2)


def carried(model, ids, window=1024):
    """Bits for each byte but the first, in one pass that carries the state on."""
    if isinstance(model, SSMCausalLM):
        return model.bits_per_byte(ids, num_bytes=len(ids) - 1)
    if isinstance(model, NGram):
        return float(-np.log2(model.probabilities(ids)).mean())
    units = model.layers[2].units
    twin = _lstm(model.output_shape[-1], {"hidden_dim": units, "dropout": 0.0}, stateful=True)
    twin.set_weights(model.get_weights())
    nats, inputs, targets = 0.0, ids[:-1], ids[1:]
    for start in range(0, len(inputs), window):
        x, y = inputs[start : start + window], targets[start : start + window]
        logits = twin.predict_on_batch(x[None])[0].astype("float64")
        largest = logits.max(axis=1, keepdims=True)
        log_sums = np.log(np.exp(logits - largest).sum(axis=1)) + largest[:, 0]
        nats += float((log_sums - logits[np.arange(len(y)), y]).sum())
    return nats / len(targets) / math.log(2)


RECIPE = TinyShakespeare()
