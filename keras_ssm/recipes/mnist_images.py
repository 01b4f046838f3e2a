"""Handwritten digits as images of 14 x 14 pixels, and read at 28 x 28 without another training."""

import keras
import numpy as np

from keras_ssm.models import ImagePreprocessor, SSMImageClassifier, SSMTask
from keras_ssm.recipes.sequential_mnist import DATA_LICENCE, read_mnist
from keras_ssm.training import ClassificationRecipe, Part, ShuffledRows, Splits

SIDES = 14, 28

DESCRIPTION = (
    "A classifier of handwritten digits as images of {side} x {side} pixels, with a state-space "
    "system along each axis. It reads {other} x {other} pixels without another training, by "
    "`model.step_scale`."
)

EXAMPLE = """\
import numpy as np

images = np.zeros((2, {side}, {side}), "uint8")  # pixels from 0 to 255
print(model.predict(images, verbose=0).argmax(axis=-1))
model.step_scale = {scale:g}  # {other} pixels a side
print(model.predict(np.zeros((2, {other}, {other}), "uint8"), verbose=0).argmax(axis=-1))"""

OWN_FILE = """\
import numpy as np
from PIL import Image

image = Image.open("digit.png").convert("L").resize(({side}, {side}))  # a light digit on dark
print(model.predict(np.asarray(image)[None], verbose=0).argmax(axis=-1))"""

LIMITS = (
    "Inputs are pixels from 0 to 255, light on dark as MNIST has them, at 28 x 28 or as the means "
    "of 2 x 2 of them. It knows no other images."
)


class MNISTImages(ClassificationRecipe):
    """Trained at `side` pixels a side, 14 or 28, and scored at both.

    The images of 14 pixels are means of 2 x 2 pixels. Training moves every image by up to `shift`
    pixels. A `bandlimit` below 1 silences modes that are too fast for the pixels of the training,
    which would be heard at more of them.
    """

    name = "mnist_images"
    classes = tuple("0123456789")
    scale = 1 / 255
    picture_shape = 28, 28
    settings = {
        "side": 14,
        "shift": 1,
        "num_layers": 3,
        "hidden_dim": 32,
        "state_dim": 16,
        "bandlimit": 0.5,
        "dropout": 0.1,
        "pooling": "mean",
        "epochs": 10,
        "batch_size": 50,
        "learning_rate": 1e-2,
        "ssm_learning_rate": 2e-3,
        "weight_decay": 0.01,
        "warmup": 0.05,
        "validation": 0.1,
        "select": "accuracy",
        "patience": 0,
    }
    systems = {
        "s4nd": {},
        "cnn": {
            "learning_rate": 2e-3,
            **dict.fromkeys(("state_dim", "bandlimit", "pooling", "ssm_learning_rate")),
        },
    }
    baselines = ("cnn",)

    def read(self, directory):
        return Splits(*(part and Part(_square(part.x), part.y) for part in read_mnist(directory)))

    def make_model(self, system, seed, settings):
        if settings["side"] not in SIDES:
            raise ValueError(f"`side` must be one of {SIDES}. Received: side={settings['side']}")
        keras.utils.set_random_seed(seed)
        if system == "cnn":
            return _cnn(len(self.classes), settings, self.scale)
        return SSMImageClassifier(
            self.make_backbone(system, seed, settings),
            num_classes=len(self.classes),
            preprocessor=ImagePreprocessor(scale=self.scale),
            pooling=settings["pooling"],
            class_names=self.classes,
        )

    def training_data(self, splits, seed, settings):
        part = splits.train
        images = Part(at_side(part.x, settings["side"]), part.y)
        return ShuffledImages(images, settings["batch_size"], seed, settings["shift"])

    def logits(self, model, part, settings, side=None):
        images = at_side(part.x, side or settings["side"])
        x = images if isinstance(model, SSMTask) else images[..., None].astype("float32")
        logits = model.predict(x, batch_size=settings["batch_size"], verbose=0)
        return np.asarray(logits).astype("float64")

    def score(self, model, part, settings):
        """At the side of the training, and the accuracy at the other one."""
        scores = super().score(model, part, settings)
        side, reads = settings["side"], isinstance(model, SSMTask)
        other = _other(side)
        if reads:
            model.step_scale = side / other
        right = self.logits(model, part, settings, other).argmax(axis=1) == part.y
        if reads:
            model.step_scale = 1.0
        return {**scores, f"accuracy at {other} x {other}": float(right.mean())}

    def count(self, metric, part):
        return part.size if metric.startswith("accuracy") else None

    def preset_name(self, system, settings):
        return f"{system}_{self.name}" + "_28" * (settings["side"] == 28)

    def facts(self, system, settings):
        side = settings["side"]
        sides = {"side": side, "other": _other(side), "scale": side / _other(side)}
        return {
            "description": DESCRIPTION.format(**sides),
            "pipeline_tag": "image-classification",
            "example": EXAMPLE.format(**sides),
            "own_file": OWN_FILE.format(**sides),
            "limits": LIMITS,
            "data": {
                "name": "MNIST as images",
                "source": "rasbt/mnist-pngs",
                "split": "60,000 images for training, of which some are for validation, 10,000 "
                "for the test, as published",
            },
            "licences": {"weights": "Apache-2.0", "data": DATA_LICENCE},
        }


class ShuffledImages(ShuffledRows):
    """Shuffled batches of images, each moved by up to `shift` pixels along both axes."""

    def __init__(self, part, batch_size, seed, shift):
        super().__init__(part, batch_size, seed, lengths=1)
        self.shift = shift

    def augment(self, x, y, rng):
        images = x["inputs"]
        side, shift = images.shape[1], self.shift
        padded = np.pad(images, [(0, 0), (shift, shift), (shift, shift)])
        places = rng.integers(2 * shift + 1, size=(len(images), 2))
        moved = [
            image[i : i + side, j : j + side] for image, (i, j) in zip(padded, places, strict=True)
        ]
        return np.stack(moved)[..., None], y


def _square(rows):
    return rows.reshape(len(rows), 28, 28)


def _other(side):
    return SIDES[side == SIDES[0]]


def at_side(images, side):
    """Images of 28 x 28 pixels at another side, whose pixels are means."""
    parts = images.shape[1] // side
    if parts == 1:
        return images
    means = images.reshape(len(images), side, parts, side, parts).mean(axis=(2, 4))
    return means.round().astype(images.dtype)


def _cnn(num_classes, settings, scale):
    """A convolutional network of about as many layers, for images of any size."""
    layers = keras.layers
    inputs = keras.Input((None, None, 1))
    x = layers.Rescaling(scale)(inputs)
    for i in range(settings["num_layers"]):
        width, stride = settings["hidden_dim"] * 2 ** min(i, 1), 2 if i == 1 else 1
        x = layers.Conv2D(width, 3, stride, padding="same")(x)
        x = layers.Dropout(settings["dropout"])(keras.ops.relu(layers.BatchNormalization()(x)))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x), name="cnn")


RECIPE = MNISTImages()
