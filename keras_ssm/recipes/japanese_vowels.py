"""Which of 9 men says two vowels: 12 features, 7 to 29 steps, 270 rows to learn from."""

import gzip

import numpy as np

from keras_ssm.training import S4_FAMILY, ClassificationRecipe, Part, Splits

DESCRIPTION = (
    "A classifier of nine speakers by two vowels that they say. Its rows have different lengths, "
    "which it reads with a mask: it shows variable length{streaming} and fine-tuning."
)

EXAMPLE = """\
import numpy as np

rows = [np.zeros((20, 12), "float32"), np.zeros((9, 12), "float32")]
print(model.predict(rows, verbose=0).argmax(axis=-1))"""

OWN_FILE = """\
import numpy as np

# A line for each frame of a vowel, with its 12 LPC cepstrum coefficients.
frames = np.loadtxt("vowel.csv", delimiter=",", ndmin=2)
print(model.predict([frames], verbose=0).argmax(axis=-1))"""

LIMITS = (
    "Inputs are 12 LPC cepstrum coefficients a frame, as the data have them. It tells nine men "
    "apart, who all spoke in the training part, and knows no other voice."
)

DATA_LICENCE = (
    "Japanese Vowels, M. Kudo, J. Toyama and M. Shimbo (1999), UCI Machine Learning Repository, "
    "CC BY 4.0"
)


# Settings that the baselines lack.
SYSTEM_SETTINGS = ("state_dim", "dt_min", "dt_max", "pooling", "ssm_learning_rate")


class JapaneseVowels(ClassificationRecipe):
    """Small classifiers of short rows. Set `validation=0.2` to choose settings."""

    name = "japanese_vowels"
    classes = tuple(f"speaker {i}" for i in range(1, 10))
    input_dim = 12
    settings = {
        "num_layers": 2,
        "hidden_dim": 64,
        "state_dim": 64,
        "bidirectional": False,
        "dt_min": 1e-3,
        "dt_max": 1e-1,
        "dropout": 0.3,
        "pooling": "mean",
        "epochs": 100,
        "batch_size": 32,
        "lengths": 2,
        "learning_rate": 4e-3,
        "ssm_learning_rate": 1e-3,
        "weight_decay": 0.05,
        "warmup": 0.1,
        "validation": 0.0,
        "select": "last",
        "patience": 0,
    }
    systems = {
        **S4_FAMILY,
        "lstm": {"num_layers": 1, **dict.fromkeys(SYSTEM_SETTINGS)},
    }
    baselines = ("lstm",)

    def read(self, directory):
        folder = directory / self.name
        return Splits(
            _rows(folder / "JapaneseVowels_TRAIN.ts.gz"),
            None,
            _rows(folder / "JapaneseVowels_TEST.ts.gz"),
        )

    def facts(self, system, settings):
        return {
            "description": DESCRIPTION.format(
                streaming="" if settings["bidirectional"] else ", streaming"
            ),
            "pipeline_tag": "audio-classification",
            "example": EXAMPLE,
            "own_file": OWN_FILE,
            "limits": LIMITS,
            "data": {
                "name": "Japanese Vowels",
                "source": "aeon-toolkit/aeon, UCI",
                "split": "270 rows for training, 370 for the test, as published",
            },
            "licences": {"weights": "Apache-2.0", "data": DATA_LICENCE},
        }


def _rows(path):
    """The rows of a file in the format of sktime and aeon: features by ":", steps by ","."""
    if not path.is_file():
        raise ValueError(
            f"The data must lie in '{path}': the file of aeon-toolkit/aeon, compressed by gzip. "
            "Received: no such file"
        )
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    x, y = [], []
    for line in lines[lines.index("@data") + 1 :]:
        *features, label = line.split(":")
        x.append(np.array([row.split(",") for row in features], "float32").T)
        y.append(int(label) - 1)
    return Part(x, np.array(y))


RECIPE = JapaneseVowels()
