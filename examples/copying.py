"""Teaches a stack of LRUs to copy: it reads symbols, waits, and says them again when asked.

    python examples/copying.py
    python examples/copying.py --system s5 --symbols 16 --pattern 12

Nothing but the state carries the symbols over the wait. An LRU starts with eigenvalues on a ring
just inside the unit circle, so that it remembers from the first step of training on. The trained
model then copies one sequence symbol by symbol, as a stream.
"""

import argparse
from pathlib import Path

import keras
import numpy as np

import keras_ssm
from keras_ssm.layers import LRU, S4D, S5

SYSTEMS = {"lru": LRU, "s4d": S4D, "s5": S5}
NO_ANSWER = -1  # labels of steps that do not count


def sequences(count, symbols, pattern, wait, seed):
    """Token ids and labels, `(count, 2 * pattern + wait)`.

    The symbols come first, then blanks, then a question mark, at which the first one is due.
    """
    rng = np.random.default_rng(seed)
    blank, question = symbols, symbols + 1
    said = rng.integers(symbols, size=(count, pattern))
    x = np.full((count, 2 * pattern + wait), blank, "int32")
    x[:, :pattern] = said
    x[:, pattern + wait] = question
    y = np.full(x.shape, NO_ANSWER, "int32")
    y[:, pattern + wait :] = said
    return x, y


def make_model(system, symbols, width, state_dim, seed):
    """Two blocks as the paper has them, and the probabilities of a symbol at every step."""
    ring = {"r_min": 0.9, "r_max": 0.999} if system == "lru" else {}
    backbone = keras_ssm.models.SSMBackbone(
        SYSTEMS[system](state_dim=state_dim, seed=seed, **ring),
        num_layers=2,
        hidden_dim=width,
        vocabulary_size=symbols + 2,
        activation="gelu_tanh",
        gate="full_glu",
        prenorm=True,
        final_norm="layer",
    )
    return keras_ssm.models.SSMClassifier(backbone, num_classes=symbols, pooling=None)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--system", choices=SYSTEMS, default="lru", help="default: %(default)s")
    parser.add_argument("--symbols", type=int, default=8, help="kinds (default: %(default)s)")
    parser.add_argument("--pattern", type=int, default=10, help="how many (default: %(default)s)")
    parser.add_argument("--wait", type=int, default=8, help="steps between (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=8192, help="to learn from (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--width", type=int, default=64, help="features (default: %(default)s)")
    parser.add_argument("--state-dim", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("out/copying.keras"), help="%(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    args = parser.parse_args()

    keras.utils.set_random_seed(args.seed)
    task = args.symbols, args.pattern, args.wait
    x, y = sequences(args.rows, *task, seed=1)
    x_test, y_test = sequences(500, *task, seed=2)
    model = make_model(args.system, args.symbols, args.width, args.state_dim, args.seed)
    steps = args.epochs * args.rows // 64
    rate = keras.optimizers.schedules.CosineDecay(4e-3, steps)
    model.compile(
        keras_ssm.optimizers.ssm_optimizer(rate, 2e-3, weight_decay=0.0), ignore_class=NO_ANSWER
    )
    model.fit(x, y, batch_size=64, epochs=args.epochs, verbose=2)

    answers = model.predict(x_test, verbose=0)[:, -args.pattern :].argmax(axis=-1)
    right = answers == y_test[:, -args.pattern :]
    print(
        f"{right.mean():.2%} of the symbols of {len(x_test)} new sequences are right, "
        f"{right.all(axis=1).mean():.2%} of the sequences as a whole"
    )

    stream = model.stream()
    said = [int(np.argmax(stream(x_test[:1, t : t + 1]))) for t in range(x_test.shape[1])]
    print(f"read one by one: {x_test[0, : args.pattern].tolist()}")
    print(f"said after the wait: {said[-args.pattern :]}")

    args.out.parent.mkdir(parents=True, exist_ok=True)
    model.save(args.out)
    print(f"saved to {args.out}")


if __name__ == "__main__":
    main()
