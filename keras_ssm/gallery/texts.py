"""Pictures of a language model."""

import numpy as np

from keras_ssm.gallery.classes import softmax
from keras_ssm.plotting import plot_step_errors
from keras_ssm.plotting.figures import subplots

PROMPT, SHOWN = 120, 40  # tokens read before, and tokens of a picture
WINDOW, WINDOWS = 256, 64


def pictures(subject):
    """Three passages with the probability of each letter, and the cost over the context."""
    return {"samples.png": _passages(subject), "errors.png": _costs(subject)}


def _passages(subject):
    model, ids = subject.model, np.asarray(subject.part)
    tokenizer = model.preprocessor.tokenizer
    figure, axes = subplots(3, 1, figsize=(8.5, 5.6))
    for axis, start in zip(axes.ravel(), _starts(ids, 3), strict=True):
        row = ids[start : start + PROMPT + SHOWN]
        probabilities = softmax(np.asarray(model.predict(row[None, :-1], verbose=0))[0])[
            PROMPT - 1 :
        ]
        actual = row[PROMPT:]
        places = np.arange(len(actual))
        axis.bar(places, probabilities.max(axis=-1), color="0.85", label="most likely letter")
        axis.bar(places, probabilities[places, actual], color="C0", label="letter that came")
        letters = [tokenizer.detokenize([int(i)]) for i in actual]
        best = [tokenizer.detokenize([int(i)]) for i in probabilities.argmax(axis=-1)]
        shown = [
            f"{_mark(letter)}\n{_mark(likeliest)}"
            for letter, likeliest in zip(letters, best, strict=True)
        ]
        axis.set_xticks(places, shown, fontsize=8, family="monospace")
        axis.set(ylim=(0, 1.02), xlim=(-0.7, len(actual) - 0.3))
        axis.tick_params(axis="y", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)
    axes[-1, 0].set_xlabel("the text above, and the most likely letters below it")
    figure.tight_layout()
    return figure, (
        "Three passages of the test part: the probability of each letter that came, and of the "
        "letter that the model held most likely."
    )


def _costs(subject):
    model, ids = subject.model, np.asarray(subject.part)
    rows = np.stack([ids[start : start + WINDOW + 1] for start in _starts(ids, WINDOWS)])
    costs = []
    for part in np.array_split(rows, max(1, len(rows) // 16)):
        probabilities = softmax(np.asarray(model.predict(part[:, :-1], verbose=0)))
        costs.append(
            -np.log2(np.take_along_axis(probabilities, part[:, 1:, None], axis=-1)[..., 0])
        )
    curve = np.concatenate(costs).mean(axis=0)
    width = min(16, len(curve))
    smooth = curve[: len(curve) // width * width].reshape(-1, width).mean(axis=1).repeat(width)
    figure = plot_step_errors(
        {f"mean of {width} places": smooth, "each place": curve},
        xlabel="tokens read before",
        ylabel="bits a token",
    )
    return figure, (
        f"Bits for each token against how much was read before it, over {len(rows)} windows of the "
        "test part."
    )


def _starts(ids, count):
    last = len(ids) - max(PROMPT + SHOWN, WINDOW) - 2
    return np.linspace(0, max(0, last), count, dtype=int)


def _mark(letter):
    signs = {" ": "␣", "\n": "↵"}
    return signs.get(letter, letter if letter.isprintable() else "·")
