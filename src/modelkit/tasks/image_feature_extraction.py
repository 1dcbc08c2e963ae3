"""`image-feature-extraction`: images and texts -> vectors in one space, by a model with a part for each (CLIP)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit import arguments
from modelkit.errors import ManifestError, StageError
from modelkit.images import DATA_URL, MOST_PIXELS, SETTINGS, Preprocessor, read_settings
from modelkit.tokenizer import (
    COMPANIONS,
    in_batches,
    padded,
    read_tokenizer,
    refuse_short,
    refuse_stranger,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from modelkit.images import Picture
    from modelkit.runtime import Session, Sessions

TEXT, VISION = "text_model", "vision_model"
PARTS = {
    TEXT: (("input_ids", "attention_mask"), "text_embeds"),
    VISION: (("pixel_values",), "image_embeds"),
}
"""Part -> what is fed to it, and what is read."""
GIVES = ("vectors", "images")
CONSUMER_FILES = (*COMPANIONS, SETTINGS, "config.json")
"""What a consumer of the model needs beside it; copied when the source has them."""


@dataclass(frozen=True)
class Text:
    """How text becomes a vector. `max_tokens` counts special tokens; longer text is cut."""

    max_tokens: int = 77

    def __post_init__(self) -> None:
        """Refuse a length that leaves no token between the two special ones around a text."""
        refuse_short(self.max_tokens, 3)


@dataclass(frozen=True)
class Image:
    """How images are read. Larger ones than `max_pixels` (width times height) are refused before they are decoded."""

    max_pixels: int = MOST_PIXELS

    def __post_init__(self) -> None:
        """Refuse a bound that no image keeps, or that Pillow does not let pass."""
        if not 1 <= self.max_pixels <= MOST_PIXELS:
            raise ManifestError(f"expected max_pixels between 1 and {MOST_PIXELS}, got {self.max_pixels}")


@dataclass(frozen=True)
class Options:
    """The manifest keys this task adds."""

    text: Text = field(default_factory=Text)
    image: Image = field(default_factory=Image)


class ImageTextEmbedder:
    """A loaded model. Each of its two parts is loaded when it is first needed."""

    def __init__(self, folder: Path, sessions: Sessions, options: Options) -> None:
        self._folder, self._sessions = folder, sessions
        self._preprocessor = Preprocessor(read_settings(folder), options.image.max_pixels)
        self._tokenizer = read_tokenizer(folder / "tokenizer.json")
        self._tokenizer.enable_truncation(options.text.max_tokens)
        self._tokenizer.no_padding()

    def embed_images(self, images: Sequence[Picture], *, batch_size: int = 8) -> npt.NDArray[np.float32]:
        """One row of length one per image: float32[len(images), width].

        An image is a path, a file's bytes, a `data:image/...;base64,` URL, a Pillow image or uint8[height, width, 3].
        Raises `InputError` for what is no image, is damaged or too large, and for one image without a list.
        """
        import numpy as np  # noqa: PLC0415

        if not isinstance(images, list | tuple):
            # An array could be gone through as well: row by row of one image.
            raise arguments.wrong("images", "a list of images", images, hint="put the one image in brackets")
        most, session = arguments.whole("batch_size", batch_size, least=1), self._vision()
        rows = [np.empty((0, _width(session, VISION)), np.float32)]
        for start in range(0, len(images), most):
            pixels = np.stack([self._preprocessor.pixel_values(image) for image in images[start : start + most]])
            rows.append(_run(session, VISION, pixels))
        return np.concatenate(rows)

    def embed_texts(self, texts: Sequence[str], *, batch_size: int = 32) -> npt.NDArray[np.float32]:
        """One row of length one per text: float32[len(texts), width], in the space of the images.

        Texts of like length share a batch; rows come back in the given order. Raises `InputError` for a bare string
        and for what is no text.
        """
        import numpy as np  # noqa: PLC0415

        given, most = arguments.texts("texts", texts), arguments.whole("batch_size", batch_size, least=1)
        session = self._part(TEXT)
        rows = np.empty((len(given), _width(session, TEXT)), np.float32)
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(given)]
        for batch in in_batches([len(one) for one in ids], most):
            # 0, whatever pad the tokenizer has: what comes after a text is never looked at, and where a text ends may
            # be told by its largest id, which a pad must not be.
            rows[batch] = _run(session, TEXT, *padded([ids[row] for row in batch], 0))
        return rows

    def similarity(self, images: Sequence[Picture], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Cosine of each image with each text: float32[len(images), len(texts)]."""
        return self.embed_images(images) @ self.embed_texts(texts).T

    def outputs(self, texts: Sequence[str], *, batch_size: int = 32) -> npt.NDArray[np.float32]:
        """What the checks compare: a row per text, that of the image where the text is a `data:image/` URL."""
        import numpy as np  # noqa: PLC0415

        given = arguments.texts("texts", texts)
        seen = [row for row, text in enumerate(given) if text.startswith(DATA_URL)]
        read = [row for row, text in enumerate(given) if not text.startswith(DATA_URL)]
        made = self.embed_texts([given[row] for row in read], batch_size=batch_size)
        rows = np.empty((len(given), made.shape[1]), np.float32)
        rows[read] = made
        if seen:
            rows[seen] = self.embed_images([given[row] for row in seen], batch_size=batch_size)
        return rows

    def _vision(self) -> Session:
        session = self._part(VISION)
        wanted = tuple(session.inputs["pixel_values"][1][2:])
        if self._preprocessor.shape != wanted:
            made = " x ".join(map(str, self._preprocessor.shape or ["an image's own size"]))
            raise StageError(
                f"preprocessor_config.json makes {made}, the model takes {' x '.join(map(str, wanted))}",
                where=self._folder,
                hint="the two do not belong together",
            )
        return session

    def _part(self, part: str) -> Session:
        session, (inputs, result) = self._sessions[part], PARTS[part]
        if set(session.inputs) != set(inputs) or result not in session.outputs:
            raise StageError(
                f"{part} takes {', '.join(session.inputs)} and gives {', '.join(session.outputs)}",
                where=self._folder,
                hint=f"image-feature-extraction feeds {', '.join(inputs)} and reads {result}",
            )
        return session


def _run(session: Session, part: str, *arrays: Any) -> Any:
    inputs, result = PARTS[part]
    return session.run(dict(zip(inputs, arrays, strict=True)), [result])[0]


def _width(session: Session, part: str) -> int:
    return int(session.outputs[PARTS[part][1]][1][-1])


def open_(folder: Path, sessions: Sessions, options: Options) -> ImageTextEmbedder:
    """The model in `folder` as an object. Raises `StageError` when tokenizer or image settings are not readable."""
    return ImageTextEmbedder(folder, sessions, options)


def verify(folder: Path, rows: int | None) -> None:
    """Refuse image settings that are not understood, and a tokenizer that cannot belong to a table of `rows` rows."""
    read_settings(folder)
    refuse_stranger(folder, rows)
