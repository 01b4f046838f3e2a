"""Trains a classifier on series of your own: build, fit, evaluate, save, load, predict.

    python examples/own_data.py                    # two kinds of damped oscillations, made here
    python examples/own_data.py --data series.csv  # columns: series,label,feature,feature,...
    python examples/own_data.py --data series.npz  # x (rows, length, features), y, lengths

Series may have any number of features and each its own length. In a CSV file the lines of one
series have the same `series` and `label`, and follow each other in time. In an npz file `lengths`
says how many steps of each row of `x` are real; without it all of them are.
"""

import argparse
import csv
from pathlib import Path

import keras
import numpy as np

import keras_ssm


def oscillations(count, seed):
    """Pendulums slowed down by air or by a dry bearing: position in mm, speed in mm/s."""
    rng = np.random.default_rng(seed)
    rows, labels = [], []
    for label in rng.choice(["air", "bearing"], size=count):
        t = 0.05 * np.arange(rng.integers(60, 121))  # 3 to 6 seconds
        end, phase = rng.uniform(3, 5), rng.uniform(0, 2 * np.pi)
        size = np.exp(-3 * t / end) if label == "air" else np.maximum(1 - t / end, 0)
        position = 20 * size * np.cos(rng.uniform(5, 8) * t + phase)
        row = np.stack([position, np.gradient(position, t)], axis=1)
        rows.append(row + rng.normal(size=row.shape))
        labels.append(label)
    return rows, np.array(labels)


def read(path):
    """Returns the rows, a list of arrays `(length, features)`, and the label of each."""
    if path.suffix == ".npz":
        with np.load(path) as data:
            lengths = (
                data["lengths"] if "lengths" in data else [data["x"].shape[1]] * len(data["x"])
            )
            return [row[:n] for row, n in zip(data["x"], lengths, strict=True)], data["y"]
    series = {}
    with path.open(newline="", encoding="utf-8") as file:
        for name, label, *features in list(csv.reader(file))[1:]:
            series.setdefault((name, label), []).append([float(value) for value in features])
    return [np.array(row) for row in series.values()], np.array([label for _, label in series])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a .csv or .npz file (default: made here)")
    parser.add_argument(
        "--out", type=Path, default=Path("out/own_data"), help="default: %(default)s"
    )
    parser.add_argument("--epochs", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--width", type=int, default=32, help="features inside (default: 32)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    args = parser.parse_args()

    # Data: a list of arrays of unequal length, and one label each. A quarter is kept for the test.
    rows, labels = oscillations(400, args.seed) if args.data is None else read(args.data)
    classes, y = np.unique(labels, return_inverse=True)
    order = np.random.default_rng(args.seed).permutation(len(rows))
    test, train = np.split(order, [len(rows) // 4])

    # Features of different units are brought to the same size, by what the training part says.
    steps = np.concatenate([rows[i] for i in train])
    mean, std = steps.mean(axis=0), steps.std(axis=0) + 1e-12
    x = [((row - mean) / std).astype("float32") for row in rows]
    x_train, y_train = [x[i] for i in train], y[train]
    x_test, y_test = [x[i] for i in test], y[test]

    # Model. `dt_min` and `dt_max` say for how many steps a feature remembers, from 2 / dt.
    keras.utils.set_random_seed(args.seed)
    longest = max(len(row) for row in rows)
    backbone = keras_ssm.models.SSMBackbone(
        keras_ssm.layers.S4D(state_dim=16, dt_min=2 / longest, dt_max=0.5, seed=args.seed),
        num_layers=2,
        hidden_dim=args.width,
        input_dim=x[0].shape[1],
    )
    model = keras_ssm.models.SSMClassifier(backbone, num_classes=len(classes))
    model.compile(keras_ssm.optimizers.ssm_optimizer(1e-2, 1e-3))
    print(
        f"{len(rows)} series of {x[0].shape[1]} features, up to {longest} steps: {classes.tolist()}"
    )

    model.fit(x_train, y_train, batch_size=16, epochs=args.epochs, validation_split=0.1)
    found = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    print(f"accuracy on {len(test)} series that it has not seen: {found['accuracy']:.1%}")

    # Whoever loads the model needs the names of the classes and the scale of the features too.
    facts = {"classes": classes.tolist(), "mean": mean.tolist(), "std": std.tolist()}
    model.save_to_preset(args.out, info=facts)

    again = keras_ssm.models.SSMClassifier.from_preset(args.out)
    facts = keras_ssm.presets.read(args.out)
    new = [(rows[i] - facts["mean"]) / facts["std"] for i in test[:3]]
    for i, logits in zip(test, again.predict(new, verbose=0), strict=False):
        probability = np.exp(logits - np.logaddexp.reduce(logits))
        best = probability.argmax()
        print(f"{facts['classes'][best]} ({probability[best]:.0%}), in truth {labels[i]}")
    print(f"saved to {args.out}")


if __name__ == "__main__":
    main()
