"""A Keras model of your own with layers of keras_ssm: it estimates numbers from a series.

    python examples/custom_model.py
    python examples/custom_model.py --system s5 --epochs 20

The task is a regression: from a noisy damped oscillation of unequal length to its frequency and its
damping. The functional model below mixes layers of Keras and of keras_ssm. Padding travels
through it as a Keras mask, so that what stands there changes nothing.
"""

import argparse
from pathlib import Path

import keras
import numpy as np

import keras_ssm
from keras_ssm.layers import S4, S4D, S5, SequencePooling, SSMBlock

PAD = -1000.0  # no series has this value
SYSTEMS = {"s4": S4, "s4d": S4D, "s5": S5}
NAMES = ("frequency in Hz", "damping in 1/s")


def oscillations(count, seed):
    """A list of series, `(length, 1)`, 20 samples a second; their frequency and damping."""
    rng = np.random.default_rng(seed)
    y = rng.uniform([0.3, 0.1], [2.0, 1.0], size=(count, 2))
    rows = []
    for frequency, damping in y:
        t = np.arange(rng.integers(60, 121)) / 20
        wave = np.cos(2 * np.pi * frequency * t + rng.uniform(0, 2 * np.pi))
        row = np.exp(-damping * t) * wave + 0.05 * rng.normal(size=len(t))
        rows.append(row[:, None].astype("float32"))
    return rows, y.astype("float32")


def pad(rows, length=None):
    """One array `(rows, length, 1)`, with `PAD` behind the end of a series."""
    return keras.utils.pad_sequences(
        rows, maxlen=length, dtype="float32", padding="post", value=PAD
    )


def make_model(system, width, seed, scale):
    """Residual blocks that read in both directions, the mean over the valid steps, a head."""
    x = inputs = keras.Input((None, 1), name="series")
    x = keras.layers.Masking(PAD)(x)
    x = keras.layers.Dense(width)(x)
    for i in range(2):
        mixer = SYSTEMS[system](state_dim=16, bidirectional=True, seed=seed + i)
        x = SSMBlock(mixer, dropout=0.05, name=f"block_{i}")(x)
    x = SequencePooling("mean")(x)
    x = keras.layers.Dense(2)(x)
    outputs = keras.layers.Rescaling(scale.std(axis=0), scale.mean(axis=0), name="units")(x)
    return keras.Model(inputs, outputs, name="gauge")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--system", choices=SYSTEMS, default="s4d", help="default: %(default)s")
    parser.add_argument("--rows", type=int, default=1000, help="series to train on (default: 1000)")
    parser.add_argument("--epochs", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--width", type=int, default=32, help="features inside (default: 32)")
    parser.add_argument("--out", type=Path, default=Path("out/gauge.keras"), help="%(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    args = parser.parse_args()

    keras.utils.set_random_seed(args.seed)
    rows, y = oscillations(args.rows, seed=1)
    test_rows, y_test = oscillations(200, seed=2)
    x, x_test = pad(rows), pad(test_rows)

    model = make_model(args.system, args.width, args.seed, y)
    # A small learning rate for the systems inside, the other one for everything else.
    optimizer = keras_ssm.optimizers.ssm_optimizer(learning_rate=5e-3, ssm_learning_rate=1e-3)
    model.compile(optimizer, loss="mse", metrics=["mae"])
    model.summary()
    model.fit(x, y, batch_size=32, epochs=args.epochs, validation_split=0.1)

    found = model.predict(x_test, verbose=0)
    for name, error, spread in zip(
        NAMES, np.abs(found - y_test).mean(axis=0), y_test.std(axis=0), strict=True
    ):
        print(f"{name}: mean error {error:.3f}, where the values spread by {spread:.3f}")

    longer = model.predict(pad(test_rows, length=200), verbose=0)
    print(f"200 steps in place of {x_test.shape[1]}: {np.abs(longer - found).max():.0e} apart")

    args.out.parent.mkdir(parents=True, exist_ok=True)
    model.save(args.out)
    again = keras.models.load_model(args.out)
    print(
        f"saved to {args.out}: {np.abs(again.predict(x_test, verbose=0) - found).max():.0e} apart"
    )


if __name__ == "__main__":
    main()
