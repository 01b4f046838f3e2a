"""Follows a state that every symbol changes: parity of bits, and products of permutations.

    python examples/state_tracking.py
    python examples/state_tracking.py --task s3 --system deltaproduct mamba

After every symbol the model says where all symbols so far have led: whether the number of ones is
odd (`parity`), or which permutation of three things their product is (`s3`). A system whose matrix
is diagonal, with entries from 0 to 1, keeps or forgets, and cannot turn anything around. DeltaNet
with `neg_eigenvalues` reflects its state, which is parity. Two reflections a step are a rotation,
and make all of S3. What is learned from 64 symbols holds for 256.
"""

import argparse
from itertools import permutations
from pathlib import Path

import keras
import numpy as np

import keras_ssm
from keras_ssm.layers import S4D, S5, DeltaNet, Mamba

HEADS = {"heads": 4, "head_dim": 8, "conv_width": None}  # keys of one symbol are always the same
SYSTEMS = {
    "deltanet": lambda seed: DeltaNet(**HEADS, neg_eigenvalues=True, seed=seed),
    "deltaproduct": lambda seed: DeltaNet(**HEADS, householders=2, neg_eigenvalues=True, seed=seed),
    "positive": lambda seed: DeltaNet(**HEADS, seed=seed),  # beta up to 1: no reflections
    "s4d": lambda seed: S4D(state_dim=32, seed=seed),
    "s5": lambda seed: S5(state_dim=32, seed=seed),
    "mamba": lambda seed: Mamba(state_dim=16, seed=seed),
}
SHORTEST, LAST_ROUNDS = 4, 3
TASKS = {"parity": ["deltanet", "s4d", "mamba"], "s3": ["deltaproduct", "s5", "mamba"]}


def group(task):
    """The table of products: row a, column b holds where b leads from a."""
    elements = list(permutations(range(2 if task == "parity" else 3)))
    return np.array([[elements.index(tuple(b[i] for i in a)) for b in elements] for a in elements])


def sequences(task, count, length, seed):
    """Symbols and where they have led, both `(count, length)`."""
    table = group(task)
    x = np.random.default_rng(seed).integers(len(table), size=(count, length))
    y = np.empty_like(x)
    state = np.zeros(count, int)
    for t in range(length):
        state = table[state, x[:, t]]
        y[:, t] = state
    return x.astype("int32"), y.astype("int32")


def make_model(system, symbols, seed):
    """One block, so that all of the tracking is the mixer's."""
    sizes = {"num_layers": 1, "hidden_dim": 32, "vocabulary_size": symbols}
    norms = {"prenorm": True, "final_norm": "layer"}
    backbone = keras_ssm.models.SSMBackbone(SYSTEMS[system](seed), **sizes, **norms)
    return keras_ssm.models.SSMClassifier(backbone, num_classes=symbols, pooling=None)


def learn(task, system, args):
    """Trains on sequences twice as long whenever the model knows the shorter ones.

    Errors add up: the longer a sequence, the smaller the steps of training. The last rounds make
    the reflections exact. Returns the model, the length learned, and right answers by length.
    """
    keras.utils.set_random_seed(args.seed)
    model = make_model(system, len(group(task)), args.seed)
    model.compile(keras.optimizers.Adam(args.rate, global_clipnorm=1.0))
    length, learned, rounds, last = SHORTEST, 0, 0, 0
    while last < LAST_ROUNDS and rounds < args.rounds:
        batch = max(1, args.symbols // length)
        x, y = sequences(task, 50 * batch, length, seed=1000 * length + rounds)
        model.optimizer.learning_rate = args.rate * min(1.0, 16 / length) * 0.3**last
        seen = model.fit(x, y, batch_size=batch, verbose=0).history["accuracy"][0]
        rounds += 1
        if seen > args.enough:
            learned = length
            if 2 * length <= args.length:
                length, rounds = 2 * length, 0
            else:
                last += 1
    shares = {}
    for length in (args.length, 4 * args.length, 16 * args.length):
        x, y = sequences(task, 20, length, seed=args.seed)
        answers = model.predict(x, batch_size=20, verbose=0).argmax(axis=-1)
        last = slice(-args.length // 2, None)
        shares[length] = np.mean(answers[:, last] == y[:, last])
    return model, learned, shares


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=TASKS, nargs="*", default=[*TASKS], help="both")
    parser.add_argument("--system", choices=SYSTEMS, nargs="*", help="default: three a task")
    parser.add_argument("--length", type=int, default=64, help="longest to learn (%(default)s)")
    parser.add_argument("--enough", type=float, default=0.97, help="right answers (%(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="at each length (%(default)s)")
    parser.add_argument("--symbols", type=int, default=1024, help="in each step (%(default)s)")
    parser.add_argument("--rate", type=float, default=1e-2, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("out/state_tracking"), help="%(default)s")
    args = parser.parse_args()
    for task in args.task:
        chance = 1 / len(group(task))
        print(f"{task}: right answers at the end of sequences, by guessing {chance:.1%}")
        for system in args.system or TASKS[task]:
            model, learned, shares = learn(task, system, args)
            listed = ", ".join(f"{share:.1%} at {n:,} steps" for n, share in shares.items())
            print(f"  {system}: learned {learned} steps; {listed}", flush=True)
            args.out.mkdir(parents=True, exist_ok=True)
            model.save(args.out / f"{task}_{system}.keras")


if __name__ == "__main__":
    main()
