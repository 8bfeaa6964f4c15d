"""The documentation as a site: the pages as they are, with the sidebar that the index gives.

Sphinx reads this for `make docs`.  Pages stay plain Markdown that a code host shows, too: what only
a site needs is added while they are read.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
_INDEX = "docs/README"
_DECISIONS = "docs/adr/README"

project = "Disinherit"
html_title = "Disinherit"
extensions = ["myst_parser"]
root_doc = _INDEX
include_patterns = ["*.md", "docs/*.md", "docs/adr/*.md", "examples/**.md"]
exclude_patterns = [
    f"{path.name}/**"
    for path in ROOT.iterdir()
    if path.is_dir() and path.name not in ("docs", "examples")
]
myst_heading_anchors = 4
highlight_language = "none"
html_theme = "furo"
templates_path = ["templates"]
html_additional_pages = {"index": "home.html"}
html_use_index = False
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False

_CAPTION = re.compile(r"^### ([^:\n]+).*$", re.MULTILINE)
_LISTED = re.compile(r"^- \[(.+?)\]\(([^)#]+\.md)\): ", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\(((?!https?:|mailto:|#)[^)#\s]+)\)")
_LOADED = re.compile(
    r"""<(?:script|link|img|iframe|source)\b[^>]*\s(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)"""
)
_IN_STYLE = re.compile(r"""(?:url\(|@import\s)\s*["']?((?:https?:)?//[^"')\s]+)""")


def sidebar(index: str) -> str:
    """Return the trees of pages of the sidebar, as the lists of the index have them.

    Args:
        index: text of the index, with a heading for each kind of page and a list below it.
    """
    _, *parts = _CAPTION.split(index.partition("\n## All pages\n")[2])
    trees = []
    for caption, listed in zip(parts[::2], parts[1::2], strict=True):
        places = [
            f"{title} </{(ROOT / _INDEX).parent.joinpath(path).resolve().relative_to(ROOT)}>"
            for title, path in _LISTED.findall(listed)
        ]
        trees.append(_tree(f":caption: {caption}", *places))
    return "".join(trees)


def without_folders(text: str, folder: Path) -> str:
    """Return a page whose links to folders lead to the page in them, or are words.

    Args:
        text: the page.
        folder: where it is.
    """

    def replaced(link: re.Match[str]) -> str:
        there = folder / link[2]
        if not there.is_dir():
            return link[0]
        page = there / "README.md"
        return f"[{link[1]}]({link[2].rstrip('/')}/README.md)" if page.exists() else link[1]

    return _LINK.sub(replaced, text)


def fetched(folder: Path) -> Iterator[str]:
    """Yield what the pages of a site would load from a network: file and address.

    Args:
        folder: the built site.
    """
    for pattern, found in (("**/*.html", _LOADED), ("**/*.css", _IN_STYLE)):
        for path in sorted(folder.glob(pattern)):
            for address in found.findall(path.read_text()):
                yield f"{path.relative_to(folder)}: {address}"


def _tree(*lines: str) -> str:
    inside = "\n".join((":hidden:", ":titlesonly:", *lines[:1], "", *lines[1:]))
    return f"\n```{{toctree}}\n{inside}\n```\n"


def _read(app: "Sphinx", name: str, source: list[str]) -> None:
    text = without_folders(source[0], (ROOT / name).parent)
    if name == _INDEX:
        text += sidebar(text)
    elif name == _DECISIONS:
        text += _tree(":glob:", "[0-9]*")
    source[0] = text


def _built(app: "Sphinx", error: Exception | None) -> None:
    loaded = list(fetched(Path(app.outdir))) if error is None else []
    if loaded:
        raise ValueError(f"Expected pages that load nothing from a network, but got {loaded}.")


def setup(app: "Sphinx") -> None:
    """Connect what is done while Sphinx reads pages, and when it has written them."""
    app.connect("source-read", _read)
    app.connect("build-finished", _built)
