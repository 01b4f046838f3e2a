"""Figures as small files."""

import io

MOST_BYTES = 60_000
COLORS = 64
DPI = 88


def png(figure) -> bytes:
    """Returns a figure as a PNG of few colours, the same bytes each time.

    Args:
        figure: `matplotlib.figure.Figure`.

    Raises:
        ValueError: for a picture above 60 kB.
    """
    from PIL import Image

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=DPI, format="png", metadata={"Software": None})
    image = Image.open(drawn).convert("RGB")
    image.quantize(COLORS, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    if small.tell() > MOST_BYTES:
        raise ValueError(
            f"A picture of a preset must have at most {MOST_BYTES:,} bytes. "
            f"Received: {small.tell():,} bytes"
        )
    return small.getvalue()
