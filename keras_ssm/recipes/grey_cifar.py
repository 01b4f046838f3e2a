"""Grey photographs of ten kinds of things, read pixel by pixel: 1,024 steps. For a GPU."""

import numpy as np

from keras_ssm.training import S4_FAMILY, ClassificationRecipe, Part, Splits

DESCRIPTION = (
    "A classifier of small grey photographs that reads 1,024 pixels one after the other, row after "
    "row: the task Image of the Long Range Arena. It shows dependences over long distances."
)

EXAMPLE = """\
import numpy as np

images = np.zeros((2, 1024), "uint8")  # 32 x 32 grey pixels from 0 to 255, row after row
print(model.predict_classes(images, verbose=0))"""

OWN_FILE = """\
import numpy as np
from PIL import Image

image = Image.open("photo.jpg").convert("L").resize((32, 32))
print(model.predict_classes(np.asarray(image, "uint8").reshape(1, 1024), verbose=0))"""

LIMITS = (
    "Inputs are 1,024 grey pixels from 0 to 255 of a photograph that shows one thing, as CIFAR-10 "
    "has them. It knows ten kinds of things, and takes every other for one of these."
)

DATA_LICENCE = (
    "CIFAR-10, A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009); its "
    "authors state no licence"
)

# Settings that the baselines lack.
SYSTEM_SETTINGS = ("state_dim", "pooling", "ssm_learning_rate")


class GreyCIFAR(ClassificationRecipe):
    """For a GPU: two cores would take days, and run it with `--limit` alone.

    With the defaults S4D had 84.0 % of the test images after 38 epochs in six minutes of an H100,
    its accuracy still rising. Published: 88.2 % (S4D), 88.0 % (S5), 42.4 % (Transformer).
    """

    name = "grey_cifar"
    classes = ("airplane", "automobile", "bird", "cat", "deer")
    classes += ("dog", "frog", "horse", "ship", "truck")
    scale = 1 / 255
    picture_shape = 32, 32
    picture_colors = "gray"  # photographs
    settings = {
        "num_layers": 4,
        "hidden_dim": 192,
        "state_dim": 64,
        "bidirectional": True,
        "dropout": 0.15,
        "pooling": "mean",
        "epochs": 38,
        "batch_size": 64,
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
        "cnn": {"bidirectional": None, "learning_rate": 1e-3, **dict.fromkeys(SYSTEM_SETTINGS)},
    }
    baselines = ("lstm", "cnn")

    def read(self, directory):
        folder = directory / "cifar10_grey"
        files = [_arrays(folder / f"cifar10_grey_{i}.npz") for i in (1, 2)]
        x, y = (np.concatenate([file[name] for file in files]) for name in ("x", "y"))
        last = files[-1]
        return Splits(_part(x, y), None, _part(last["test_x"], last["test_y"]))

    def facts(self, system, settings):
        return {
            "description": DESCRIPTION,
            "pipeline_tag": "image-classification",
            "tags": ["sequence-classification"],
            "example": EXAMPLE,
            "own_file": OWN_FILE,
            "limits": LIMITS,
            "data": {
                "name": "CIFAR-10 in grey",
                "source": "cyizhuo/CIFAR-10-dataset",
                "split": "50,000 images for training, of which some are for validation, 10,000 "
                "for the test, as published",
            },
            "licences": {"weights": "Apache-2.0", "data": DATA_LICENCE},
        }


def _arrays(path):
    if not path.is_file():
        raise ValueError(
            f"The data must lie in '{path}': grey images of CIFAR-10 as arrays `x` and `y`, and "
            "`test_x` and `test_y` in the second file. Received: no such file"
        )
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def _part(x, y):
    return Part(x.reshape(len(x), 1024), y.astype("int64"))


RECIPE = GreyCIFAR()
