"""Images: from a file, bytes, a data URL, Pillow or numpy to the pixel values that a model takes.

The arithmetic is that of transformers' `CLIPImageProcessor`, bit for bit with the same Pillow: it resizes bytes, and
the rest is done in the same order and precision. (Pillow 13 rounds another way where one side grows and the other
shrinks; sizes that keep an image's shape do neither.) The processor's guess which axis of a small image holds the
colours is left out: colours come last.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias

from modelkit.errors import InputError, MissingFileError, StageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt
    import PIL.Image

    Picture: TypeAlias = str | Path | bytes | PIL.Image.Image | npt.NDArray[np.uint8]
    """A path, a file's bytes, `data:image/...;base64,...`, a Pillow image, or uint8[height, width, 3] in RGB."""

SETTINGS = "preprocessor_config.json"
DATA_URL = "data:image/"
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded. Pillow knows more; one of them (EPS) would start another program."""
MOST_PIXELS = 89_478_485
"""Pillow's own bound, `Image.MAX_IMAGE_PIXELS`: a quarter of a gigabyte in RGB."""


@dataclass(frozen=True)
class Settings:
    """What is read of preprocessor_config.json; the defaults are those of `CLIPImageProcessor`."""

    image_processor_type: Literal["CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPFeatureExtractor"] | None = None
    do_resize: bool = True
    size: int | dict[str, int] = 224
    resample: Literal[0, 1, 2, 3, 4, 5] = 3
    do_center_crop: bool = True
    crop_size: int | dict[str, int] = 224
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    do_convert_rgb: bool = True

    def __post_init__(self) -> None:
        """Raises `ValueError` for sizes that are none."""
        sides = [*_values(self.size), *_values(self.crop_size)]
        wanted = isinstance(self.size, int) or "shortest_edge" in self.size or {"height", "width"} <= self.size.keys()
        if not wanted or not (isinstance(self.crop_size, int) or {"height", "width"} <= self.crop_size.keys()):
            raise ValueError("size needs shortest_edge, or height and width; crop_size needs height and width")
        if min(sides) < 1 or max(sides) > MOST_PIXELS:
            raise ValueError(f"sizes are between 1 and {MOST_PIXELS} pixels")
        if not all(self.image_std):
            raise ValueError("image_std holds 0, by which nothing can be divided")


def read_settings(folder: Path) -> Settings:
    """preprocessor_config.json of `folder`. Raises `StageError` when it is missing or asks for something else."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config  # noqa: PLC0415

    path = folder / SETTINGS
    if not path.exists():
        raise MissingFileError(SETTINGS)
    adapter = TypeAdapter(with_config(ConfigDict(strict=True, extra="ignore"))(Settings))
    try:
        return adapter.validate_json(path.read_bytes())
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise StageError(
            f"{SETTINGS}: {found}", hint="images are prepared as CLIPImageProcessor does, or not"
        ) from error


@dataclass(frozen=True)
class Preprocessor:
    """From images to pixel values, as `settings` say; larger ones than `most_pixels` are not even decoded."""

    settings: Settings
    most_pixels: int = MOST_PIXELS

    @property
    def shape(self) -> tuple[int, int] | None:
        """Height and width of what comes out; None when the image decides."""
        own = self.settings
        if own.do_center_crop:
            return _height_width(own.crop_size)
        by_image = isinstance(own.size, int) or "shortest_edge" in own.size
        return None if by_image or not own.do_resize else _height_width(own.size)

    def pixel_values(self, picture: Picture) -> npt.NDArray[np.float32]:
        """float32[3, height, width]. Raises `InputError` for what is no image, is damaged, or is too large."""
        import numpy as np  # noqa: PLC0415

        own, image = self.settings, self._rgb(picture)
        pixels = self._resized(image)
        if own.do_center_crop:
            pixels = _cropped(pixels, *_height_width(own.crop_size))
        if own.do_rescale:
            pixels = (pixels.astype(np.float64) * own.rescale_factor).astype(np.float32)
        pixels = pixels.astype(np.float32)
        if own.do_normalize:
            pixels = (pixels - np.array(own.image_mean, np.float32)) / np.array(own.image_std, np.float32)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _rgb(self, picture: Picture) -> PIL.Image.Image:
        """As transformers' `load_image`: the camera's orientation counts for files, not for images at hand."""
        import numpy as np  # noqa: PLC0415
        from PIL import Image, ImageOps  # noqa: PLC0415

        if isinstance(picture, np.ndarray):
            return self._converted(Image.fromarray(_refuse_odd_array(picture)))
        if isinstance(picture, Image.Image):
            with _told("the image"):
                return self._converted(picture)
        name, file = _opened(picture)
        with file, _told(name), Image.open(file, formats=FORMATS) as image:
            self._refuse_large(name, *image.size)
            return self._converted(ImageOps.exif_transpose(image))

    def _converted(self, image: PIL.Image.Image) -> PIL.Image.Image:
        if not all(image.size):
            raise InputError(f"the image is {image.width} x {image.height} pixels", hint="give one that has pixels")
        self._refuse_large("the image", *image.size)
        image.load()
        if image.mode == "RGB":
            return image
        if not self.settings.do_convert_rgb:
            raise InputError(
                f"the image has the mode {image.mode}, and {SETTINGS} does not convert", hint="convert it to RGB"
            )
        if isinstance(image.info.get("transparency"), bytes):
            # Pillow warns that the transparency of a palette is lost in RGB, which is what is asked for here.
            image = image.copy()
            del image.info["transparency"]
        # Associated alpha has no way to RGB but over RGBA.
        return (image.convert("LA") if image.mode == "La" else image).convert("RGB")

    def _resized(self, image: PIL.Image.Image) -> npt.NDArray[Any]:
        """uint8[height, width, 3]"""
        import numpy as np  # noqa: PLC0415
        from PIL import Image  # noqa: PLC0415

        if not self.settings.do_resize:
            return np.array(image)
        width, height = _target(self.settings.size, *image.size)
        what = f"the image of {image.width} x {image.height} pixels, made as large as {SETTINGS} asks,"
        self._refuse_large(what, width, height)
        return np.array(image.resize((width, height), Image.Resampling(self.settings.resample)))

    def _refuse_large(self, what: str, width: int, height: int) -> None:
        if width * height > self.most_pixels:
            raise InputError(
                f"{what} has {width} x {height} pixels, more than {self.most_pixels:,}",
                hint="make it smaller, or raise `image.max_pixels` in the manifest",
            )


def _values(size: int | dict[str, int]) -> list[int]:
    return [size] if isinstance(size, int) else [*size.values()] or [0]


def _height_width(size: int | dict[str, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size["height"], size["width"])


def _target(size: int | dict[str, int], width: int, height: int) -> tuple[int, int]:
    """Width and height after resizing; a plain number is the length of the shorter side."""
    if isinstance(size, dict) and "shortest_edge" not in size:
        return size["width"], size["height"]
    short = size if isinstance(size, int) else size["shortest_edge"]
    # In floating point and cut off, not rounded: the reference does so.
    long = int(short * max(width, height) / min(width, height))
    return (short, long) if width <= height else (long, short)


def _cropped(pixels: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[Any]:
    """The middle of uint8[...]; where it is smaller, black is put around, one row more at the start if it is odd."""
    import numpy as np  # noqa: PLC0415

    black = [(math.ceil(max(0, want - have) / 2), max(0, want - have) // 2)
             for want, have in zip((height, width), pixels.shape, strict=False)]  # fmt: skip
    padded = np.pad(pixels, [*black, (0, 0)]) if any(map(any, black)) else pixels
    # Counted in the image before anything was put around it, where a start may be negative.
    top, left = ((have - want) // 2 + before
                 for have, want, (before, _) in zip(pixels.shape, (height, width), black, strict=False))  # fmt: skip
    return padded[top : top + height, left : left + width]


def _refuse_odd_array(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    import numpy as np  # noqa: PLC0415

    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise InputError(f"expected an array uint8[height, width, 3], got {array.dtype}{list(array.shape)}")
    if not array.size:
        raise InputError(f"the image is {array.shape[1]} x {array.shape[0]} pixels", hint="give one that has pixels")
    return np.ascontiguousarray(array)


def _opened(picture: object) -> tuple[str, IO[bytes]]:
    """What to call it, and its bytes."""
    if isinstance(picture, bytes):
        return "the image", io.BytesIO(picture)
    if isinstance(picture, str) and picture.startswith("data:"):
        return "the data URL", io.BytesIO(_decoded(picture))
    if not isinstance(picture, str | Path):
        raise InputError(
            f"expected a path, bytes, a data URL, a Pillow image or a numpy array, got {type(picture).__name__}"
        )
    try:
        return str(picture), Path(picture).open("rb")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot be read ({reason})", where=str(picture)[:200]) from error


def _decoded(url: str) -> bytes:
    head, comma, body = url.partition(",")
    if not comma or not head.startswith(DATA_URL) or not head.endswith(";base64"):
        raise InputError(f"expected a data URL such as 'data:image/png;base64,...', got '{url[:40]}'")
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise InputError(f"the data URL is no base64 ({error})") from error


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Whatever a decoder raises, as one sentence: each has its own exceptions for damaged files."""
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415

    try:
        yield
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is no image of a known format ({', '.join(FORMATS)})") from error
    # Pillow's own bound, checked as it reads the header: above it a warning, which a caller may have made an error.
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(f"{name} is too large: {error}", hint="make it smaller") from error
    except Exception as error:
        raise InputError(f"{name} cannot be decoded ({error})", hint="it is cut short or damaged") from error
