"""Draws docs/images/resolutions.png: a classifier of images at two resolutions, trained at one.

keras-ssm train mnist_images --data DIR
python tools/draw_images.py PRESET --data DIR
"""

import argparse
from pathlib import Path

import numpy as np

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", help="a preset of the recipe mnist_images")
    parser.add_argument("--data", type=Path, required=True, help="folder of all data")
    parser.add_argument("--rows", type=int, default=10000, help="images of the test part")
    parser.add_argument("--out", type=Path, default=IMAGES / "resolutions.png")
    args = parser.parse_args()
    from keras_ssm import presets, recipes
    from keras_ssm.models import SSMImageClassifier
    from keras_ssm.recipes.mnist_images import SIDES

    recipe = recipes.get("mnist_images")
    document = presets.read(presets.resolve(args.preset))
    settings = document.get("recipe", {}).get("settings", recipe.settings)
    model = SSMImageClassifier.from_preset(args.preset)
    part = recipe.read(args.data).test.spread(args.rows)
    trained_side = settings["side"]
    other_sides = [side for side in SIDES if side != trained_side]
    answers = {}
    for label, side, scale in (
        (f"{trained_side} x {trained_side}, as trained", trained_side, 1.0),
        *(
            (f"{n} x {n}, step_scale {trained_side / n:g}", n, trained_side / n)
            for n in other_sides
        ),
        *((f"{n} x {n}, step_scale 1", n, 1.0) for n in other_sides),
    ):
        model.step_scale = scale
        answers[label] = side, recipe.logits(model, part, settings, side).argmax(axis=1)
    figure = picture(part, answers)
    figure.savefig(args.out, dpi=100)
    print(args.out)


def picture(part, answers, count=8):
    """The first images at each resolution, with the answers, and the share of right ones."""
    from keras_ssm.plotting.figures import subplots
    from keras_ssm.recipes.mnist_images import at_side

    figure, axes = subplots(len(answers), count + 1, figsize=(1.25 * count + 4, 1.5 * len(answers)))
    for row, (label, (side, classes)) in zip(axes, answers.items(), strict=True):
        for axis, image, answer, label_of_row in zip(
            row, at_side(part.x[:count], side), classes, part.y, strict=False
        ):
            axis.imshow(image, cmap="gray_r")
            axis.set(xticks=[], yticks=[])
            axis.set_title(answer, color="C0" if answer == label_of_row else "C3", fontsize=10)
        right = float(np.mean(classes == part.y))
        row[-1].barh([0], [right], color="C0")
        row[-1].set(xlim=(0, 1), yticks=[], title=f"{label}:\n{right:.1%}")
        row[-1].title.set_fontsize(9)
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    main()
