"""Whatever image comes, small or large, grey or coloured, it gets a vector, and as a file the same one."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from modelkit.errors import ModelkitError, StageError
from modelkit.limits import at_most, judge
from modelkit.vocabulary import Subject, Verdict

if TYPE_CHECKING:
    import PIL.Image

VERSION = 1
NEEDS = ("images",)
PROMISE = "every image of any mode and size gets a finite vector of length one, as a file the same as in memory"
EXAMPLES = {"quick": 10, "full": 100, "release": 500}
MODES = ("RGB", "L", "1", "LA", "P", "RGBA", "I;16", "CMYK")
"""Of Pillow: https://pillow.readthedocs.io/en/stable/handbook/concepts.html#modes"""
IN_PNG = frozenset(MODES) - {"CMYK"}
LARGEST = 1_000_000
"""Pixels of the largest image that is tried."""
THINNEST = 200
"""Length of an image in its widths: the shorter side is resized, so the longer one may become very long."""
TOGETHER = 3


class Drawn(NamedTuple):
    """An image by what it is made of."""

    mode: str
    width: int
    height: int
    filling: str


@dataclass(frozen=True)
class Options:
    """How far a vector's length may be from one, and a file's vector from that of the same pixels in memory, as a share
    of the largest number in it."""

    norm_error: float = at_most(1e-3)
    file_error: float = at_most(1e-4)


def check(subject: Subject, limits: Options) -> Verdict:
    """Embed images of every mode, of one pixel, of many and of a single line, and those that are drawn."""
    from modelkit import searching  # noqa: PLC0415

    try:
        vectors = _Vectors(subject, limits)
    except StageError as error:
        return Verdict("any-image", "failed", f"the finished folder cannot be used: {error.message}")
    named = [[vectors.kept(one)] for one in _named()]
    found = searching.all_broken(named, vectors.drawn(), vectors.reason, subject.examples)
    verdict = judge("any-image", {**vectors.measured, "examples": subject.examples}, limits)
    if not found:
        return verdict
    worst = tuple({"reason": one.reason, "again": _again(one.example)} for one in found)
    return replace(verdict, outcome="failed", sentence=f"{found[0].reason}: {_again(found[0].example)}", worst=worst)


def _named() -> Iterator[Drawn]:
    yield from (Drawn(mode, 37, 53, "noise") for mode in MODES)
    yield from (Drawn("RGB", *size, "noise") for size in ((1, 1), (THINNEST, 1), (1, THINNEST), (1200, 800)))
    yield from (Drawn("RGB", 64, 64, filling) for filling in ("black", "white"))


class _Vectors:
    """The model's vectors of images, and what is wrong with them; the worst figures so far."""

    def __init__(self, subject: Subject, limits: Options) -> None:
        from modelkit.feeds import Listener  # noqa: PLC0415
        from modelkit.images import MOST_PIXELS, read_settings  # noqa: PLC0415

        folder: Path = subject.artifact.folder
        self._settings, self._limits = read_settings(folder), limits
        self._listener = Listener(folder, subject.manifest.task)
        self._model = subject.open(subject.artifact)
        image = getattr(subject.manifest.task.options, "image", None)
        self._most: int = getattr(image, "max_pixels", MOST_PIXELS)
        self.measured: dict[str, Any] = {"norm_error": 0.0, "file_error": 0.0, "images": 0}

    def drawn(self) -> Any:
        """Batches of images that the manifest's `max_pixels` lets pass."""
        from hypothesis import strategies as st  # noqa: PLC0415

        small, thin, wide = st.integers(1, 64), st.integers(1, 3), st.integers(1, 1500)
        sizes = st.one_of(st.tuples(small, small), st.tuples(thin, wide), st.tuples(wide, thin), st.tuples(wide, wide))
        filling = st.sampled_from(("black", "white", "noise"))
        one = st.builds(lambda mode, size, filling: self.kept(Drawn(mode, size[0], size[1], filling)),
                        st.sampled_from(MODES), sizes, filling)  # fmt: skip
        return st.lists(one, min_size=1, max_size=TOGETHER)

    def kept(self, one: Drawn) -> Drawn:
        """The image within the bounds on modes, pixels and thinness, before and after it is resized."""
        size = self._settings.size
        side = size if isinstance(size, int) else max(size.values())
        thinnest = max(1, min(THINNEST, self._most // side**2))
        most = min(self._most, LARGEST)
        width, height = min(one.width, most), min(one.height, most)
        while width * height > most:
            width, height = max(1, width // 2), max(1, height // 2)
        width, height = min(width, height * thinnest), min(height, width * thinnest)
        return Drawn(one.mode if self._settings.do_convert_rgb else "RGB", width, height, one.filling)

    def reason(self, batch: Sequence[Drawn]) -> str | None:
        """What is wrong with the vectors of the images, and of the same ones as files and as arrays."""
        import numpy as np  # noqa: PLC0415

        images = [made(one) for one in batch]
        forms: list[tuple[int, Any]] = list(enumerate(images))
        forms += [(n, _png(image)) for n, image in enumerate(images) if image.mode in IN_PNG]
        forms += [(n, np.array(image)) for n, image in enumerate(images) if image.mode == "RGB"]
        asked = [form for _, form in forms]
        try:
            declared = self._listener.model.embed_images(asked, batch_size=len(asked))
            rows = self._model.embed_images(asked, batch_size=len(asked))
        except ModelkitError as error:
            return f"the model does not take it ({error.message})"
        self.measured["images"] += len(batch)
        if (rows.shape, rows.dtype) != (declared.shape, declared.dtype):
            return f"the vectors are {rows.dtype}{list(rows.shape)}, not {declared.dtype}{list(declared.shape)}"
        if not np.isfinite(rows).all():
            return f"{int((~np.isfinite(rows)).any(1).sum())} of {len(rows)} vectors are not finite"
        return self._figures(rows.astype(np.float64), [n for n, _ in forms])

    def _figures(self, rows: Any, whose: Sequence[int]) -> str | None:
        import numpy as np  # noqa: PLC0415

        lengths = np.linalg.norm(rows, axis=1)
        worst = float(lengths[abs(lengths - 1).argmax()])
        off, limit = abs(worst - 1), self._limits.norm_error
        self.measured["norm_error"] = max(self.measured["norm_error"], off)
        if off > limit:
            return f"a vector has the length {worst:.6g}, {off:.2g} from 1 (limit {limit:.2g})"
        error = float(abs(rows - rows[list(whose)]).max() / max(abs(rows).max(), 1e-30))
        self.measured["file_error"] = max(self.measured["file_error"], error)
        return f"a file's vector is not that of its pixels ({error:.2g})" if error > self._limits.file_error else None


def made(one: Drawn) -> PIL.Image.Image:
    """The image, noise from a seed of its own."""
    import numpy as np  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    shape = one.height, one.width, 3
    fillings = {"black": 0, "white": 255}
    if one.filling == "noise":
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    else:
        pixels = np.full(shape, fillings[one.filling], np.uint8)
    if one.mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    return Image.fromarray(pixels).convert(one.mode)


def _png(image: PIL.Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _again(batch: Sequence[Drawn]) -> str:
    """The call that shows it, of what `modelkit.model.load` gives."""
    made = ", ".join(f"made(Drawn{tuple(one)})" for one in batch)
    return f"load(folder).embed_images([{made}]) with Drawn and made of modelkit.checks.any_image"
