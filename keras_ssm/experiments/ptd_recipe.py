"""Trainings of the experiment on noise: a small network of each system on grey images."""

import keras
import numpy as np
from keras.layers import Dense, Rescaling

from keras_ssm import recipes
from keras_ssm.experiments.direct_block import DirectBlock
from keras_ssm.layers import S4, S4D, S4PTD, S5, S5PTD, SequencePooling, SSMBlock
from keras_ssm.optimizers import ssm_optimizer
from keras_ssm.training import ClassificationRecipe, Part, Splits, cosine
from keras_ssm.training.baselines import masked_inputs

MIXERS = {
    "s4": S4,
    "s4d_legs": lambda **arguments: S4PTD(perturbation="rank1", perturbation_size=1.0, **arguments),
    "s4ptd": S4PTD,
    "s4ptd_rank1": lambda **arguments: S4PTD(perturbation="rank1", **arguments),
    "s5": S5,
    "s5ptd": S5PTD,
    "s4d": S4D,
}

S5_SYSTEMS = ("s5", "s5ptd")


class PTDNoise(ClassificationRecipe):
    """Images of a recipe as sequences, read by systems that differ in their initial state matrix.

    `images` is how many of them are learned from and `pool` how many pixels beside each other make
    a step, by their mean. `dt_min` and `dt_max` are those of a step. With `residual=false` a layer
    has no path around its system: neither the residual sum of the block nor D. With `frozen=true`
    dt, A and B stay as they began, and C and the rest learn. Both together are the published test.
    `blocks` is an argument of S5, whose state is so many times `state_dim`. All systems then have
    the same spectrum.

    Args:
        source: str. Recipe whose images are read. Defaults to `"sequential_mnist"`.
    """

    systems = {name: {} if name in S5_SYSTEMS else {"blocks": None} for name in MIXERS}
    baselines = tuple(systems)  # no presets: these models are there to be compared
    settings = {
        "images": 12_000,
        "pool": 1,
        "residual": False,
        "frozen": True,
        "num_layers": 2,
        "hidden_dim": 32,
        "state_dim": 32,
        "blocks": 2,
        "dt_min": 1e-3,
        "dt_max": 1e-1,
        "dropout": 0.0,
        "epochs": 4,
        "batch_size": 50,
        "learning_rate": 1e-2,
        "ssm_learning_rate": 1e-3,
        "weight_decay": 0.05,
        "warmup": 0.1,
        "validation": 0.1,
        "select": "accuracy",
        "patience": 0,
    }

    def __init__(self, source: str = "sequential_mnist"):
        self.source = recipes.get(source)
        self.name = f"ptd_noise_{source}"
        self.classes, self.scale = self.source.classes, self.source.scale

    def read(self, directory):
        return self.source.read(directory)

    def arrange(self, splits, settings):
        train = splits.train.spread(settings["images"])
        splits = super().arrange(Splits(train, None, splits.test), settings)
        return Splits(*(part and pooled(part, settings["pool"]) for part in splits))

    def make_model(self, system, seed, settings):
        keras.utils.set_random_seed(seed)
        arguments = {name: settings[name] for name in ("state_dim", "dt_min", "dt_max")}
        if system in S5_SYSTEMS:
            arguments["blocks"] = settings["blocks"]
            arguments["state_dim"] *= settings["blocks"]
        inputs = masked_inputs(1)
        x, mask = Rescaling(self.scale)(inputs["inputs"]), inputs["padding_mask"]
        x = Dense(settings["hidden_dim"], name="input_dense")(x)
        block = SSMBlock if settings["residual"] else DirectBlock
        blocks = []
        for i in range(settings["num_layers"]):
            mixer = MIXERS[system](seed=seed + i, **arguments)
            blocks.append(block(mixer, dropout=settings["dropout"], name=f"ssm_block_{i}"))
            x = blocks[-1](x, mask=mask)
        for mixer in (block.mixer for block in blocks):
            if not settings["residual"]:
                mixer.D.assign(0 * mixer.D)
            for weight in mixer.trainable_weights:
                frozen = settings["frozen"] and weight.name in mixer.slow_weights
                weight.trainable = not (frozen or (weight is mixer.D and not settings["residual"]))
        x = SequencePooling("mean")(x, mask=mask)
        return keras.Model(inputs, Dense(len(self.classes), name="logits")(x), name=system)

    def prepare(self, model, settings, steps):
        rates = (
            cosine(settings[name], steps, settings["warmup"])
            for name in ("learning_rate", "ssm_learning_rate")
        )
        optimizer = ssm_optimizer(*rates, weight_decay=settings["weight_decay"])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])

    def facts(self, system, settings):
        return {}


def pooled(part: Part, pool: int) -> Part:
    """Images as rows of steps, each the mean of so many pixels beside each other."""
    pixels = np.reshape(part.x, (part.size, -1))
    if pixels.shape[1] % pool:
        raise ValueError(
            f"`pool` must divide the {pixels.shape[1]} pixels of an image. Received: pool={pool}"
        )
    if pool > 1:
        pixels = pixels.reshape(part.size, -1, pool).mean(axis=-1, dtype="float32")
    return Part(pixels, part.y)
