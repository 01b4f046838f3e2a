"""From a drawing to the pixels of a data set, and the answers while they are read."""

from collections.abc import Iterator

import numpy as np

from keras_ssm.models import SSMClassifier
from keras_ssm.web.probabilities import softmax

# For images of 8 and of 28 pixels a side: the darkest pixel, and the side of the box that the ink
# fills. MNIST centres a box of 20 pixels by its mass. The digits of 8 pixels fill all rows.
DARKEST = {8: 16, 28: 255}
BOX = {8: 8, 28: 20}


def to_pixels(image: np.ndarray, side: int) -> np.ndarray:
    """Brings a drawing to the form of the images that a preset was trained on.

    Args:
        image: uint8 array `(height, width)`, `(height, width, 3)`, or with transparency
            `(height, width, 4)`: dark on light, or dark on nothing.
        side: int. `8` for the digits of scikit-learn, `28` for those of MNIST.

    Returns:
        uint8 array `(side, side)`, where 0 is paper and the largest number ink.

    Raises:
        ValueError: for another side or shape, or a drawing without ink.

    Example:
        ```python
        image = np.full((100, 100), 255, "uint8")
        image[20:80, 45:55] = 0  # a one
        pixels = keras_ssm.web.to_pixels(image, side=8)
        ```
    """
    from PIL import Image

    if side not in DARKEST:
        raise ValueError(f"`side` must be one of {sorted(DARKEST)}. Received: side={side}")
    ink = _ink(image)
    rows, columns = (np.flatnonzero((ink > 0.2).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise ValueError("The drawing must have dark lines on light. Received: one without any")
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    box = BOX[side] * 4  # finer than the pixels, which are means of 4 x 4
    scale = box / max(ink.shape)
    size = tuple(max(1, round(length * scale)) for length in reversed(ink.shape))
    small = Image.fromarray((255 * ink).astype("uint8")).resize(size, Image.Resampling.BOX)
    small = np.asarray(small, "float64") / 255
    paper = np.zeros((4 * side, 4 * side))
    top, left = (_start(small, axis, 4 * side, by_mass=side == 28) for axis in (0, 1))
    paper[top : top + small.shape[0], left : left + small.shape[1]] = small
    pixels = paper.reshape(side, 4, side, 4).mean(axis=(1, 3))
    return np.round(DARKEST[side] * pixels).astype("uint8")


def watch(
    model: SSMClassifier, pixels: np.ndarray, frames: int = 64
) -> Iterator[tuple[int, np.ndarray]]:
    """Reads an image pixel by pixel through a stream, and shows the answers meanwhile.

    Args:
        model: `SSMClassifier` of images that are read row after row.
        pixels: array `(side, side)`.
        frames: int. Pieces in which it is read. Defaults to `64`.

    Yields:
        Tuples of the pixels that were read so far and the probabilities after each of them,
        `(pixels, classes)`.

    Example:
        ```python
        model = keras_ssm.models.SSMClassifier.from_preset("s4d_digits")
        for read, probabilities in keras_ssm.web.watch(model, np.zeros((8, 8), "uint8")):
            pass
        assert probabilities.shape == (64, 10)
        ```
    """
    stream, answers = model.stream(), []
    for piece in np.array_split(np.ravel(pixels), min(frames, np.size(pixels))):
        answers.append(softmax(stream(piece)[0]))
        yield int(stream.steps[0]), np.concatenate(answers)


def shown(pixels: np.ndarray, read: int) -> np.ndarray:
    """A picture of the pixels in which those that are not read yet are pale, `(side, side, 3)`."""
    pixels = np.asarray(pixels)
    side = len(pixels)
    grey = 255 - pixels / DARKEST[side] * 255
    picture = np.repeat(grey[..., None], 3, axis=-1)
    ahead = np.arange(side * side).reshape(side, side) >= read
    picture[ahead] = 0.25 * picture[ahead] + 0.75 * np.array([205, 214, 235])
    return picture.round().astype("uint8")


def _ink(image):
    """How dark each pixel is, from 0 to 1."""
    image = np.asarray(image)
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)):
        raise ValueError(
            "`image` must be of shape (height, width), with 3 colours or 4 with transparency. "
            f"Received: shape {image.shape}"
        )
    light = image.astype("float64") / 255
    if image.ndim == 2:
        return 1 - light
    opacity = light[..., 3] if image.shape[2] == 4 else 1.0
    return opacity * (1 - light[..., :3].mean(axis=-1))


def _start(small, axis, room, by_mass):
    """Where a picture begins on paper of that size, so that its middle lies in the middle."""
    length = small.shape[axis]
    middle = length / 2
    if by_mass:
        mass = small.sum(axis=1 - axis)
        middle = ((np.arange(length) + 0.5) * mass).sum() / mass.sum()
    return int(np.clip(round(room / 2 - middle), 0, room - length))
