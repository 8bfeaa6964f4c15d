"""Fonts of free Debian packages, by foundry, and what is to be known of one before it is drawn."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fontTools import agl
from fontTools.ttLib import TTFont, TTLibError

from disinherit.common.errors import DataError

SYSTEM_FOLDER = Path("/usr/share/fonts")
"""Where Debian's packages put fonts."""

CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""What is drawn of each font."""

FOUNDRIES: dict[str, tuple[str, ...]] = {
    "URW": ("opentype/urw-base35/*",),
    "DejaVu": ("truetype/dejavu/*",),
    "Ascender": ("truetype/liberation/*", "truetype/open-sans/*"),
    "Google": ("truetype/roboto/unhinted/**/*",),
    "tyPoland": ("truetype/lato/*", "truetype/crosextra/Carlito-*"),
    "ParaType": ("truetype/paratype/*",),
    "SIL": (
        "truetype/gentium/*",
        "truetype/gentium-basic/*",
        "truetype/charis/*",
        "truetype/andika/*",
        "truetype/doulos/*",
    ),
    "Greek Font Society": ("opentype/artemisia/*", "opentype/didot/*", "opentype/neohellenic/*"),
    "Libertine": ("opentype/linux-libertine/*",),
    "Bigelow & Holmes": ("fonts-go/*",),
    "Airbus": ("opentype/b612/*",),
    "Inter": ("opentype/inter/*",),
    "JetBrains": ("truetype/jetbrains-mono/*",),
    "Fira": ("truetype/firacode/*",),
    "GNOME": ("opentype/cantarell/*",),
    "League of Moveable Type": ("opentype/league-mono/*", "opentype/league-spartan/*"),
    "Barry Schwartz": ("opentype/sortsmill/*",),
    "Huerta": ("truetype/crosextra/Caladea-*",),
    "Aakerlund": ("truetype/comfortaa/*",),
    "Rozynski": ("opentype/comic-neue/*",),
    "Duffner": ("opentype/ebgaramond/*",),
    "Paglinawan": ("truetype/quicksand/*",),
    "Althausen": ("truetype/vollkorn/*",),
    "Baker": ("opentype/junicode/*",),
    "Kryukov": ("truetype/fonts-oldstandard/*",),
    "Playtype": ("opentype/play/*",),
    "Norlander": ("truetype/dustin/*",),
    "George Williams": ("truetype/fonts-georgewilliams/*",),
    "Tuffy": ("truetype/tuffy/*",),
    "Tumbleson": ("truetype/mononoki/*",),
    "Levien": ("truetype/inconsolata/*",),
    # Last those that drew on others above: of copies, the first is kept.
    "Source Foundry": ("truetype/hack/*",),
    "GNU": ("truetype/freefont/*",),
    "Arkandis": ("truetype/adf/*",),
}
"""Foundry -> patterns of its files below `SYSTEM_FOLDER`; docs/data.md lists the packages."""

_ENDINGS = (".otf", ".ttf")
_STYLE = re.compile(
    r" (black|bold|book|cond(ensed)?|demi(bold)?|expanded|extra(bold|light)?|hairline|heavy|italic|"
    r"light|medium|narrow|oblique|regular|semi(bold)?|thin|ultra(light)?|wide)$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class FontFile:
    """One font file.

    Attributes:
        foundry: who made it.
        path: of the file.
        digest: SHA-256 of its bytes.
    """

    foundry: str
    path: Path
    digest: str


def find_fonts(folder: Path | None) -> list[FontFile]:
    """Return the font files there are, foundry by foundry, each in the order of names.

    Args:
        folder: has one folder of fonts for each foundry, named after it; `None` for the known ones
            among the system's fonts.

    Raises:
        DataError: if there is none, or one cannot be read.
    """
    files = [
        FontFile(foundry, path, _digest(path))
        for foundry, paths in _candidates(folder)
        for path in sorted(paths)
        if path.suffix.lower() in _ENDINGS and path.is_file()
    ]
    if not files:
        where = folder or SYSTEM_FOLDER
        raise DataError(f"Expected fonts in {where}, but got none. {more_fonts(folder)}")
    return files


def more_fonts(folder: Path | None) -> str:
    """Return what to do where there are too few fonts; see `find_fonts`."""
    if folder is not None:
        return (
            "Put a folder of .ttf or .otf files for each foundry there, or unset DISINHERIT_DATA "
            "to use the system's fonts."
        )
    return (
        "Run `apt-get install fonts-dejavu-core fonts-freefont-ttf fonts-lato fonts-liberation "
        "fonts-paratype` or more of the packages that the documentation of data sets lists, or set "
        "DISINHERIT_DATA to the folder that holds a folder 'glyphs' with a folder of fonts for "
        "each foundry."
    )


def family_of(file: FontFile) -> str | None:
    """Return the family that a font belongs to; `None` if it does not have all `CHARACTERS`.

    A family is called what the font calls it, less words for weight, width and slope, which make no
    family of their own.  A symbol font, which shows other things under the codes of letters, does
    not have them: its glyphs are named after what they show.

    Raises:
        DataError: if the file is no font.
    """
    try:
        # Opened here, since a file that is no font is left open otherwise.
        with file.path.open("rb") as stream, TTFont(stream, lazy=True) as font:
            glyphs = font.getBestCmap() or {}
            if not all(ord(one) in glyphs for one in CHARACTERS):
                return None
            others = sum(_shows_another(glyphs[ord(one)], one) for one in CHARACTERS)
            name = _called(font, 16) or _called(font, 1) or file.path.stem
    except (TTLibError, OSError, KeyError, ValueError, AssertionError) as error:
        raise _unreadable(file.path, error) from error
    if 2 * others > len(CHARACTERS):
        return None
    while (shorter := _STYLE.sub("", name)) != name:
        name = shorter
    return str(name)


def _called(font: TTFont, kind: int) -> str | None:
    """Return a name of a font: the English one of Windows before others, whatever the release."""
    names = font["name"]
    english = names.getName(kind, 3, 1, 0x409)
    found = english.toUnicode() if english else names.getDebugName(kind)
    return str(found) if found else None


def _candidates(folder: Path | None) -> Iterator[tuple[str, Iterable[Path]]]:
    if folder is None:
        for foundry, patterns in FOUNDRIES.items():
            for pattern in patterns:
                yield foundry, SYSTEM_FOLDER.glob(pattern)
    elif folder.is_dir():
        for place in sorted(folder.iterdir()):
            if place.is_dir():
                yield place.name, place.rglob("*")


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _shows_another(glyph: str, character: str) -> bool:
    """Whether a glyph's name says that it shows something else than a character.

    Names that say nothing, such as those of numbered glyphs, have a digit in them.
    """
    shown = agl.toUnicode(glyph) or agl.toUnicode(glyph, isZapfDingbats=True)
    return shown != character if shown else not any(one.isdigit() for one in glyph)


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(
        f"Expected a readable TrueType or OpenType font at {path}, but got: {reason}. Remove the "
        "file, or install its package again."
    )
