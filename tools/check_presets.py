"""Checks presets on the backend at hand, and prints a line for each.

    KERAS_BACKEND=jax python tools/check_presets.py
    KERAS_BACKEND=torch python tools/check_presets.py s5_digits s4d_etth1 --only outputs stream

- `outputs`: those that were recorded, to 1e-5 of the largest
- `stream`: the answers of one pass, to 1e-4 (forecasts 1e-3); "none" of a model of two directions
- `hub`: published to a Hub on this machine, loaded from there and compared
- `int8`: `quantize("int8")` moves the outputs of the sample by less than a fifth (those of a
  forecaster by nothing, if its shortcut is all that speaks), and the card states what it costs

It ends with an error where something fails.
"""

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHECKS = ("outputs", "stream", "hub", "int8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="presets; default: all of the package")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=CHECKS, metavar="CHECK")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    import keras

    import keras_ssm

    listed = keras_ssm.list_presets()
    names = args.names or sorted(listed)
    if unknown := sorted(set(names) - set(listed)):
        sys.exit(f"Error: presets must be known. Received: {', '.join(unknown)}")
    print(f"{len(names)} presets on {keras.config.backend()}, Keras {keras.__version__}")
    print(f"| preset | {' | '.join(args.only)} |\n| --- |{' --- |' * len(args.only)}")
    failed = []
    with tempfile.TemporaryDirectory() as cache, loopback_hub(cache) as hub:
        for name in names:
            cells = dict(check(name, listed[name], args.only, hub))
            wrong = [key for key, (right, _) in cells.items() if not right]
            failed += [f"{name}: {key}" for key in wrong]
            texts = (f"**{text}**" if key in wrong else text for key, (_, text) in cells.items())
            print(f"| `{name}` | {' | '.join(texts)} |", flush=True)
    if failed:
        sys.exit(f"Error: {len(failed)} checks failed: {'; '.join(failed)}")


def loopback_hub(cache):
    """A scope in which the Hub's client talks to a server on this machine."""
    import contextlib

    import pytest

    from tests.hub_client import point_client
    from tests.hub_server import HubServer

    @contextlib.contextmanager
    def scope():
        server = HubServer()
        with pytest.MonkeyPatch.context() as patch:
            point_client(patch, server, Path(cache))
            yield server
        server.stop()

    return scope()


def check(name, document, wanted, hub):
    """Yields the name of each check, with whether it passes and the text of its cell."""
    import numpy as np

    import keras_ssm
    from keras_ssm.models import SSMForecaster
    from keras_ssm.models.saving import sample_check
    from keras_ssm.models.saving.preset_loading import load_model
    from tests import preset_checks

    sample = document["sample"]
    model = load_model(name, check_sample=False)
    for key in wanted:
        try:
            if key == "outputs":
                difference = sample_check.compare(model, sample, name)
                yield key, (difference < 1e-5, f"{difference:.0e}")
            elif key == "stream":
                difference = preset_checks.stream_difference(model, np.random.default_rng(0))
                most = 1e-3 if isinstance(model, SSMForecaster) else 1e-4
                missing = difference is None and "streaming" not in document
                text = "none" if difference is None else f"{difference:.0e}"
                yield key, (missing or (difference is not None and difference < most), text)
            elif key == "hub":
                done = keras_ssm.hub.publish(name, f"{keras_ssm.presets.ORGANISATION}/{name}")
                repository = hub.repositories[f"{keras_ssm.presets.ORGANISATION}/{name}"]
                yield key, (done.commit == repository.find("main"), f"{done.error:.0e}")
            elif key == "int8":
                difference = preset_checks.difference_in_eight_bits(model, sample)
                stated = document.get("int8")
                text = f"{stated['value']} {stated['metric']}" if stated else "not in the card"
                right = preset_checks.is_small(difference, model) and bool(stated)
                yield key, (right, f"{difference:.0e}, {text}")
        except (ValueError, NotImplementedError, TypeError, RuntimeError) as error:
            yield key, (False, f"{type(error).__name__}: {error}"[:200])


if __name__ == "__main__":
    main()
