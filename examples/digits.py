"""Reads handwritten digits pixel by pixel: data, model, fit, evaluate, stream, save, load.

    python examples/digits.py                          # a few minutes on a laptop
    python examples/digits.py --system lru --epochs 5

The images have 8 x 8 pixels from 0 to 16 and come with scikit-learn. A model reads one as a
sequence of 64 numbers. `keras-ssm train digits` trains the presets, such as `s4d_digits`: longer,
with images that are turned and stretched, over several seeds.
"""

import argparse
from pathlib import Path

import keras
import numpy as np

import keras_ssm
from keras_ssm import layers, models

SYSTEMS = {
    "s4": layers.S4,
    "s4d": layers.S4D,
    "s4ptd": layers.S4PTD,
    "s5": layers.S5,
    "s5ptd": layers.S5PTD,
    "lru": layers.LRU,
}


def make_model(system, width, seed):
    """Two residual blocks of a state-space layer, and the mean over the pixels."""
    mixer = SYSTEMS[system](state_dim=32, seed=seed)
    backbone = models.SSMBackbone(mixer, num_layers=2, hidden_dim=width, dropout=0.1)
    # The preprocessor belongs to the model: whoever loads it later passes pixels as they are.
    preprocessor = models.SequencePreprocessor(scale=1 / 16)
    return models.SSMClassifier(backbone, num_classes=10, preprocessor=preprocessor)


def drawn(image):
    """An image as lines of text."""
    return "\n".join("".join(" .:*#"[int(pixel) // 4] * 2 for pixel in row) for row in image)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--system", choices=SYSTEMS, default="s4d", help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--width", type=int, default=64, help="features inside (default: 64)")
    parser.add_argument("--out", type=Path, default=Path("out/digits"), help="%(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    args = parser.parse_args()

    (x, y), (x_test, y_test) = keras_ssm.datasets.digits()
    print(f"{len(x)} images to learn from, {len(x_test)} to test, {x.shape[1]} pixels each")

    keras.utils.set_random_seed(args.seed)
    model = make_model(args.system, args.width, args.seed)
    # A small learning rate for the systems inside, the other one for everything else. Both fall.
    steps = args.epochs * -(-len(x) // 32)
    rates = [keras.optimizers.schedules.CosineDecay(rate, steps) for rate in (1e-2, 2e-3)]
    model.compile(keras_ssm.optimizers.ssm_optimizer(*rates))
    model.fit(x, y, batch_size=32, epochs=args.epochs)
    scores = model.evaluate(x_test, y_test, batch_size=250, verbose=0, return_dict=True)
    print(f"accuracy on {len(x_test)} images that it has not seen: {scores['accuracy']:.1%}")

    # The same model while the pixels arrive: a line of 8 at a time, and an answer after each line.
    stream = model.stream()
    print(drawn(x_test[0].reshape(8, 8)))
    for line in range(8):
        logits = np.asarray(stream(x_test[0, 8 * line : 8 * line + 8]))[0, -1]
        print(f"after line {line + 1}: {logits.argmax()}", end=", " if line < 7 else "\n")
    print(f"in truth {y_test[0]}")

    model.save_to_preset(args.out)
    again = models.SSMClassifier.from_preset(args.out)
    before, after = (m.predict(x_test, batch_size=250, verbose=0) for m in (model, again))
    print(f"saved to {args.out} and loaded: answers {np.abs(after - before).max():.0e} apart")


if __name__ == "__main__":
    main()
