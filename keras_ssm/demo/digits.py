"""Handwritten digits, classified while their pixels arrive."""

import time

import keras
import numpy as np

from keras_ssm import datasets, plotting
from keras_ssm.demo.comparing import largest_difference, loaded
from keras_ssm.models import SSMClassifier
from keras_ssm.optimizers import ssm_optimizer


def run(preset, out, console):
    """Loads a preset, classifies and streams with it, fine-tunes, saves, reloads and plots it."""
    (x_train, y_train), (x_test, y_test) = datasets.digits()

    console.rule(f"[bold]{preset}[/bold] on {keras.config.backend()}")
    model = loaded(SSMClassifier, preset, console)

    model.predict(x_test[:250], batch_size=250, verbose=0)
    start = time.perf_counter()
    logits = model.predict(x_test, batch_size=250, verbose=0)
    speed = len(x_test) / (time.perf_counter() - start)
    accuracy = _accuracy(logits, y_test)
    console.print(f"{accuracy:.1%} of {len(x_test)} test digits, {speed:,.0f} digits/s")

    rows = np.arange(6)
    stream = model.stream(len(rows))
    pixels = np.split(x_test[rows], x_test.shape[1], axis=1)
    logits_after_each = np.concatenate([stream(pixel) for pixel in pixels], axis=1)
    error = largest_difference(logits_after_each[:, -1], logits[rows])
    console.print(
        f"streamed {len(rows)} digits pixel by pixel: the last logits differ from the "
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
    reloaded = SSMClassifier.from_preset(directory).predict(x_test, batch_size=250, verbose=0)
    console.print(f"saved to {directory} and loaded again: {_check_equal(reloaded, logits)}")

    pictures = {
        "streaming.png": plotting.plot_streaming(
            x_test[rows].reshape(-1, 8, 8), _softmax(logits_after_each), y_test[rows]
        ),
        "eigenvalues.png": plotting.plot_eigenvalues(model),
        "kernels.png": plotting.plot_kernels(model.backbone.blocks[0].mixer),
    }
    for name, figure in pictures.items():
        figure.savefig(out / name, dpi=120)
    console.print(f"pictures: {', '.join(str(out / name) for name in pictures)}")


def _accuracy(logits, labels):
    return float((logits.argmax(axis=-1) == labels).mean())


def _check_equal(a, b):
    error = largest_difference(a, b)
    if error > 1e-5:
        raise RuntimeError(f"the saved copy predicts otherwise: {error:.1e}")
    return f"predictions equal (largest difference {error:.1e})"


def _softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
