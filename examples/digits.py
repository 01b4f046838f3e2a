"""Trains a classifier of handwritten digits, read pixel by pixel: recipe of `<system>_digits`.

    python examples/digits.py --system s5                # trains seeds 0, 1, 2 and saves seed 0
    python examples/digits.py --system s5 --validate     # scores on 10 % of the training part

The settings below were chosen with `--validate`, on S4D, and serve every system. The test part is
read once, after training.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import keras
import numpy as np
from scipy import ndimage
from tqdm.keras import TqdmCallback

import keras_ssm

EPOCHS = 100
BATCH = 64
SCALE = 1 / 16  # pixels are 0 to 16

SYSTEMS = {
    "s4": keras_ssm.layers.S4,
    "s4d": keras_ssm.layers.S4D,
    "s4ptd": keras_ssm.layers.S4PTD,
    # A softmax over the 64 pixels that every image has can also be read pixel by pixel.
    "dss": partial(keras_ssm.layers.DSS, softmax_length=64),
    "s5": keras_ssm.layers.S5,
    "s5ptd": keras_ssm.layers.S5PTD,
}

PAPERS = {
    "s4": """\
S4: A. Gu, K. Goel, C. Ré, [Efficiently Modeling Long Sequences with Structured State
Spaces](https://arxiv.org/abs/2111.00396), 2022.""",
    "s4d": """\
S4D: A. Gu, A. Gupta, K. Goel, C. Ré, [On the Parameterization and Initialization of
Diagonal State Space Models](https://arxiv.org/abs/2206.11893), 2022.""",
    "s4ptd": """\
S4-PTD: A. Yu, A. Nigmetov, D. Morozov, M. W. Mahoney, N. B. Erichson, [Robustifying
State-space Models for Long Sequences via Approximate
Diagonalization](https://arxiv.org/abs/2310.01698), 2024.""",
    "dss": """\
DSS: A. Gupta, A. Gu, J. Berant, [Diagonal State Spaces are as Effective as Structured State
Spaces](https://arxiv.org/abs/2203.14343), 2022.""",
    "s5": """\
S5: J. T. H. Smith, A. Warrington, S. W. Linderman, [Simplified State Space Layers for
Sequence Modeling](https://arxiv.org/abs/2208.04933), 2023.""",
    "s5ptd": """\
S5-PTD: A. Yu, A. Nigmetov, D. Morozov, M. W. Mahoney, N. B. Erichson, [Robustifying
State-space Models for Long Sequences via Approximate
Diagonalization](https://arxiv.org/abs/2310.01698), 2024.""",
}

CARD = """\
---
library_name: keras_ssm
license: apache-2.0
tags: [keras, keras-hub, state-space-model, {system}, sequence-classification]
datasets: [optical-recognition-of-handwritten-digits]
metrics: [accuracy]
---

# {name}

A classifier of handwritten digits that reads an image pixel by pixel with {kind} layers,
{parameters:,} parameters. Small enough to learn from: it shows loading, streaming, fine-tuning and
saving.

```python
import keras_ssm
from sklearn.datasets import load_digits

digits = load_digits()
model = keras_ssm.models.SSMClassifier.from_preset("{name}")
print(model.predict(digits.data[:5]).argmax(axis=-1), digits.target[:5])
```

## Score

{scores}. The first seed is the one that is published.

## Training

`{command}`: {epochs} epochs on 1297 images, each time a little turned, stretched,
sheared and moved, with `ssm_optimizer` and a cosine schedule. Settings were chosen on 10 % of the
training part. The 500
test images are `train_test_split(test_size=500, stratify=y, random_state=0)`, read once.

## Limits

Inputs are 64 pixels from 0 to 16, row after row, dark on light as scikit-learn ships them. It
knows no other images, and its probabilities are not calibrated.

## Licences

Weights: Apache-2.0. Data: Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak,
UCI Machine Learning Repository, CC BY 4.0, as shipped by scikit-learn.

## Citation

{paper}
"""


class WarpedDigits(keras.utils.PyDataset):
    """Shuffled batches of images, each a little turned, stretched, sheared and moved."""

    def __init__(self, x, y, seed):
        super().__init__()
        self.x, self.y = x, y
        self.rng = np.random.default_rng(seed)
        self.order = self.rng.permutation(len(x))

    def __len__(self):
        return len(self.x) // BATCH

    def __getitem__(self, index):
        rows = self.order[index * BATCH : (index + 1) * BATCH]
        images = [self.warp(image) for image in self.x[rows].reshape(-1, 8, 8)]
        return np.stack(images).reshape(-1, 64), self.y[rows]

    def on_epoch_end(self):
        self.order = self.rng.permutation(len(self.x))

    def warp(self, image):
        angle, shear, *stretch = self.rng.normal(0.0, 0.1, size=4)
        sine, cosine = np.sin(angle), np.cos(angle)
        matrix = np.array([[cosine, shear - sine], [sine, cosine]]) * np.exp(stretch)
        center = np.array([3.5, 3.5])
        offset = center - matrix @ center + self.rng.uniform(-1.0, 1.0, size=2)
        return ndimage.affine_transform(image, matrix, offset, order=1)


def make_model(system, seed, steps):
    keras.utils.set_random_seed(seed)
    backbone = keras_ssm.models.SSMBackbone(
        SYSTEMS[system](state_dim=64, seed=seed), num_layers=4, hidden_dim=64, dropout=0.2
    )
    preprocessor = keras_ssm.models.SSMClassifierPreprocessor(scale=SCALE)
    model = keras_ssm.models.SSMClassifier(backbone, num_classes=10, preprocessor=preprocessor)

    def cosine(peak):
        return keras.optimizers.schedules.CosineDecay(
            peak / 20, steps, warmup_target=peak, warmup_steps=steps // 20
        )

    model.compile(keras_ssm.optimizers.ssm_optimizer(cosine(1e-2), cosine(2e-3)))
    return model


def train(system, seed, validate):
    (x, y), (x_test, y_test) = keras_ssm.datasets.digits(validation=validate)
    data = WarpedDigits(x, y, seed)
    model = make_model(system, seed, steps=EPOCHS * len(data))
    start = time.time()
    bar = TqdmCallback(verbose=0, desc=f"{system}, seed {seed}")
    model.fit(data, epochs=EPOCHS, verbose=0, callbacks=[bar])
    score = model.evaluate(x_test, y_test, batch_size=500, verbose=0, return_dict=True)["accuracy"]
    print(
        f"{system}, seed {seed}: {score:.2%} of {len(x_test)} in {time.time() - start:.0f} s",
        flush=True,
    )
    return model, score


def save(model, system, scores, directory):
    command = f"python examples/digits.py --system {system}"
    seeds = {str(seed): round(score, 4) for seed, score in scores.items()}
    info = {
        "name": directory.name,
        "data": {
            "name": "handwritten digits",
            "source": "sklearn.datasets.load_digits",
            "split": "train_test_split(test_size=500, stratify=y, random_state=0)",
        },
        "licences": {"weights": "Apache-2.0", "data": "CC BY 4.0 (UCI, Alpaydin and Kaynak 1998)"},
        "scores": [
            {
                "metric": "accuracy on 500 test digits",
                "value": next(iter(seeds.values())),
                "seeds": seeds,
                "command": command,
            }
        ],
    }
    model.save_to_preset(directory, info=info)
    write_card(directory, system)
    print(f"saved to {directory}")


def write_card(directory, system):
    """Writes the model card from what `preset.json` says."""
    facts = json.loads((directory / "preset.json").read_text(encoding="utf-8"))
    score = facts["scores"][0]
    listed = ", ".join(f"{value:.1%} (seed {seed})" for seed, value in score["seeds"].items())
    card = CARD.format(
        name=directory.name,
        system=system,
        kind=facts["system"],
        command=score["command"],
        paper=PAPERS[system],
        parameters=facts["parameters"],
        epochs=EPOCHS,
        scores=f"Accuracy on 500 test digits: {listed}",
    )
    (directory / "README.md").write_text(card, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--system", choices=SYSTEMS, default="s4d")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--validate", action="store_true", help="score on 10 %% of the training part"
    )
    parser.add_argument("--out", type=Path, help="default: presets/<system>_digits")
    args = parser.parse_args()
    models = {seed: train(args.system, seed, args.validate) for seed in args.seeds}
    if not args.validate:
        scores = {seed: score for seed, (_, score) in models.items()}
        out = args.out or Path("presets") / f"{args.system}_digits"
        save(models[args.seeds[0]][0], args.system, scores, out)


if __name__ == "__main__":
    main()
