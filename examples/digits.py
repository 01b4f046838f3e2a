"""Trains an S4D classifier on handwritten digits, read pixel by pixel: recipe of `s4d_digits`.

    python examples/digits.py                          # seeds 0, 1, 2; ships seed 0
    python examples/digits.py --validate             # scores on 10 % of the training part

The test part is read once, after the last epoch.
"""

import argparse
import time
from pathlib import Path

import keras
import numpy as np
from tqdm.keras import TqdmCallback

import keras_ssm

EPOCHS = 60
BATCH = 64


class ShiftedDigits(keras.utils.PyDataset):
    """Shuffled batches of images, each moved by up to one pixel along both axes."""

    def __init__(self, x, y, seed):
        super().__init__()
        self.x, self.y = x, y
        self.rng = np.random.default_rng(seed)
        self.order = self.rng.permutation(len(x))

    def __len__(self):
        return len(self.x) // BATCH

    def __getitem__(self, index):
        rows = self.order[index * BATCH : (index + 1) * BATCH]
        images = np.pad(self.x[rows].reshape(-1, 8, 8), [(0, 0), (1, 1), (1, 1)])
        corners = self.rng.integers(0, 3, size=(len(rows), 2))
        moved = [image[i : i + 8, j : j + 8] for image, (i, j) in zip(images, corners, strict=True)]
        return np.stack(moved).reshape(-1, 64), self.y[rows]

    def on_epoch_end(self):
        self.order = self.rng.permutation(len(self.x))


def make_model(seed, steps):
    keras.utils.set_random_seed(seed)
    backbone = keras_ssm.models.SSMBackbone(
        keras_ssm.layers.S4D(state_dim=64, seed=seed), num_layers=4, hidden_dim=64, dropout=0.1
    )
    preprocessor = keras_ssm.models.SSMClassifierPreprocessor(scale=1 / 16, sequence_length=64)
    model = keras_ssm.models.SSMClassifier(backbone, num_classes=10, preprocessor=preprocessor)

    def cosine(peak):
        return keras.optimizers.schedules.CosineDecay(
            peak / 20, steps, warmup_target=peak, warmup_steps=steps // 20
        )

    model.compile(keras_ssm.optimizers.ssm_optimizer(cosine(1e-2), cosine(2e-3), weight_decay=0.05))
    return model


def train(seed, validate):
    (x, y), (x_test, y_test) = keras_ssm.datasets.digits(validation=validate)
    data = ShiftedDigits(x, y, seed)
    model = make_model(seed, steps=EPOCHS * len(data))
    bar = TqdmCallback(verbose=0, desc=f"seed {seed}")
    start = time.time()
    model.fit(data, epochs=EPOCHS, verbose=0, callbacks=[bar])
    score = model.evaluate(x_test, y_test, batch_size=500, verbose=0, return_dict=True)["accuracy"]
    print(f"seed {seed}: {score:.1%} of {len(x_test)} in {time.time() - start:.0f} s")
    return model, score


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--validate", action="store_true", help="score on 10 %% of the training part"
    )
    parser.add_argument("--out", type=Path, default=Path("presets/s4d_digits"))
    args = parser.parse_args()
    results = [train(seed, args.validate) for seed in args.seeds]
    if args.validate:
        return
    print(args.out, results)


if __name__ == "__main__":
    main()
