"""Two tasks of recall as language models: what a layer must do beyond remembering an average.

    python examples/associative_recall.py
    python examples/associative_recall.py --task induction --system mamba

In `recall` a row is pairs of a key and a value, `d 7 b 3 d 7 a 5 ...`: each row draws the value of
each key anew, and a key that comes again asks for its value: what is looked up depends on what is
read. An S4D mixes the past by fixed weights, and guesses among the values of the row. H3 multiplies
what it shifted with what it reads, and Mamba chooses what it writes and reads: both learn to look
up. In `induction` one mark comes several times between random tokens, always before the same token,
which is another in each row. The mark itself does not change: fixed weights find what follows it,
and all three do.
"""

import argparse
import json
import time
from pathlib import Path

import keras
import numpy as np

import keras_ssm
from keras_ssm.layers import H3, S4D, Mamba

SYSTEMS = {
    "s4d": lambda seed: S4D(state_dim=64, seed=seed),
    # Heads of 4 features remember 4 x 4 matrices: which key came with which value.
    "h3": lambda seed: H3(state_dim=16, head_dim=4, shift_dim=4, seed=seed),
    # As published, with steps up to 0.1 and without the norms, it did not learn in this time.
    "mamba": lambda seed: Mamba(state_dim=16, norm_bcdt=True, dt_min=0.01, dt_max=1.0, seed=seed),
}


def recall(count, pairs, keys, rng):
    """Rows of tokens `(count, 2 pairs)`, and whether the token after each one is determined."""
    values = rng.integers(keys, size=(count, keys)) + keys  # of each key, in this row
    said = rng.integers(keys, size=(count, pairs))
    rows = np.stack([said, np.take_along_axis(values, said, axis=1)], axis=-1).reshape(count, -1)
    earlier = (said[:, :, None] == said[:, None]) & np.tri(pairs, k=-1, dtype=bool)
    return rows, np.stack([earlier.any(-1), np.zeros_like(said, bool)], -1).reshape(count, -1)


def induction(count, pairs, keys, rng):
    """Rows as in `recall`, of random tokens and one mark, the last token of the vocabulary."""
    rows, mark = rng.integers(2 * keys - 1, size=(count, 2 * pairs)), 2 * keys - 1
    answers = rng.integers(mark, size=count)
    places = np.argsort(rng.random((count, pairs)), axis=1)[:, :3]  # of the mark, in pairs
    known = np.zeros(rows.shape, bool)
    for row, at in enumerate(2 * np.sort(places, axis=1)):
        rows[row, at], rows[row, at + 1] = mark, answers[row]
        known[row, at[1:]] = True
    return rows, known


TASKS = {"recall": recall, "induction": induction}


def make_model(system, keys, width, seed):
    """A language model of two blocks. H3 and Mamba multiply inside, and S4D by the block's gate."""
    options = {"num_layers": 2, "hidden_dim": width, "prenorm": True, "final_norm": "layer"}
    if system != "s4d":
        options |= {"activation": None, "gate": None}
    mixer = SYSTEMS[system](seed)
    backbone = keras_ssm.models.SSMBackbone(mixer, vocabulary_size=2 * keys, **options)
    return keras_ssm.models.SSMCausalLM(backbone)


def accuracy(model, rows, known):
    """Share of the determined tokens that are the likeliest of the model."""
    guesses = model.predict(rows[:, :-1], batch_size=256, verbose=0).argmax(-1)
    return float((guesses == rows[:, 1:])[known[:, :-1]].mean())


def learn(model, task, args):
    """Trains on rows that never come again; the accuracy on other rows after each round."""
    rng = np.random.default_rng(args.seed)
    held_out = TASKS[task](512, args.pairs, args.keys, rng)
    rate = keras.optimizers.schedules.CosineDecay(args.rate, 100 * args.rounds)
    model.compile(keras_ssm.optimizers.ssm_optimizer(rate, rate, weight_decay=0.0))
    curve = []
    for i in range(args.rounds):
        rows, known = TASKS[task](3200, args.pairs, args.keys, rng)
        model.fit(rows[:, :-1], rows[:, 1:], sample_weight=known[:, :-1].astype("f4"), verbose=0)
        curve.append(accuracy(model, *held_out))
        print(f"  after {100 * (i + 1)} batches {curve[-1]:.1%}", flush=True)
    return curve


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=TASKS, help="default: both")
    parser.add_argument("--system", choices=SYSTEMS, help="default: all")
    parser.add_argument("--pairs", type=int, default=20, help="half of the length of a row")
    parser.add_argument("--keys", type=int, default=6, help="half of the vocabulary")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20, help="each of 100 batches of 32 rows")
    parser.add_argument("--rate", type=float, default=5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/recall.json"), help="%(default)s")
    args = parser.parse_args()

    scores = {}
    for task in [args.task] if args.task else TASKS:
        for system in [args.system] if args.system else SYSTEMS:
            keras.utils.set_random_seed(args.seed)
            model = make_model(system, args.keys, args.width, args.seed)
            start, curve = time.process_time(), learn(model, task, args)
            seconds = time.process_time() - start
            print(f"{task}, {system}: {curve[-1]:.1%} right ({seconds:.0f} s of a processor)")
            scores[f"{task}, {system}"] = {"seconds": seconds, "right_after_each_round": curve}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(scores, indent=1) + "\n")


if __name__ == "__main__":
    main()
