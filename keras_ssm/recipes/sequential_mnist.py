"""Handwritten digits, read pixel by pixel: 784 steps, as they lie or permuted."""

import gzip

import numpy as np

from keras_ssm.training import S4_FAMILY, ClassificationRecipe, Part, Splits

DESCRIPTION = (
    "A classifier of handwritten digits that reads an image pixel by pixel, row after row. It "
    "shows streaming: an answer after every pixel."
)

EXAMPLE = """\
import numpy as np

images = np.zeros((2, 784), "uint8")  # 28 x 28 pixels from 0 to 255, row after row
print(model.predict(images, verbose=0).argmax(axis=-1))"""

OWN_FILE = """\
import numpy as np
from PIL import Image

image = Image.open("digit.png").convert("L").resize((28, 28))  # a light digit on dark
pixels = np.asarray(image).reshape(1, 784){order}
print(model.predict(pixels, verbose=0).argmax(axis=-1))"""

ORDER = "[:, np.random.RandomState(92916).permutation(784)]"

LIMITS = "Inputs are 784 pixels from 0 to 255, light on dark as MNIST has them. It knows no others."

STRIDED = (
    " A step of the model reads {stride} new pixels at once, which makes training so much quicker: "
    "it answers after every {stride} pixels."
)

PERMUTED = " They come in the order `np.random.RandomState(92916).permutation(784)`."

DATA_LICENCE = "MNIST, Y. LeCun and C. Cortes, CC BY-SA 3.0"

# Settings that the baselines lack.
SYSTEM_SETTINGS = ("state_dim", "pooling", "ssm_learning_rate")
SYSTEM_SETTINGS += ("encoder", "encoder_width", "encoder_stride")


class SequentialMNIST(ClassificationRecipe):
    """`permuted=true` shuffles the pixels, and `bidirectional=true` then helps.

    `encoder=conv encoder_width=8 encoder_stride=4` reads four new pixels in each step, which makes
    training on a CPU about four times as quick. A step reads one pixel by default.

    The defaults are for two cores and an hour. On a GPU take `num_layers=4 hidden_dim=128
    batch_size=64 epochs=30`: S4D then had 99.6 % of the test images in five minutes, and with
    `permuted=true bidirectional=true` 98.0 % in six.
    """

    name = "sequential_mnist"
    classes = tuple("0123456789")
    scale = 1 / 255
    picture_shape = 28, 28
    settings = {
        "permuted": False,
        "num_layers": 3,
        "hidden_dim": 64,
        "state_dim": 64,
        "bidirectional": False,
        "encoder": "linear",
        "encoder_width": 1,
        "encoder_stride": 1,
        "dropout": 0.1,
        "pooling": "mean",
        "epochs": 15,
        "batch_size": 50,
        "learning_rate": 1e-2,
        "ssm_learning_rate": 1e-3,
        "weight_decay": 0.01,
        "warmup": 0.05,
        "validation": 0.1,
        "select": "accuracy",
        "patience": 0,
    }
    systems = {
        **S4_FAMILY,
        "lstm": {"num_layers": 1, "learning_rate": 1e-3, **dict.fromkeys(SYSTEM_SETTINGS)},
        # Eight layers see 1,021 pixels, which is the whole image.
        "cnn": {
            "num_layers": 8,
            "hidden_dim": 32,
            "bidirectional": None,
            "learning_rate": 1e-3,
            **dict.fromkeys(SYSTEM_SETTINGS),
        },
    }
    baselines = ("lstm", "cnn")

    def read(self, directory):
        return read_mnist(directory)

    def arrange(self, splits, settings):
        splits = super().arrange(splits, settings)
        if not settings["permuted"]:
            return splits
        order = np.random.RandomState(92916).permutation(784)  # one for all runs
        return Splits(*(part and Part(part.x[:, order], part.y) for part in splits))

    def preset_name(self, system, settings):
        return f"{system}_permuted_mnist" if settings["permuted"] else f"{system}_{self.name}"

    def facts(self, system, settings):
        stride = settings.get("encoder_stride", 1)
        return {
            "description": DESCRIPTION,
            "pipeline_tag": "image-classification",
            "tags": ["sequence-classification"],
            "example": EXAMPLE,
            "own_file": OWN_FILE.format(order=ORDER * settings["permuted"]),
            "limits": LIMITS
            + PERMUTED * settings["permuted"]
            + STRIDED.format(stride=stride) * (stride > 1),
            "data": {
                "name": "permuted MNIST" if settings["permuted"] else "sequential MNIST",
                "source": "rasbt/mnist-pngs",
                "split": "60,000 images for training, of which some are for validation, 10,000 "
                "for the test, as published",
            },
            "licences": {"weights": "Apache-2.0", "data": DATA_LICENCE},
        }


def read_mnist(directory):
    """The parts of MNIST, with rows of 784 pixels."""
    train, test = (_rows(directory / "mnist", part) for part in ("train", "t10k"))
    return Splits(train, None, test)


def _rows(folder, part):
    """The images of a part as rows of pixels, and their labels, from the files of MNIST."""
    pixels, labels = (
        np.frombuffer(_bytes(folder / f"{part}-{kind}-ubyte.gz"), np.uint8, offset=header)
        for kind, header in (("images-idx3", 16), ("labels-idx1", 8))
    )
    return Part(pixels.reshape(len(labels), 784), labels.astype("int64"))


def _bytes(path):
    if not path.is_file():
        raise ValueError(
            f"The data must lie in '{path}': the file of MNIST of that name. Received: no such file"
        )
    return gzip.decompress(path.read_bytes())


RECIPE = SequentialMNIST()
