"""Records what transformers' CLIPModel and CLIPImageProcessor make of the stand-ins.

Runs where torch, transformers and pillow are: python tests/references/record_clip.py > tests/references/clip.json
"""

from __future__ import annotations

import json
import sys
import tempfile
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import PIL
import torch
import transformers
from transformers import CLIPImageProcessor, CLIPModel
from transformers.image_utils import load_image

from stand_ins.clip import clip
from stand_ins.pictures import MODES, SIZES, picture

MODELS: dict[str, dict[str, Any]] = {
    "legacy end": {},
    "end by its id, gelu": {
        "text_config": {"eos_token_id": 49, "hidden_act": "gelu"},
        "vision_config": {"hidden_act": "gelu"},
    },
    "other dimensions": {
        "projection_dim": 24,
        "text_config": {"num_hidden_layers": 3, "num_attention_heads": 2, "layer_norm_eps": 1e-3},
        "vision_config": {"image_size": 30, "patch_size": 7, "num_attention_heads": 6, "num_hidden_layers": 1},
    },
    "repeated settings": {
        "text_config_dict": {
            "hidden_size": 32,
            "vocab_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 24,
        }
    },
}
START, END, PAD = 48, 49, 0
TEXTS = [[START, END], [START, 5, 9, 2, END], [START, 2, 2, END], [START, *range(1, 23), END]]
PROCESSORS: dict[str, dict[str, Any]] = {
    "old sizes": {"size": 32, "crop_size": 32},
    "padding": {"size": {"shortest_edge": 20}, "crop_size": {"height": 33, "width": 47}},
    "a box": {"size": {"height": 24, "width": 40}, "crop_size": {"height": 17, "width": 33}, "resample": 2},
    "no crop": {"size": {"height": 9, "width": 12}, "do_center_crop": False},
    "crop alone": {"do_resize": False, "crop_size": {"height": 30, "width": 31}, "do_normalize": False},
    "no rescaling": {
        "size": 16,
        "crop_size": 16,
        "do_rescale": False,
        "image_mean": [1, 2, 3],
        "image_std": [0.5, 4, 7],
    },
    "other factor": {"size": 16, "crop_size": 16, "rescale_factor": 0.00784313725490196},
}
KEPT = (0, 1, 500, 1000, -1)
"""Which values of an array are written down, beside the digest of all."""


def pixels_of(side: int) -> np.ndarray:
    """float32[3, 3, side, side]"""
    return np.random.default_rng(5).standard_normal((3, 3, side, side), np.float32)


def models() -> list[dict[str, Any]]:
    """Embeddings of `TEXTS`, padded together, and of `pixels_of`."""
    rows = []
    for seed, (name, config) in enumerate(MODELS.items()):
        with tempfile.TemporaryDirectory() as folder:
            clip(Path(folder), seed, **config)
            model = CLIPModel.from_pretrained(folder).eval()
        longest = max(map(len, TEXTS))
        ids = torch.tensor([text + [PAD] * (longest - len(text)) for text in TEXTS])
        mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in TEXTS])
        pixels = torch.from_numpy(pixels_of(config.get("vision_config", {}).get("image_size", 32)))
        with torch.no_grad():
            found = model(input_ids=ids, attention_mask=mask, pixel_values=pixels)
        kept = {key: np.round(found[key].numpy().astype(float), 7).tolist() for key in ("text_embeds", "image_embeds")}
        rows.append({"name": name, "seed": seed, "config": config, "input_ids": ids.tolist(), **kept})
    return rows


def images() -> list[dict[str, Any]]:
    """Pixel values of every mode, and of every size under every processor."""
    cases = [("old sizes", mode, (37, 29)) for mode in MODES]
    cases += [(name, mode, size) for name in PROCESSORS for mode in ("RGB", "LA") for size in SIZES]
    return [_image(*case) for case in cases]


def _image(processor: str, mode: str, size: tuple[int, int]) -> dict[str, Any]:
    # Told where the colours are: the processor takes an image of one or three rows for one with its colours first.
    found = _processed(processor, picture(mode, *size))
    return {"processor": processor, "mode": mode, "size": size, **_summary(found)}


def oriented() -> list[dict[str, Any]]:
    """Pixel values of files that say how the camera was held."""
    rows = []
    for orientation in range(1, 9):
        file, exif = BytesIO(), PIL.Image.Exif()
        exif[0x0112] = orientation
        picture("RGB", 37, 29).save(file, "png", exif=exif)
        with tempfile.NamedTemporaryFile(suffix=".png") as place:
            Path(place.name).write_bytes(file.getvalue())
            found = _processed("old sizes", load_image(place.name))
        rows.append({"orientation": orientation, **_summary(found)})
    return rows


def _processed(processor: str, image: Any) -> np.ndarray:
    made = CLIPImageProcessor(**PROCESSORS[processor])(image, return_tensors="np", input_data_format="channels_last")
    return np.asarray(made["pixel_values"][0], np.float32)


def _summary(array: np.ndarray) -> dict[str, Any]:
    flat = array.reshape(-1)
    return {
        "shape": array.shape,
        "sha256": sha256(np.ascontiguousarray(array).tobytes()).hexdigest(),
        "values": [float(flat[n]) for n in KEPT if -1 <= n < flat.size],
    }


def main() -> None:
    """Write everything to standard output, one case per line."""
    torch.set_num_threads(1)
    versions = {module.__name__: module.__version__.split("+")[0] for module in (transformers, torch, PIL, np)}
    print('{"versions": ' + json.dumps(versions) + ', "processors": ' + json.dumps(PROCESSORS), end="")
    for name, rows in (("models", models()), ("images", images()), ("oriented", oriented())):
        print(f',\n"{name}": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]", end="")
    print("}")


if __name__ == "__main__":
    main()
