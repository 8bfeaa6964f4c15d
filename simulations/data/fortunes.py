"""Texts that every Debian machine can have: the quotations of fortune, by the file they stand in.

Nine of the categories that hold 200 quotations or more, chosen so that a linear classifier of
character n-grams tells them apart (about 70% right); the files have not changed since 2022.
"""

from pathlib import Path

from disinherit.common.errors import DataError

CATEGORIES = (
    "computers",
    "definitions",
    "knghtbrd",
    "men-women",
    "people",
    "perl",
    "songs-poems",
    "startrek",
    "zippy",
)
"""Names of the files, which are the classes."""

SYSTEM_FOLDER = Path("/usr/share/games/fortunes")
"""Where the packages `fortunes` and `fortunes-min` put them."""


def read_fortunes(folder: Path) -> tuple[list[str], list[str]]:
    """Read the quotations of all categories; they are separated by lines of one `%`.

    Args:
        folder: holds one file per category.

    Returns:
        `N` texts and `N` categories, in the order of `CATEGORIES`.

    Raises:
        DataError: if a file is missing, cannot be read or holds no quotation.
    """
    texts: list[str] = []
    labels: list[str] = []
    for category in CATEGORIES:
        try:
            content = (folder / category).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"Expected the quotations of category {category!r} in {folder}, but got: {error}. "
                "Run `apt-get install fortunes`, or set DISINHERIT_DATA to the folder that holds "
                "a folder 'fortunes' with these files."
            ) from None
        found = [text for part in content.split("\n%\n") if (text := part.strip(" \n%"))]
        if not found:
            raise DataError(f"Expected quotations in {folder / category}, but got none.")
        texts += found
        labels += [category] * len(found)
    return texts, labels
