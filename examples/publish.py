"""Trains a small classifier, saves it as a preset and publishes it on the Hugging Face Hub.

    python examples/publish.py me/sines --dry-run    # everything but the upload
    python examples/publish.py me/sines --private    # with a token: `hf auth login` or HF_TOKEN

The task is to tell slow sine waves from fast ones; it trains in a few seconds.
"""

import argparse
from pathlib import Path

import keras
import numpy as np

import keras_ssm

LENGTH = 64


def waves(rows, seed):
    """Noisy sine waves, `(rows, LENGTH, 1)`, and whether each is a fast one."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=rows)
    frequency = np.where(y, 0.3, 0.1) * rng.uniform(0.8, 1.2, rows)
    phase = rng.uniform(0, 2 * np.pi, (rows, 1))
    x = np.sin(frequency[:, None] * np.arange(LENGTH) + phase) + 0.3 * rng.normal(
        size=(rows, LENGTH)
    )
    return x[..., None].astype("float32"), y


def train():
    """Returns the trained model and its accuracy on waves it has not seen."""
    keras.utils.set_random_seed(0)
    backbone = keras_ssm.models.SSMBackbone(
        keras_ssm.layers.S4D(state_dim=16, seed=0), num_layers=1, hidden_dim=16
    )
    model = keras_ssm.models.SSMClassifier(backbone, num_classes=2)
    model.compile(keras_ssm.optimizers.ssm_optimizer(1e-2, 1e-3))
    model.fit(*waves(512, seed=1), batch_size=32, epochs=3, verbose=0)
    return model, model.evaluate(*waves(512, seed=2), verbose=0, return_dict=True)["accuracy"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repo_id", help="organisation/name")
    parser.add_argument(
        "--out", type=Path, default=Path("out/sines"), help="the preset's directory"
    )
    parser.add_argument("--private", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args()

    model, accuracy = train()
    # What the model card says comes from here: facts that nobody else can know.
    info = {
        "name": "sines",
        "description": "Tells slow sine waves from fast ones.",
        "data": {"name": "noisy sine waves", "source": "made by examples/publish.py"},
        "licences": {"weights": "Apache-2.0", "data": "none: it is computed"},
        "scores": [
            {
                "metric": "accuracy on 512 waves",
                "value": round(accuracy, 4),
                "count": 512,
                "command": "python examples/publish.py",
            }
        ],
        "training": "Three epochs on 512 waves with `ssm_optimizer(1e-2, 1e-3)`.",
        "limits": "Waves of 64 steps, 0.1 or 0.3 radians a step; nothing else.",
    }
    model.save_to_preset(args.out, info=info)
    print(f"{accuracy:.1%} of 512 waves; saved to {args.out}")
    done = keras_ssm.hub.publish(args.out, args.repo_id, private=args.private, dry_run=args.dry_run)
    print("\n".join(done.describe()))


if __name__ == "__main__":
    main()
