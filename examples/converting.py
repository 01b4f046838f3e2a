"""Turns a published checkpoint into a model of this package, and the model back into a checkpoint.

    python examples/converting.py                              # a file made here, as S5 writes them
    python examples/converting.py ckpt.pth --set prenorm=false    # of example.py, state-spaces/s4
    python examples/converting.py last.ckpt --check recorded.npz

It reads files of state-spaces/s4, ag1988/dss and lindermanlab/S5. Nothing in a file is run.
`--set` says what a file cannot say. The report shows where every setting and every weight came
from; docs/converting.md explains it.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from rich.console import Console

import keras_ssm

# What is written back for a file of which format. S4Block, of "s4-block", also holds minimal S4D.
BACK = {"s4-example": "s4-block", "s5-flax": "s5-flax"}


def setting(text):
    """`"prenorm=true"` as `("prenorm", True)`."""
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME=VALUE")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def make_checkpoint(path):
    """A file such as training with lindermanlab/S5 leaves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    model = keras_ssm.models.SSMClassifier.from_preset("s5_digits")
    keras_ssm.convert.export_checkpoint(model, path, to="s5-flax", overwrite=True)
    return path


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, nargs="?", help="default: one is made")
    parser.add_argument(
        "--set", type=setting, action="append", default=[], metavar="NAME=VALUE", help="repeat"
    )
    parser.add_argument("--check", type=Path, help="npz of inputs `x` and their official `logits`")
    parser.add_argument(
        "--to", choices=keras_ssm.convert.TARGETS, help="what to write back (default: as it came)"
    )
    parser.add_argument("--out", type=Path, default=Path("out/converted"), help="%(default)s")
    parser.add_argument("--overwrite", action="store_true", help="replace the preset that is there")
    args = parser.parse_args()
    source = args.checkpoint or make_checkpoint(args.out.parent / "s5.msgpack")

    # In. With `check` nothing is written unless the model gives the logits of the official code.
    report, comparison = keras_ssm.convert.convert_checkpoint(
        source, args.out, check=args.check, overwrite=args.overwrite, **dict(args.set)
    )
    report.print(Console(width=140))  # names whole, not cut to 80 columns
    if comparison is not None:
        print(f"largest difference from the recorded logits: {comparison.largest:.0e}")
    print(f"preset written to {args.out}")

    # It is a preset like any other: it predicts, trains, streams, and every backend loads it.
    task = keras_ssm.presets.read(args.out)["task"]  # SSMClassifier or SSMPairClassifier
    model = getattr(keras_ssm.models, task).from_preset(args.out)
    sample = model.sample_inputs()
    logits = model.predict(sample, verbose=0)
    print(f"{task} of {model.count_params():,} parameters, {logits.shape[-1]} classes")

    # Out. The official classes load this file; what they compute otherwise is said.
    to = args.to or BACK.get(report.format)
    if to is None:
        print(f"files of {report.format} are not written; --to names those that are")
        return
    back = args.out.with_name(args.out.name + (".msgpack" if to == "s5-flax" else ".pth"))
    for remark in keras_ssm.convert.export_checkpoint(model, back, to, overwrite=True):
        print(f"note: {remark}")
    again = keras_ssm.convert.load_checkpoint(back)
    error = np.abs(again.predict(sample, verbose=0) - logits).max() / np.abs(logits).max()
    print(f"{to} written to {back}; read again its logits differ by {error:.0e} of the largest")


if __name__ == "__main__":
    main()
