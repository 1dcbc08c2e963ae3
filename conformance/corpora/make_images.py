"""Makes image-feature-extraction.jsonl: python make_images.py > image-feature-extraction.jsonl

Whole-number arithmetic and a PNG writer of its own that does not compress: the bytes do not depend on Pillow, zlib, or
the machine. Images first, as `data:image/png;base64,` URLs, then texts about the like of them.
"""

from __future__ import annotations

import base64
import json
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Colour = tuple[int, int, int]
Paint = Callable[[int, int], Colour]
"""`paint(x, y)`"""

RED, GREEN, BLUE, YELLOW = (208, 32, 40), (36, 140, 60), (30, 70, 190), (245, 205, 50)
WHITE, BLACK, GREY, SKY, SAND, WOOD = (
    (250, 250, 248),
    (12, 12, 14),
    (128,) * 3,
    (120, 180, 235),
    (226, 202, 150),
    (120, 78, 40),
)
PALETTE = (RED, GREEN, BLUE, YELLOW, WHITE, BLACK, GREY, SKY, SAND, WOOD)


@dataclass(frozen=True)
class Picture:
    """A size, a painter, and how PNG stores it: `mode` as Pillow will call it."""

    width: int
    height: int
    paint: Paint
    mode: str = "RGB"


def noise(*seeds: int) -> int:
    """0 to 255, from whole numbers: a few rounds of multiply and shift (the constants are those of xxHash32)."""
    state = 2654435761
    for seed in seeds:
        state = (state ^ (seed & 0xFFFFFFFF)) * 2246822519 & 0xFFFFFFFF
        state = (state ^ state >> 15) * 3266489917 & 0xFFFFFFFF
    return (state ^ state >> 13) & 255


def blend(one: Colour, other: Colour, share: int, whole: int) -> Colour:
    """`other` by share/whole, the rest `one`."""
    share = max(0, min(whole, share))
    mixed = [(a * (whole - share) + b * share) // whole for a, b in zip(one, other, strict=True)]
    return mixed[0], mixed[1], mixed[2]


# Painters


def disc(x0: int, y0: int, radius: int, inside: Colour, outside: Colour) -> Paint:
    """A filled circle."""
    return lambda x, y: inside if (x - x0) ** 2 + (y - y0) ** 2 <= radius**2 else outside


def box(x0: int, y0: int, x1: int, y1: int, inside: Colour, outside: Colour) -> Paint:
    """A filled rectangle."""
    return lambda x, y: inside if x0 <= x < x1 and y0 <= y < y1 else outside


def triangle(x0: int, y0: int, height: int, inside: Colour, outside: Colour) -> Paint:
    """A triangle with its point at the top, as wide as it is high."""
    return lambda x, y: inside if 0 <= y - y0 < height and 2 * abs(x - x0) <= y - y0 else outside


def stripes(step: int, dx: int, dy: int, one: Colour, other: Colour) -> Paint:
    """Stripes of the width `step`."""
    return lambda x, y: one if (x * dx + y * dy) // step % 2 else other


def checks(step: int, one: Colour, other: Colour) -> Paint:
    """A chessboard."""
    return lambda x, y: one if (x // step + y // step) % 2 else other


def gradient(width: int, height: int, one: Colour, other: Colour, across: bool) -> Paint:
    """From one colour to another."""
    return lambda x, y: blend(one, other, x if across else y, width if across else height)


def glow(x0: int, y0: int, reach: int, inside: Colour, outside: Colour) -> Paint:
    """A soft spot."""
    return lambda x, y: blend(inside, outside, (x - x0) ** 2 + (y - y0) ** 2, reach**2)


def grain(seed: int, coarse: int, grey: bool) -> Paint:
    """Noise in squares of `coarse` pixels."""

    def paint(x: int, y: int) -> Colour:
        place = x // coarse, y // coarse
        if grey:
            return (noise(seed, *place),) * 3
        return noise(seed, 1, *place), noise(seed, 2, *place), noise(seed, 3, *place)

    return paint


STROKES = {
    "A": "0110 1001 1111 1001 1001", "C": "0111 1000 1000 1000 0111", "E": "1111 1000 1110 1000 1111",
    "H": "1001 1001 1111 1001 1001", "I": "0110 0110 0110 0110 0110", "L": "1000 1000 1000 1000 1111",
    "N": "1001 1101 1011 1001 1001", "O": "0110 1001 1001 1001 0110", "P": "1110 1001 1110 1000 1000",
    "S": "0111 1000 0110 0001 1110", "T": "1111 0110 0110 0110 0110", "X": "1001 0110 0110 0110 1001",
    "1": "0010 0110 0010 0010 0111", "2": "1110 0001 0110 1000 1111", "7": "1111 0001 0010 0100 0100",
    " ": "0000 0000 0000 0000 0000",
}  # fmt: skip
"""Letters of four by five."""


def lettering(text: str, size: int, ink: Colour, paper: Colour) -> Paint:
    """A line of letters, `size` pixels per dot, with a dot between two."""

    def paint(x: int, y: int) -> Colour:
        column, row = x // size - 1, y // size - 1
        if 0 <= row < 5 and 0 <= column < 5 * len(text) and column % 5 < 4:
            return ink if STROKES[text[column // 5]].split()[row][column % 5] == "1" else paper
        return paper

    return paint


def landscape(seed: int, width: int, height: int, sky: Colour, land: Colour) -> Paint:
    """Sky, a sun, hills and grain: smooth areas, soft edges and texture, as in a photograph."""

    def paint(x: int, y: int) -> Colour:
        hill = height // 2 + (noise(seed, x // 8) * (8 - x % 8) + noise(seed, x // 8 + 1) * (x % 8)) * height // 12000
        sun = (x - width // 4) ** 2 + (y - height // 4) ** 2
        above = blend(blend(sky, WHITE, y, 2 * height), YELLOW, 60 - sun, 60)
        colour = blend(land, BLACK, y - hill, 2 * height) if y >= hill else above
        return blend(colour, (noise(seed, x, y, 7),) * 3, 1, 12)

    return paint


def face(width: int, height: int, skin: Colour, behind: Colour) -> Paint:
    """A round head with eyes and a mouth."""

    def paint(x: int, y: int) -> Colour:
        x, y = 60 * x // width - 30, 60 * y // height - 30
        if x * x + y * y > 25**2:
            return behind
        if (abs(x) - 9) ** 2 + (y + 7) ** 2 < 10 or (5 <= y <= 14 and 100 <= x * x + (y - 2) ** 2 <= 160):
            return BLACK
        return blend(skin, BLACK, x * x + y * y, 4000)

    return paint


# PNG


def png(picture: Picture) -> bytes:
    """The file, https://www.w3.org/TR/png-3/, with deflate's stored blocks (RFC 1951, section 3.2.4)."""
    depth, kind = _DEPTH_AND_TYPE.get(picture.mode, (8, 3))
    rows = _bits(picture) if picture.mode == "1" else _rows(picture)
    header = struct.pack(">IIBBBBB", picture.width, picture.height, depth, kind, 0, 0, 0)
    parts = [
        (b"IHDR", header),
        *_CHUNKS.get(picture.mode, []),
        (b"IDAT", _deflated(b"".join(b"\0" + row for row in rows))),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


_PALETTE = (b"PLTE", bytes(part for colour in PALETTE for part in colour))
_CHUNKS = {"P": [_PALETTE], "P with transparency": [_PALETTE, (b"tRNS", bytes([255, 0, 90]))]}
_DEPTH_AND_TYPE = {"1": (1, 0), "I;16": (16, 0), "L": (8, 0), "LA": (8, 4), "RGB": (8, 2), "RGBA": (8, 6)}


def _rows(picture: Picture) -> Iterator[bytes]:
    for y in range(picture.height):
        yield b"".join(_pixel(picture, x, y) for x in range(picture.width))


def _pixel(picture: Picture, x: int, y: int) -> bytes:
    colour, alpha = picture.paint(x, y), 255 * (x + y) // (picture.width + picture.height - 1)
    if picture.mode in _CHUNKS:
        return bytes([PALETTE.index(colour)])
    values = colour if picture.mode.startswith("RGB") else (_grey(colour),)
    if picture.mode == "I;16":
        # Of 16 bits Pillow keeps what is above 255 as white, so most of it is below.
        return struct.pack(">H", _grey(colour) * 5 // 4)
    return bytes([*values, alpha] if picture.mode.endswith("A") else values)


def _bits(picture: Picture) -> Iterator[bytes]:
    for y in range(picture.height):
        bits = "".join("1" if _grey(picture.paint(x, y)) > 127 else "0" for x in range(picture.width))
        bits += "0" * (-len(bits) % 8)
        yield bytes(int(bits[start : start + 8], 2) for start in range(0, len(bits), 8))


def _grey(colour: Colour) -> int:
    return (colour[0] * 299 + colour[1] * 587 + colour[2] * 114) // 1000


def _deflated(data: bytes) -> bytes:
    blocks = [data[start : start + 65535] for start in range(0, len(data), 65535)]
    body = b"".join(
        struct.pack("<BHH", block is blocks[-1], len(block), len(block) ^ 0xFFFF) + block for block in blocks
    )
    return b"\x78\x01" + body + struct.pack(">I", zlib.adler32(data))


# The corpus


def pictures() -> Iterator[tuple[str, Picture]]:
    """Group and picture."""
    for one, other in ((RED, WHITE), (BLUE, SAND), (YELLOW, BLACK), (GREEN, WHITE)):
        yield "image-shapes", Picture(30, 30, disc(15, 15, 10, one, other))
        yield "image-shapes", Picture(34, 28, box(8, 6, 26, 22, one, other), "P")
        yield "image-shapes", Picture(28, 32, triangle(14, 4, 22, one, other))
    for n, (one, other) in enumerate(((RED, BLUE), (WHITE, BLACK), (SKY, SAND), (YELLOW, GREEN))):
        yield "image-gradients", Picture(32, 24, gradient(32, 24, one, other, n % 2 == 0))
        yield "image-gradients", Picture(26, 30, glow(8 + 4 * n, 15, 16, one, other), "RGBA" if n == 3 else "RGB")
    for n, step in enumerate((1, 3, 8)):
        yield "image-patterns", Picture(64, 40, stripes(step, 1, n, BLACK, WHITE), "1")
        yield "image-patterns", Picture(40, 40, checks(step + 1, RED, YELLOW), "P")
        yield "image-patterns", Picture(40, 36, stripes(step + 2, 1, -1, BLUE, WHITE), "P with transparency")
    for text, ink, paper in (("STOP", WHITE, RED), ("EXIT", GREEN, WHITE), ("NO 7", BLACK, YELLOW), ("ON", BLUE, SAND)):
        yield "image-letters", Picture((5 * len(text) + 1) * 3, 21, lettering(text, 3, ink, paper), "P")
    for text in ("A CAT", "HELLO", "21 PLATES"):
        yield "image-letters", Picture((5 * len(text) + 1) * 4, 28, lettering(text, 4, BLACK, WHITE), "1")
    for seed, coarse in enumerate((1, 2, 5)):
        yield "image-noise", Picture(28, 28, grain(seed, coarse, grey=False))
        yield "image-noise", Picture(40, 32, grain(seed + 9, coarse, grey=True), ("L", "I;16", "LA")[seed])
    for seed, (sky, land) in enumerate(((SKY, GREEN), (SAND, WOOD), (BLUE, SAND), (GREY, BLACK), (SKY, WHITE))):
        yield "image-scenes", Picture(44, 33, landscape(seed, 44, 33, sky, land))
        yield (
            "image-scenes",
            Picture(40, 30, landscape(seed + 20, 40, 30, sky, land), ("L", "I;16", "LA", "L", "RGBA")[seed]),
        )
    for skin, behind in ((SAND, SKY), (WOOD, GREEN), (YELLOW, WHITE)):
        yield "image-scenes", Picture(32, 32, face(32, 32, skin, behind))
    for mode in ("RGB", "L", "RGBA"):
        yield "image-extremes", Picture(1, 1, disc(0, 0, 1, RED, RED), mode)
    yield "image-extremes", Picture(300, 2, stripes(25, 1, 0, RED, WHITE), "P")
    yield "image-extremes", Picture(3, 200, gradient(3, 200, BLUE, YELLOW, across=False))
    yield "image-extremes", Picture(240, 180, disc(120, 90, 70, BLACK, WHITE), "1")
    yield "image-extremes", Picture(224, 224, checks(28, BLACK, WHITE), "1")
    yield "image-extremes", Picture(2, 2, checks(1, GREEN, RED))


TEXTS = {
    "text-shapes": """a red circle on white|a blue square on sand|a yellow triangle on black|a green circle
        a blue rectangle|a black disc on a white page|two shapes|a shape without corners""",
    "text-gradients": """red fading into blue|a soft yellow glow|a white spot in the dark|from sky blue to sand
        a smooth gradient of colours""",
    "text-patterns": """black and white stripes|a chessboard|diagonal blue lines|fine lines, close together
        a red and yellow grid|a barcode""",
    "text-letters": """a stop sign|an exit sign|the word hello|the number seven|a sign with white letters on red
        the word cat|handwriting|a page of text""",
    "text-noise": "television static|random coloured pixels|coarse grey noise|a blurred photo|nothing to be seen",
    "text-scenes": """a photo of green hills under a blue sky|the desert at noon|a beach|a snowy field|a storm at night
        the sun over the mountains|a smiling face|a round yellow smiley|a portrait of a person|a photo of a cat
        a photo of a dog|a bowl of fruit on a wooden table|a city street in the rain|a red car in front of a house
        children playing in a park|an old map|a cup of coffee, seen from above|an empty room""",
    "text-styles": """a drawing|a photo|a black and white photo|a low resolution picture|an icon
        a very long, thin picture|a screenshot of a web page|abstract art, oil on canvas
        ein Foto von einem Hund|une voiture rouge
        a picture of a small brown dog that sleeps on a sofa beside a window through which the evening sun shines""",
}
"""Group -> texts, one per line or between bars."""


PREFIXES = {
    "image-extremes": "ie", "image-gradients": "ig", "image-letters": "il", "image-noise": "in",
    "image-patterns": "ip", "image-scenes": "ic", "image-shapes": "is",
    "text-gradients": "tg", "text-letters": "tl", "text-noise": "tn", "text-patterns": "tp",
    "text-scenes": "tc", "text-shapes": "ts", "text-styles": "ty",
}  # fmt: skip
"""Group -> what its ids begin with."""


def rows() -> Iterator[dict[str, str]]:
    """Every row of the corpus, in order."""
    counts = dict.fromkeys(PREFIXES, 0)
    pairs = [(group, f"data:image/png;base64,{base64.b64encode(png(one)).decode()}") for group, one in pictures()]
    pairs += [(group, text.strip()) for group, texts in TEXTS.items() for text in texts.replace("\n", "|").split("|")]
    for group, text in sorted(pairs, key=lambda pair: pair[0]):
        counts[group] += 1
        yield {"id": f"{PREFIXES[group]}-{counts[group]:04}", "text": text, "group": group}


if __name__ == "__main__":
    sys.stdout.buffer.write(b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows()))
