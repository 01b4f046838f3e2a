"""What `keras-ssm demo` shows: the life of a preset on 500 real digits."""

import time

import keras
import numpy as np
from keras import ops

from keras_ssm import datasets, plotting
from keras_ssm.models import SSMClassifier
from keras_ssm.optimizers import ssm_optimizer


def run(preset, out, console):
    """Loads, classifies, streams, fine-tunes, saves, reloads and plots.

    Args:
        preset: str. Name or directory of a preset trained on the digits.
        out: `Path`. Directory of the pictures and the new preset.
        console: `rich.console.Console`.

    Raises:
        RuntimeError: if streaming or the saved copy disagree with the model.
    """
    out.mkdir(parents=True, exist_ok=True)
    (x_train, y_train), (x_test, y_test) = datasets.digits()

    console.rule(f"[bold]{preset}[/bold] on {keras.config.backend()}")
    start = time.perf_counter()
    model = SSMClassifier.from_preset(preset)
    seconds = time.perf_counter() - start
    console.print(f"loaded {model.count_params():,} parameters in {seconds:.1f} s")

    model.predict(x_test[:250], batch_size=250, verbose=0)
    start = time.perf_counter()
    logits = model.predict(x_test, batch_size=250, verbose=0)
    speed = len(x_test) / (time.perf_counter() - start)
    accuracy = _accuracy(logits, y_test)
    console.print(f"{accuracy:.1%} of {len(x_test)} test digits, {speed:,.0f} digits/s")

    shown = np.arange(6)
    history = stream(model, x_test[shown])
    error = np.abs(history[:, -1] - logits[shown]).max() / np.abs(logits[shown]).max()
    console.print(
        f"streamed {len(shown)} digits pixel by pixel: the last logits differ from the "
        f"parallel ones by {error:.1e} of the largest"
    )
    if error > 1e-4:
        raise RuntimeError(f"streamed and parallel logits differ by {error:.1e}")

    model.compile(ssm_optimizer(1e-4, 1e-5))
    model.fit(x_train, y_train, batch_size=64, epochs=1, verbose=0)
    logits = model.predict(x_test, batch_size=250, verbose=0)
    console.print(f"fine-tuned one epoch: {_accuracy(logits, y_test):.1%}")

    directory = out / f"{model.backbone.facts()['system'].lower()}_digits_tuned"
    model.save_to_preset(directory)
    again = SSMClassifier.from_preset(directory).predict(x_test, batch_size=250, verbose=0)
    console.print(f"saved to {directory} and loaded again: {_equal(again, logits)}")

    pictures = {
        "streaming.png": plotting.plot_streaming(
            x_test[shown].reshape(-1, 8, 8), _softmax(history), y_test[shown]
        ),
        "eigenvalues.png": plotting.plot_eigenvalues(model),
        "kernels.png": plotting.plot_kernels(model.backbone.blocks[0].mixer),
    }
    for name, figure in pictures.items():
        figure.savefig(out / name, dpi=120)
    console.print(f"pictures: {', '.join(str(out / name) for name in pictures)}")


def stream(model, x):
    """Reads rows sample by sample; returns the logits after each, `(rows, steps, classes)`."""
    samples = model.preprocessor(x)["inputs"]
    state, systems, history = model.get_initial_state(len(x)), model.discretize(), []
    for t in range(samples.shape[1]):
        logits, state = model.step(samples[:, t], state, systems)
        history.append(ops.convert_to_numpy(logits))
    return np.stack(history, axis=1)


def _accuracy(logits, labels):
    return float((logits.argmax(axis=-1) == labels).mean())


def _equal(a, b):
    difference = np.abs(a - b).max()
    if difference > 1e-5 * np.abs(b).max():
        raise RuntimeError(f"the saved copy predicts otherwise: {difference:.1e}")
    return f"predictions equal (largest difference {difference:.1e})"


def _softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
