"""images.py against recordings of transformers' CLIPImageProcessor, and against what strangers send."""

from __future__ import annotations

import base64
import json
import struct
import warnings
import zlib
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from modelkit.errors import InputError, StageError
from modelkit.images import FORMATS, MOST_PIXELS, Preprocessor, Settings, read_settings
from stand_ins.clip import PROCESSOR
from stand_ins.pictures import MODES, picture

RECORDED = json.loads((Path(__file__).parents[1] / "references" / "clip.json").read_text())
ONE_LEVEL = 1.01 / 255 / min(Settings().image_std)
"""Of the 256 a colour has. Before version 13, Pillow rounds differently where one side grows and the other shrinks."""
AS_RECORDED = (int(PIL.__version__.split(".")[0]) >= 13) == (int(RECORDED["versions"]["PIL"].split(".")[0]) >= 13)
SMALL = Preprocessor(Settings(size=16, crop_size=16))


def preprocessor(folder: Path, **own: Any) -> Preprocessor:
    (folder / "preprocessor_config.json").write_text(json.dumps(own))
    return Preprocessor(read_settings(folder))


def encoded(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def data_url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def refusal(given: Any, by: Preprocessor = SMALL) -> str:
    with pytest.raises(InputError) as caught:
        by.pixel_values(given)
    told = str(caught.value)
    assert "\n" not in told
    return told


def assert_recorded(found: np.ndarray, row: dict[str, Any], *, exact: bool = True) -> None:
    assert list(found.shape) == row["shape"]
    flat = found.reshape(-1)
    kept = [float(flat[n]) for n in (0, 1, 500, 1000, -1) if -1 <= n < flat.size]
    np.testing.assert_allclose(kept, row["values"], rtol=0, atol=0 if exact else ONE_LEVEL)
    assert not exact or sha256(found.tobytes()).hexdigest() == row["sha256"]


# The reference


@pytest.mark.parametrize("row", RECORDED["images"], ids=lambda row: f"{row['processor']}-{row['mode']}-{row['size']}")
def test_pixel_values_are_bit_for_bit_those_of_the_reference(tmp_path: Path, row: dict[str, Any]) -> None:
    by = preprocessor(tmp_path, **RECORDED["processors"][row["processor"]])
    kept_in_shape = "height" not in str(by.settings.size)
    exact = kept_in_shape or AS_RECORDED
    assert_recorded(by.pixel_values(picture(row["mode"], *row["size"])), row, exact=exact)


@pytest.mark.parametrize("row", RECORDED["oriented"], ids=lambda row: str(row["orientation"]))
def test_a_file_is_turned_as_the_camera_was_held(tmp_path: Path, row: dict[str, Any]) -> None:
    exif = Image.Exif()
    exif[0x0112] = row["orientation"]
    content = encoded(picture("RGB", 37, 29), exif=exif)
    by = preprocessor(tmp_path, **RECORDED["processors"]["old sizes"])
    (tmp_path / "photo.png").write_bytes(content)
    for given_as in (tmp_path / "photo.png", content, data_url(content)):
        assert_recorded(by.pixel_values(given_as), row)


def test_the_recordings_cover_every_mode() -> None:
    assert {row["mode"] for row in RECORDED["images"]} == set(MODES)


# What an image can be given as


def test_a_picture_is_the_same_however_it_is_given(tmp_path: Path) -> None:
    image = picture("RGB", 50, 40)
    content = encoded(image)
    (tmp_path / "a.png").write_bytes(content)
    expected = SMALL.pixel_values(image)
    for given_as in (tmp_path / "a.png", str(tmp_path / "a.png"), content, data_url(content), np.asarray(image)):
        np.testing.assert_array_equal(SMALL.pixel_values(given_as), expected)


def test_an_image_at_hand_is_not_turned_and_not_changed() -> None:
    image = picture("P", 30, 20)
    image.info["transparency"] = bytes(range(256))
    image.getexif()[0x0112] = 6
    before = image.copy()
    expected = SMALL.pixel_values(plain(before))
    np.testing.assert_array_equal(SMALL.pixel_values(image), expected)
    assert image.info["transparency"] == bytes(range(256))
    assert image == before


def plain(image: Image.Image) -> Image.Image:
    bare = image.copy()
    bare.info.clear()
    return bare.convert("RGB")


def test_only_the_first_frame_of_an_animation_counts() -> None:
    frames = [picture("P", 20, 20), Image.new("P", (20, 20), 3)]
    content = encoded(frames[0], "gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(SMALL.pixel_values(content), SMALL.pixel_values(encoded(frames[0], "gif")))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_known_format_is_read(kind: str) -> None:
    assert SMALL.pixel_values(encoded(picture("RGB", 20, 30), kind)).shape == (3, 16, 16)


def test_associated_alpha_on_grey_is_read_too() -> None:
    assert np.isfinite(SMALL.pixel_values(picture("LA", 9, 9).convert("La"))).all()


@settings(deadline=None, max_examples=150)
@given(
    mode=st.sampled_from([*MODES, "La"]),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_mode_and_size_gives_finite_pixels_of_the_right_shape(
    mode: str, size: tuple[int, int], seed: int
) -> None:
    made = Image.new(mode, size)
    bytes_needed = len(made.tobytes())
    noise = np.random.default_rng(seed).integers(0, 256, bytes_needed, np.uint8).tobytes()
    if mode == "F":
        noise = np.random.default_rng(seed).normal(100, 300, size[0] * size[1]).astype(np.float32).tobytes()
    made.frombytes(noise)
    found = SMALL.pixel_values(made)
    assert (found.shape, found.dtype) == ((3, 16, 16), np.float32)
    assert np.isfinite(found).all()


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    crop=st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
def test_cropping_without_resizing_keeps_the_middle(size: tuple[int, int], crop: tuple[int, int]) -> None:
    width, height = size
    array = np.random.default_rng(width * 71 + height).integers(1, 256, (height, width, 3), np.uint8)
    own = Settings(do_resize=False, do_rescale=False, do_normalize=False,
                   crop_size={"height": crop[1], "width": crop[0]})  # fmt: skip
    found = Preprocessor(own).pixel_values(array)
    assert found.shape == (3, crop[1], crop[0])
    kept = (found > 0).all(0)
    assert kept.sum() == min(height, crop[1]) * min(width, crop[0])


# What is refused


def test_a_missing_file_is_told_by_name(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.png") == f"{tmp_path / 'no.png'}: cannot be read (No such file or directory)"


@pytest.mark.parametrize("given_as", [".", "a\0b", "x" * 5000])
def test_a_path_that_is_none_is_told(given_as: str) -> None:
    assert "cannot be read (" in refusal(given_as)


@pytest.mark.parametrize("content", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg/>", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_told(content: bytes) -> None:
    assert "no image of a known format" in refusal(content)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_file_is_told(kind: str) -> None:
    content = encoded(picture("RGB", 64, 64), kind)
    told = refusal(content[: len(content) // 2])
    assert "cannot be decoded (" in told or "no image of a known format" in told


@settings(deadline=None, max_examples=100)
@given(data=st.data(), kind=st.sampled_from(FORMATS))
def test_a_damaged_file_is_an_image_or_told(data: st.DataObject, kind: str) -> None:
    content = bytearray(encoded(picture("RGB", 12, 9), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    told, shape = "", (3, 16, 16)
    try:
        shape = SMALL.pixel_values(bytes(content)).shape
    except InputError as error:
        told = str(error)
    assert "\n" not in told
    assert shape == (3, 16, 16)


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it has side times side pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_460, 14_000, 60_000])
@pytest.mark.parametrize("warn", ["error", "ignore"])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch, side: int, warn: Any
) -> None:
    warnings.simplefilter(warn)  # pytest puts it back
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
    assert f"{side * side}" in (told := refusal(bomb(side))) or f"{side} x {side} pixels" in told


def test_the_bound_is_the_manifests(tmp_path: Path) -> None:
    content = encoded(picture("RGB", 64, 64))
    assert Preprocessor(SMALL.settings, 64 * 64).pixel_values(content).shape == (3, 16, 16)
    told = refusal(content, Preprocessor(SMALL.settings, 64 * 64 - 1))
    assert told.startswith("the image has 64 x 64 pixels, more than 4,095; ")


def test_an_image_that_resizing_would_blow_up_is_refused() -> None:
    told = refusal(Image.new("L", (1, 60_000)), Preprocessor(Settings()))
    assert told.startswith("the image of 1 x 60000 pixels, made as large as preprocessor_config.json asks, has 224 x ")


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_an_image_without_pixels_is_refused(size: tuple[int, int]) -> None:
    expected = f"the image is {size[0]} x {size[1]} pixels; give one that has pixels"
    assert refusal(Image.new("RGB", size)) == expected
    assert refusal(np.zeros((size[1], size[0], 3), np.uint8)) == expected


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((3, 4, 4), np.uint8), np.zeros(3, np.uint8)]
)
def test_an_array_of_another_kind_is_refused(array: np.ndarray) -> None:
    assert refusal(array).startswith("expected an array uint8[height, width, 3], got ")


@pytest.mark.parametrize("given_as", [None, 7, ["a.png"], bytearray(b"x")])
def test_what_can_be_no_image_is_refused(given_as: Any) -> None:
    assert refusal(given_as).endswith(f"got {type(given_as).__name__}")


@pytest.mark.parametrize("url", ["data:,x", "data:text/plain;base64,eA==", "data:image/png,x", "data:image/png;base64"])
def test_another_kind_of_data_url_is_refused(url: str) -> None:
    assert refusal(url).startswith("expected a data URL such as ")


def test_a_data_url_that_is_no_base64_is_refused() -> None:
    assert refusal("data:image/png;base64,a*b").startswith("the data URL is no base64 (")


def test_a_mode_other_than_rgb_is_refused_where_nothing_is_converted() -> None:
    by = Preprocessor(Settings(size=16, crop_size=16, do_convert_rgb=False))
    assert by.pixel_values(picture("RGB", 9, 9)).shape == (3, 16, 16)
    assert "has the mode L" in refusal(picture("L", 9, 9), by)


def test_nothing_warns() -> None:
    image = picture("P", 20, 20)
    image.info["transparency"] = bytes(256)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SMALL.pixel_values(image)
        SMALL.pixel_values(encoded(image))


# preprocessor_config.json


def test_settings_in_the_old_form_are_read(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    assert read_settings(tmp_path) == Settings(size=32, crop_size=32)


def test_the_bound_is_pillows_own() -> None:
    assert MOST_PIXELS == Image.MAX_IMAGE_PIXELS, f"Pillow {PIL.__version__} has another"


@pytest.mark.parametrize(
    ("own", "shape"),
    [
        ({"size": 224, "crop_size": 30}, (30, 30)),
        ({"crop_size": {"height": 3, "width": 4}}, (3, 4)),
        ({"size": {"height": 3, "width": 4}, "do_center_crop": False}, (3, 4)),
        ({"size": 224, "do_center_crop": False}, None),
        ({"size": {"shortest_edge": 224}, "do_center_crop": False}, None),
        ({"size": {"height": 3, "width": 4}, "do_center_crop": False, "do_resize": False}, None),
    ],
)
def test_the_shape_is_known_where_the_image_does_not_decide_it(
    tmp_path: Path, own: dict[str, Any], shape: tuple[int, int] | None
) -> None:
    assert preprocessor(tmp_path, **own).shape == shape


@pytest.mark.parametrize(
    "own",
    [
        {"size": 0},
        {"size": "224"},
        {"size": {}},
        {"size": {"longest_edge": 224}},
        {"size": {"height": 4}},
        {"crop_size": {"shortest_edge": 224}},
        {"crop_size": -1},
        {"crop_size": 10**9},
        {"resample": 9},
        {"image_mean": [0.5, 0.5]},
        {"image_std": [0.5, 0, 0.5]},
        {"do_resize": "yes"},
        {"image_processor_type": "ViTImageProcessor"},
    ],
)
def test_settings_that_are_not_understood_are_refused(tmp_path: Path, own: dict[str, Any]) -> None:
    with pytest.raises(StageError, match=r"^preprocessor_config\.json: "):
        preprocessor(tmp_path, **own)


def test_missing_settings_are_told(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no preprocessor_config\.json in the source"):
        read_settings(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_settings_that_are_no_json_object_are_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "preprocessor_config.json").write_bytes(content)
    with pytest.raises(StageError, match=r"^preprocessor_config\.json: "):
        read_settings(tmp_path)
