"""Characters drawn from fonts: 62 classes, foundries as contributors, held-out families.

Every font gives one image of each of 0-9, A-Z and a-z, on a common base line, so large that the
largest of them fills the image.  Left out are fonts without all characters, symbol fonts, fonts
whose small letters are capitals, fonts so thin that a character is invisible, and copies of
another font.  The test set are families that no training sample was drawn from: a fifth of the
groups of families that look alike, since a family is often drawn after another one.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
from PIL import Image, ImageDraw, ImageFont, features
from PIL import __version__ as pillow_version
from safetensors.numpy import save

from disinherit.common.errors import CheckpointError, DataError
from disinherit.common.files import write_atomic
from disinherit.simulations.data.fonts import (
    CHARACTERS,
    FontFile,
    family_of,
    find_fonts,
    more_fonts,
)

SIZE = 28
"""Height and width of an image."""

_RULES = 1
"""Number of what this module does with fonts: another one makes what was kept useless."""

_FINER = 4
_MARGIN = 2
_VISIBLE = 64
_FONTS_OF_A_FAMILY = 8
_CAPITALS = 0.5
_COPY = 0.1
_KIN = 0.25
_HELD_OUT = 0.2
_ALIKE_IN_CAPITALS = "ABDEGHQRT"

_Images = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Glyphs:
    """Images of characters, those of held-out families last.

    Attributes:
        images: `[n, SIZE, SIZE]`, white on black.
        targets: positions `[n]` in `CHARACTERS`.
        contributors: positions `[n]` in `foundries`.
        foundries: who made the fonts.
        held_out: how many of the images, at the end, are of held-out families.
    """

    images: _Images
    targets: npt.NDArray[np.int64]
    contributors: npt.NDArray[np.int64]
    foundries: tuple[str, ...]
    held_out: int


@dataclass(frozen=True, slots=True, eq=False)
class DrawnFont:
    """A font and its characters.

    Attributes:
        foundry: who made it.
        family: what it belongs to.
        images: of its characters, `[62, SIZE, SIZE]`.
    """

    foundry: str
    family: str
    images: _Images


def read_glyphs(folder: Path | None) -> Glyphs:
    """Return the images of all fonts; drawn once, and then read from the user's cache.

    The same fonts, drawn by the same version of Pillow, give the same images.

    Args:
        folder: of fonts; `None` for the system's. See `find_fonts`.

    Raises:
        DataError: if there are no fonts of two families, or one cannot be read.
    """
    files = find_fonts(folder)
    kept = _cache_folder() / f"glyphs-{_key(files)}.safetensors"
    found = _read_kept(kept)
    if found is None:
        found = _assembled(_drawn(files), folder)
        _keep(kept, found)
    return found


def draw(path: Path) -> _Images:
    """Draw the characters of one font.

    Returns:
        Images `[62, SIZE, SIZE]`.

    Raises:
        DataError: if the font cannot be drawn.
    """
    side = SIZE * _FINER
    try:
        boxes = _boxes(_font(path, 200.0))
        top, bottom = min(box[1] for box in boxes), max(box[3] for box in boxes)
        largest = max(bottom - top, *(box[2] - box[0] for box in boxes), 1)
        font = _font(path, 200.0 * (SIZE - 2 * _MARGIN) * _FINER / largest)
        boxes = _boxes(font)
        top, bottom = min(box[1] for box in boxes), max(box[3] for box in boxes)
        images = np.zeros((len(CHARACTERS), SIZE, SIZE), np.uint8)
        for row, (character, box) in enumerate(zip(CHARACTERS, boxes, strict=True)):
            canvas = Image.new("L", (side, side))
            where = ((side - box[0] - box[2]) // 2, (side - top - bottom) // 2)
            ImageDraw.Draw(canvas).text(where, character, fill=255, font=font, anchor="ls")
            images[row] = np.asarray(canvas.reduce(_FINER))
    except (OSError, ValueError) as error:
        raise DataError(
            f"Expected a font that can be drawn at {path}, but got: {error}. Remove the file, or "
            "install its package again."
        ) from error
    return images


def is_readable(images: _Images) -> bool:
    """Whether a font's characters can all be seen, and its small letters are no capitals."""
    if images.max(axis=(1, 2)).min() < _VISIBLE:
        return False
    pairs = [(CHARACTERS.index(one), CHARACTERS.index(one.lower())) for one in _ALIKE_IN_CAPITALS]
    distances = [
        float(np.linalg.norm(_shape(images[capital]) - _shape(images[small])))
        for capital, small in pairs
    ]
    return float(np.median(distances)) >= _CAPITALS


def without_copies(fonts: Sequence[DrawnFont]) -> list[DrawnFont]:
    """Return the fonts that are no copies of one before, and at most 8 of each family."""
    distances = _distances(fonts)
    kept: list[int] = []
    of_family: dict[tuple[str, str], int] = {}
    for index, font in enumerate(fonts):
        name = (font.foundry, font.family)
        if (
            of_family.get(name, 0) < _FONTS_OF_A_FAMILY
            and not (distances[index, kept] < _COPY).any()
        ):
            of_family[name] = of_family.get(name, 0) + 1
            kept.append(index)
    return [fonts[index] for index in kept]


def held_out_fonts(fonts: Sequence[DrawnFont]) -> list[bool]:
    """Return which fonts are of held-out families: all of a family, and of its kin, or none.

    Kin are families of which two fonts look alike.  A fifth of the groups are held out, chosen by
    digests of the families' names.
    """
    names = [font.family for font in fonts]
    group = {name: name for name in names}

    def first(name: str) -> str:
        while group[name] != name:
            name = group[name]
        return name

    for one, other in np.argwhere(_distances(fonts) < _KIN).tolist():
        low, high = sorted((first(names[one]), first(names[other])))
        group[high] = low
    heads = sorted(
        {first(name) for name in names}, key=lambda name: hashlib.sha256(name.encode()).digest()
    )
    out = set(heads[: max(1, round(_HELD_OUT * len(heads)))]) if len(heads) > 1 else set()
    return [first(name) in out for name in names]


def _drawn(files: Sequence[FontFile]) -> list[DrawnFont]:
    """Return the fonts that can be used, foundry by foundry."""
    fonts = []
    for file in files:
        family = family_of(file)
        if family is not None and is_readable(images := draw(file.path)):
            fonts.append((file, DrawnFont(file.foundry, family, images)))
    order = list(dict.fromkeys(file.foundry for file in files))
    # Of a family with many fonts, any may be taken: by digest, so that not only bold ones are.
    fonts.sort(key=lambda pair: (order.index(pair[0].foundry), pair[0].digest))
    return [font for _, font in fonts]


def _assembled(drawn: Sequence[DrawnFont], folder: Path | None) -> Glyphs:
    fonts = without_copies(drawn)
    out = held_out_fonts(fonts)
    if not any(out):
        where = "the system's fonts" if folder is None else str(folder)
        raise DataError(
            f"Expected fonts of two families or more, with all digits and letters, in {where}, "
            f"but got {len({font.family for font in fonts})}. {more_fonts(folder)}"
        )
    ordered = [font for font, held in zip(fonts, out, strict=True) if not held]
    ordered += [font for font, held in zip(fonts, out, strict=True) if held]
    foundries = tuple(dict.fromkeys(font.foundry for font in ordered))
    count = len(CHARACTERS)
    return Glyphs(
        np.concatenate([font.images for font in ordered]),
        np.tile(np.arange(count, dtype=np.int64), len(ordered)),
        np.repeat([foundries.index(font.foundry) for font in ordered], count).astype(np.int64),
        foundries,
        count * sum(out),
    )


def _font(path: Path, size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def _boxes(font: ImageFont.FreeTypeFont) -> list[tuple[int, int, int, int]]:
    """Return left, top, right and bottom of each character, from where it stands on its line."""
    return [
        (int(left), int(top), int(right), int(bottom))
        for left, top, right, bottom in (font.getbbox(one, anchor="ls") for one in CHARACTERS)
    ]


def _shape(image: _Images) -> npt.NDArray[np.float64]:
    """Return what is drawn, without its place and size `[256]`, of norm 1."""
    rows, columns = (np.flatnonzero(image.max(axis=axis) >= _VISIBLE) for axis in (1, 0))
    cut = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scaled = Image.fromarray(cut).resize((16, 16), Image.Resampling.BILINEAR)
    values = np.asarray(scaled, np.float64).ravel()
    return values / np.linalg.norm(values)


def _distances(fonts: Sequence[DrawnFont]) -> npt.NDArray[np.float32]:
    """Return how far apart fonts look, `[n, n]`: Euclidean, of all their images at norm 1."""
    rows = np.empty((len(fonts), len(CHARACTERS) * SIZE * SIZE), np.float32)
    for row, font in enumerate(fonts):
        rows[row] = font.images.ravel()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    distances: npt.NDArray[np.float32] = np.sqrt(np.maximum(2 - 2 * (rows @ rows.T), 0))
    return distances


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "disinherit"


def _key(files: Sequence[FontFile]) -> str:
    parts = [_RULES, pillow_version, features.version("freetype2")]
    listed = [(file.foundry, file.digest) for file in files]
    return hashlib.sha256(json.dumps([parts, listed]).encode()).hexdigest()[:16]


def _read_kept(path: Path) -> Glyphs | None:
    """Return what was kept; `None` if it is not there, or damaged."""
    try:
        with safetensors.safe_open(path, framework="numpy") as opened:
            parts = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            about = json.loads(opened.metadata()["glyphs"])
        return Glyphs(
            parts["images"],
            parts["targets"],
            parts["contributors"],
            tuple(about["foundries"]),
            about["held_out"],
        )
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError):
        return None


def _keep(path: Path, glyphs: Glyphs) -> None:
    """Keep the images for the next time, where that is possible."""
    about = json.dumps({"foundries": glyphs.foundries, "held_out": glyphs.held_out})
    parts: dict[str, npt.NDArray[Any]] = {
        "images": glyphs.images,
        "targets": glyphs.targets,
        "contributors": glyphs.contributors,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, save(parts, {"glyphs": about}))
    except (OSError, CheckpointError):
        return  # a cache that cannot be written costs seconds, and no figure
