"""Reads a series as it arrives: in chunks, then sample by sample, and goes on after a restart.

    python examples/streaming.py                   # preset s4d_digits, one image as 64 pixels
    python examples/streaming.py --preset out/own_data --data series.npy

The state of a model is all that it remembers of what it has read. Its size does not grow with the
series, it can be written to a file, and whoever loads it goes on where another process stopped.
Every way gives the same logits as one pass over the whole series.

A step here runs operation by operation; docs/streaming.md compiles it, which is many times faster.
"""

import argparse
import contextlib
from pathlib import Path

import keras
import numpy as np

import keras_ssm


def inference():
    """PyTorch would otherwise keep every step for a gradient, and fill the memory."""
    if keras.config.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.inference_mode()


def read_chunks(model, series, size, state):
    """Reads pieces of up to `size` samples; returns the logits after the last, and the state."""
    for start in range(0, series.shape[1], size):
        piece = series[:, start : start + size]
        logits, state = model(piece, initial_state=state, return_state=True)
    return keras.ops.convert_to_numpy(logits), state


def read_samples(model, series, state):
    """Reads sample by sample; returns the logits after each, and the state."""
    systems = model.discretize()  # once, and not in every step
    history = []
    for sample in np.moveaxis(series, 1, 0):  # (batch, features)
        logits, state = model.step(sample, state, systems)
        history.append(keras.ops.convert_to_numpy(logits))
    return np.stack(history, axis=1), state


def save_state(path, state):
    """A state is a tree of tensors; its leaves go into one npz file."""
    np.savez(path, *map(keras.ops.convert_to_numpy, keras.tree.flatten(state)))


def load_state(path, model):
    with np.load(path) as file:
        leaves = [file[name] for name in file.files]
    return keras.tree.pack_sequence_as(model.get_initial_state(1), leaves)


def compare(what, logits, expected):
    error = np.abs(logits - expected).max() / np.abs(expected).max()
    print(f"{what}: differs from one pass by {error:.0e} of the largest logit")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="s4d_digits", help="name or directory (%(default)s)")
    parser.add_argument("--data", type=Path, help="npy of one series, (length, features)")
    parser.add_argument("--chunk", type=int, default=10, help="samples a chunk (default: 10)")
    parser.add_argument("--out", type=Path, default=Path("out/state.npz"), help="the saved state")
    args = parser.parse_args()

    model = keras_ssm.models.SSMClassifier.from_preset(args.preset)
    if args.data is None:
        (_, _), (images, labels) = keras_ssm.datasets.digits()  # comes with scikit-learn
        series, truth = images[:1], labels[0]
    else:
        series, truth = np.load(args.data)[None], "unknown"
    # What `fit` and `predict` do by themselves: scale, and add the axis of features.
    series = model.preprocessor(series)["inputs"]  # (1, length, features)
    length = series.shape[1]

    with inference():
        whole = keras.ops.convert_to_numpy(model(series))
        print(f"one pass over {length} samples: class {whole[0].argmax()}, in truth {truth}")

        start = model.get_initial_state(batch_size=1)
        logits, _ = read_chunks(model, series, args.chunk, start)
        compare(f"chunks of {args.chunk}", logits, whole)

        history, _ = read_samples(model, series, start)
        compare("sample by sample", history[:, -1], whole)
        for t in range(length // 4, length + 1, length // 4):
            print(f"  after {t} samples: class {history[0, t - 1].argmax()}")

        # The first half in chunks; then the state goes through a file, and single samples follow.
        _, state = read_chunks(model, series[:, : length // 2], args.chunk, start)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        save_state(args.out, state)
        state = load_state(args.out, model)
        history, _ = read_samples(model, series[:, length // 2 :], state)
        compare(f"continued from {args.out}", history[:, -1], whole)
        print(f"the state holds {sum(x.size for x in np.load(args.out).values())} numbers")


if __name__ == "__main__":
    main()
