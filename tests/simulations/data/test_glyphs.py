"""Characters of fonts: which fonts are taken, how they are split, and what is kept."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from fontTools.ttLib import TTFont

from disinherit.common.errors import DataError
from disinherit.simulations.data import fonts, glyphs
from disinherit.simulations.data.datasets import DATA_VARIABLE, Dataset, load_dataset
from disinherit.simulations.data.fonts import CHARACTERS, SYSTEM_FOLDER, FontFile, family_of
from disinherit.simulations.data.glyphs import (
    DrawnFont,
    draw,
    held_out_fonts,
    is_readable,
    read_glyphs,
    without_copies,
)
from disinherit.simulations.scenario import shares
from disinherit.simulations.scenario.settings import Settings
from disinherit.simulations.scenario.shares import share_out

OURS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
"""Fonts that come with matplotlib: DejaVu, STIX and Computer Modern."""

FOUNDRIES = {
    "Bitstream": ("DejaVuSans*.ttf", "DejaVuSerif*.ttf"),
    "STI Pub": ("STIX*.ttf",),
    "AMS": ("cm*.ttf",),
}

Change = Callable[[TTFont], None]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data with fonts of three foundries."""
    folder = tmp_path_factory.mktemp("data")
    for foundry, patterns in FOUNDRIES.items():
        place = folder / "glyphs" / foundry / "below"
        place.mkdir(parents=True)
        for pattern in patterns:
            for path in OURS.glob(pattern):
                shutil.copy(path, place)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shares._share_out.cache_clear()
    yield tmp_path / "cache" / "disinherit"
    shares._share_out.cache_clear()


@pytest.fixture
def dataset(data: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setenv(DATA_VARIABLE, str(data))
    return load_dataset("glyphs")


def changed(folder: Path, name: str, change: Change, source: str = "DejaVuSans.ttf") -> FontFile:
    """Write a font that differs from one of ours, and return it."""
    with TTFont(OURS / source) as font:
        change(font)
        folder.mkdir(parents=True, exist_ok=True)
        font.save(folder / name)
    return FontFile("changed", folder / name, "")


def mapped(**glyphs: str) -> Change:
    """Return a change of which glyph shows a character."""

    def change(font: TTFont) -> None:
        for table in font["cmap"].tables:
            if table.isUnicode():
                table.cmap.update({ord(one): glyph for one, glyph in glyphs.items()})

    return change


def drawn(family: str, images: Any, foundry: str = "one") -> DrawnFont:
    return DrawnFont(foundry, family, images)


def test_62_classes_with_families_that_training_never_saw(dataset: Dataset) -> None:
    held = dataset.official_evaluation

    assert dataset.classes == tuple(CHARACTERS)
    assert dataset.sample_shape == (1, 28, 28)
    assert [bound.item() for bound in dataset.inputs.aminmax()] == [0, 1]
    assert held is not None
    assert held.stop == len(dataset.targets)
    assert 0 < len(held) < len(dataset.targets) / 2
    assert len(set(dataset.targets.bincount().tolist())) == 1
    assert set(dataset.targets[held.start :].tolist()) == set(range(62))
    assert set(dataset.contributor_names) == set(FOUNDRIES)
    assert dataset.contributors is not None
    # All characters of a font are of one foundry.
    assert all(len(set(row)) == 1 for row in dataset.contributors.reshape(-1, 62).tolist())


def test_the_same_fonts_give_the_same_images_whatever_their_files_are_called(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (data / "glyphs").iterdir():
        (tmp_path / "again" / place.name).mkdir(parents=True)
        for number, path in enumerate(sorted(place.rglob("*.ttf"), reverse=True)):
            shutil.copy(path, tmp_path / "again" / place.name / f"{number}.ttf")
    one = read_glyphs(data / "glyphs")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    other = read_glyphs(tmp_path / "again")

    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.contributors, other.contributors)
    assert (one.foundries, one.held_out) == (other.foundries, other.held_out)


def test_characters_are_told_apart_and_stand_on_one_line() -> None:
    images = draw(OURS / "DejaVuSerif.ttf")
    rows = {one: np.flatnonzero(images[CHARACTERS.index(one)].max(axis=1) > 64) for one in "oOgx"}

    assert images.max() == 255
    assert images[:, 0].max() == images[:, -1].max() == 0
    assert len({image.tobytes() for image in images}) == 62
    assert rows["x"][-1] <= rows["o"][-1] <= rows["O"][-1] + 1 < rows["g"][-1]
    assert rows["O"][0] < rows["o"][0]


@pytest.mark.parametrize(
    ("source", "family"),
    [
        ("DejaVuSans-BoldOblique.ttf", "DejaVu Sans"),
        ("DejaVuSansMono-Bold.ttf", "DejaVu Sans Mono"),
        ("STIXGeneralBol.ttf", "STIXGeneral"),
        ("STIXSizOneSymReg.ttf", None),
        ("cmsy10.ttf", None),
    ],
)
def test_a_family_is_a_name_without_styles(source: str, family: str | None) -> None:
    assert family_of(FontFile("any", OURS / source, "")) == family


def test_weights_that_call_themselves_families_are_of_one(tmp_path: Path) -> None:
    def rename(font: TTFont) -> None:
        font["name"].setName("Stone Sans Semi Bold Condensed", 1, 3, 1, 0x409)
        font["name"].removeNames(nameID=16)

    assert family_of(changed(tmp_path, "a.ttf", rename)) == "Stone Sans"


def test_a_font_without_a_character_is_left_out(tmp_path: Path) -> None:
    def change(font: TTFont) -> None:
        for table in font["cmap"].tables:
            table.cmap.pop(ord("q"), None)

    assert family_of(changed(tmp_path, "a.ttf", change)) is None


def test_a_symbol_font_is_left_out(tmp_path: Path) -> None:
    greek = mapped(**dict.fromkeys(CHARACTERS, "Sigma"))

    assert family_of(changed(tmp_path, "a.ttf", greek)) is None


def test_capitals_in_place_of_small_letters_are_not_readable(tmp_path: Path) -> None:
    capitals = mapped(**{one.lower(): one for one in CHARACTERS if one.isupper()})
    file = changed(tmp_path, "a.ttf", capitals)

    assert family_of(file) == "DejaVu Sans"
    assert not is_readable(draw(file.path))
    assert is_readable(draw(OURS / "DejaVuSans.ttf"))


def test_a_character_that_cannot_be_seen_is_not_readable(tmp_path: Path) -> None:
    assert not is_readable(draw(changed(tmp_path, "a.ttf", mapped(l="space")).path))


def test_copies_under_another_name_are_left_out() -> None:
    sans, serif = (draw(OURS / f"{name}.ttf") for name in ("DejaVuSans", "DejaVuSerif"))
    fonts = [drawn("Sans", sans), drawn("Vera", sans.copy(), "two"), drawn("Serif", serif)]

    assert [font.family for font in without_copies(fonts)] == ["Sans", "Serif"]


def test_a_family_has_at_most_eight_fonts() -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 62, 28, 28), dtype=np.uint8)
    fonts = [drawn("Many" if row < 11 else "Few", image) for row, image in enumerate(images)]

    assert [font.family for font in without_copies(fonts)] == ["Many"] * 8 + ["Few"]


def test_families_that_look_alike_are_on_one_side() -> None:
    images = np.random.default_rng(0).integers(0, 200, (20, 62, 28, 28), dtype=np.uint8)
    fonts = [drawn(f"family {row // 2}", image) for row, image in enumerate(images)]
    fonts += [drawn(f"like {row // 2}", image + 40) for row, image in enumerate(images[::2])]
    out = held_out_fonts(fonts)
    sides = dict(zip((font.family for font in fonts), out, strict=True))

    assert [sides[font.family] for font in fonts] == out
    assert sum(sides[f"family {row}"] for row in range(10)) in (1, 2)
    # Fonts 0, 2, ... are like 0, 1, ... in turn, so that these link the families in pairs.
    assert all(sides[f"like {row // 2}"] == sides[f"family {row}"] for row in range(10))


def test_fonts_are_drawn_once(data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read_glyphs(data / "glyphs")
    (kept,) = cache.iterdir()

    def fail(_: Path) -> None:
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(glyphs, "draw", fail)
        np.testing.assert_array_equal(read_glyphs(data / "glyphs").images, first.images)
    kept.write_bytes(kept.read_bytes()[:-1000])
    np.testing.assert_array_equal(read_glyphs(data / "glyphs").images, first.images)


def test_a_cache_that_cannot_be_written_is_done_without(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    assert len(read_glyphs(data / "glyphs").targets) > 0


def test_no_fonts_at_all_names_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setattr(fonts, "SYSTEM_FOLDER", tmp_path)
    with pytest.raises(DataError, match=r"^Expected fonts in .*apt-get install fonts-\S+ [^\n]*$"):
        load_dataset("glyphs")

    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"^Expected fonts in .*/glyphs, but got none\. .*unset"):
        load_dataset("glyphs")


def test_one_family_is_too_few(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    shutil.copy(OURS / "DejaVuSans.ttf", tmp_path / "one")
    with pytest.raises(DataError, match=r"^Expected fonts of two families or more.*but got 1\."):
        read_glyphs(tmp_path)

    (tmp_path / "one" / "DejaVuSans.ttf").write_bytes((OURS / "cmsy10.ttf").read_bytes())
    with pytest.raises(DataError, match=r"^Expected fonts of two families or more.*but got 0\."):
        read_glyphs(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a font"])
def test_a_damaged_font_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "broken.ttf").write_bytes(content)
    with pytest.raises(DataError, match=r"^Expected a readable[^\n]* at [^\n]*broken\.ttf[^\n]*$"):
        read_glyphs(tmp_path)


def test_outlines_that_end_early_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    whole = (OURS / "DejaVuSans.ttf").read_bytes()
    (tmp_path / "one" / "broken.ttf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"^Expected [^\n]*broken\.ttf[^\n]*$"):
        read_glyphs(tmp_path)


def test_natural_shares_are_of_whole_foundries(dataset: Dataset) -> None:
    data = share_out(Settings("glyphs", {}, partition="natural", clients=2))
    assert dataset.contributors is not None
    held = [
        set(dataset.contributors[torch.cat([train, tuning])].tolist())
        for train, tuning in zip(data.train, data.tuning, strict=True)
    ]

    assert all(held)
    assert not held[0] & held[1]
    assert sum(map(len, data.train)) == len(data.splits.train)
    assert sum(map(len, data.tuning)) == len(data.splits.tuning)


def test_more_owners_than_foundries_are_refused(dataset: Dataset) -> None:
    with pytest.raises(DataError, match=r"^Expected from 1 to \d clients .*but got 7\."):
        share_out(Settings("glyphs", {}, partition="natural", clients=7))


def test_natural_shares_need_contributors() -> None:
    with pytest.raises(DataError, match=r"who contributed.*but got 'digits'"):
        share_out(Settings("digits", {}, partition="natural"))


@pytest.mark.skipif(
    not list(SYSTEM_FOLDER.glob("truetype/freefont/*.ttf"))
    or not list(SYSTEM_FOLDER.glob("truetype/lato/*.ttf")),
    reason="needs fonts-freefont-ttf and fonts-lato",
)
def test_fonts_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    two = {foundry: fonts.FOUNDRIES[foundry] for foundry in ("GNU", "tyPoland")}
    monkeypatch.setattr(fonts, "FOUNDRIES", two)
    dataset = load_dataset("glyphs")

    assert set(dataset.contributor_names) == {"GNU", "tyPoland"}
    assert len(dataset.targets) >= 20 * 62
