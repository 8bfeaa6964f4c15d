"""The notebooks of the examples: they run, and print what they say."""

import re
from pathlib import Path

import pytest

from tests.support.notebooks import NOTEBOOKS, printed, read, stored
from tests.support.tutorial import pattern


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_prints_what_it_says(path: Path) -> None:
    notebook = read(path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for text, expected in zip(printed(notebook), stored(notebook), strict=True):
        assert re.fullmatch(pattern(expected), text), f"{path} says\n{expected}\nand it is\n{text}"


def test_there_is_one() -> None:
    assert [path.name for path in NOTEBOOKS] == ["five_lines.ipynb"]
