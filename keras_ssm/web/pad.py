"""A canvas to draw on: what the browser does, and the drawing that comes back."""

import base64
import binascii
import io

import numpy as np

SIDE = 280  # pixels

CANVAS = f"""\
<p>Draw a digit here, large, with the mouse or a finger:</p>
<canvas id="pad" width="{SIDE}" height="{SIDE}" aria-label="A digit is drawn here" style="
  background: white; border: 1px solid #999; border-radius: 6px; touch-action: none;
  cursor: crosshair; max-width: 100%"></canvas>
"""

# It may take a while until Gradio has put the canvas into the page.
PREPARE = """\
() => {
  const prepare = (pad) => {
    const pen = pad.getContext('2d');
    Object.assign(pen, {lineWidth: 22, lineCap: 'round', lineJoin: 'round', strokeStyle: 'black'});
    const place = (event) => {
      const box = pad.getBoundingClientRect();
      return [(event.clientX - box.left) * pad.width / box.width,
              (event.clientY - box.top) * pad.height / box.height];
    };
    let last = null;
    const line = (to) => { pen.beginPath(); pen.moveTo(...last); pen.lineTo(...to); pen.stroke(); };
    pad.addEventListener('pointerdown', (event) => {
      pad.setPointerCapture(event.pointerId);
      last = place(event);
      line(last);
    });
    pad.addEventListener('pointermove', (event) => {
      if (last) { const to = place(event); line(to); last = to; }
    });
    for (const end of ['pointerup', 'pointercancel'])
      pad.addEventListener(end, () => { last = null; });
    pad.dataset.ready = 'true';
  };
  const timer = setInterval(() => {
    const pad = document.getElementById('pad');
    if (pad) { clearInterval(timer); prepare(pad); }
  }, 100);
}
"""

CLEAR = """\
() => {
  const pad = document.getElementById('pad');
  pad.getContext('2d').clearRect(0, 0, pad.width, pad.height);
}
"""

# The inputs of the button, with the drawing in the place of the first.
TAKE = "(_, preset) => [document.getElementById('pad').toDataURL('image/png'), preset]"

_PREFIX = "data:image/png;base64,"


def decoded(url: str | None) -> np.ndarray:
    """The drawing that the browser sent, as an image with transparency.

    Args:
        url: str. What `toDataURL` of the canvas gave.

    Returns:
        uint8 array `(280, 280, 4)`.

    Raises:
        ValueError: for something else.
    """
    from PIL import Image

    try:
        if not url.startswith(_PREFIX):
            raise ValueError("no PNG")
        data = base64.b64decode(url.removeprefix(_PREFIX), validate=True)
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        if image.size != (SIDE, SIDE):
            raise ValueError(f"{image.size} pixels")
        return np.asarray(image.convert("RGBA"))
    except (AttributeError, OSError, ValueError, binascii.Error) as error:
        raise ValueError(
            f"`url` must be a drawing of {SIDE} x {SIDE} pixels, as PNG. Received: {error}"
        ) from error


def picture(image: np.ndarray, text: str) -> str:
    """A small image as HTML, enlarged without smoothing, with a line of text below it."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f'<img alt="{text}" src="{_PREFIX}{data}" style="image-rendering: pixelated; '
        f'width: {SIDE}px; max-width: 100%; border: 1px solid #999"><p>{text}</p>'
    )
