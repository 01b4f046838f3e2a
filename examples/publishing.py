"""Trains a small classifier, saves it as a preset and publishes it on the Hugging Face Hub.

    python examples/publishing.py                                # a dry run: nothing is uploaded
    python examples/publishing.py me/waves --upload --private    # after `hf auth login`

The task is to tell slow sine waves from fast ones; it trains in a few seconds. `info` below is
what the model card says. Before an upload the preset is loaded and checked; afterwards it is
downloaded again and compared. docs/publishing.md explains each step.
"""

import argparse
from pathlib import Path

import keras
import numpy as np

import keras_ssm

LENGTH = 64
COMMAND = "python examples/publishing.py"


def waves(rows, seed):
    """Noisy sine waves, `(rows, LENGTH, 1)`, and whether each is a fast one."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=rows)
    frequency = np.where(y, 0.3, 0.1) * rng.uniform(0.8, 1.2, rows)
    phase = rng.uniform(0, 2 * np.pi, (rows, 1))
    x = np.sin(frequency[:, None] * np.arange(LENGTH) + phase)
    return (x + 0.3 * rng.normal(size=x.shape))[..., None].astype("float32"), y


def train(epochs):
    """Returns the trained model and its accuracy on waves that it has not seen."""
    keras.utils.set_random_seed(0)
    backbone = keras_ssm.models.SSMBackbone(
        keras_ssm.layers.S4D(state_dim=16, seed=0), num_layers=1, hidden_dim=16
    )
    model = keras_ssm.models.SSMClassifier(backbone, num_classes=2)
    model.compile(keras_ssm.optimizers.ssm_optimizer(1e-2, 1e-3))
    model.fit(*waves(512, seed=1), batch_size=32, epochs=epochs)
    return model, model.evaluate(*waves(512, seed=2), verbose=0, return_dict=True)["accuracy"]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repo_id", nargs="?", default="me/waves", help="organisation/name")
    parser.add_argument("--upload", action="store_true", help="publish it; else a dry run")
    parser.add_argument("--private", action="store_true", help="the repository must be private")
    parser.add_argument("--epochs", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("out/waves"), help="default: %(default)s")
    args = parser.parse_args()

    model, accuracy = train(args.epochs)
    # What the model card says comes from here: facts that nobody else can know.
    info = {
        "name": "waves",
        "description": "Tells slow sine waves from fast ones.",
        "data": {"name": "noisy sine waves", "source": "made by examples/publishing.py"},
        "licences": {"weights": "Apache-2.0", "data": "none: it is computed"},
        "scores": [
            {
                "metric": "accuracy on 512 waves",
                "value": round(accuracy, 4),
                "count": 512,
                "command": f"{COMMAND} --epochs {args.epochs}",
            }
        ],
        "training": f"{args.epochs} epochs on 512 waves with `ssm_optimizer(1e-2, 1e-3)`.",
        "limits": f"Waves of {LENGTH} steps, 0.1 or 0.3 radians a step; nothing else.",
    }
    model.save_to_preset(args.out, info=info)
    print(f"{accuracy:.1%} of 512 waves; saved to {args.out}")

    done = keras_ssm.hub.publish(
        args.out, args.repo_id, private=args.private, dry_run=not args.upload
    )
    print("\n".join(done.describe()))
    if args.upload:
        again = keras_ssm.models.SSMClassifier.from_preset(f"hf://{args.repo_id}")
        x, y = waves(8, seed=3)
        found = again.predict(x, verbose=0).argmax(axis=-1)
        print(f"loaded from hf://{args.repo_id}: {(found == y).sum()} of 8 waves")


if __name__ == "__main__":
    main()
