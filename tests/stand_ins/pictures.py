"""Small pictures in every mode of Pillow, by whole-number arithmetic alone: the same pixels wherever they are made."""

from __future__ import annotations

from typing import Any

from PIL import Image

MODES = (
    *("RGB", "L", "LA", "P", "PA", "RGBA", "CMYK", "I;16", "I;16B", "1", "I", "F"),
    *("YCbCr", "HSV", "LAB", "RGBX", "RGBa"),
)
"""Those that the reference can turn into RGB."""
SIZES = ((1, 1), (1, 7), (3, 3), (5, 64), (90, 2), (31, 33), (50, 40), (64, 64), (301, 47))


def picture(mode: str, width: int, height: int) -> Image.Image:
    """Curved bands with some noise."""
    bands = {"I;16": "I;16", "I;16B": "I;16B", "I": "I", "F": "F"}.get(mode)
    made = Image.new(mode, (width, height))
    if mode in ("P", "PA"):
        made.putpalette([(n * 7 + 90 * band) % 256 for n in range(256) for band in range(3)])
    channels = len(made.getbands())
    for y in range(height):
        for x in range(width):
            values = tuple(_value(x, y, channel) for channel in range(channels))
            pixel: Any = values if channels > 1 else values[0]
            if bands in ("I;16", "I;16B", "I"):
                pixel = values[0] * 257
            elif mode == "1":
                pixel = 255 * (values[0] > 127)
            made.putpixel((x, y), pixel)
    return made


def _value(x: int, y: int, channel: int) -> int:
    return (x * x // 7 + y * (5 + channel) + (x * y * 31 + channel * 57) % 41) % 256
