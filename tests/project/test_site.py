"""The documentation as a site: what `docs/site/conf.py` adds to pages while Sphinx reads them."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests import ROOT
from tests.support.pages import pages


@pytest.fixture(scope="module")
def conf() -> ModuleType:
    spec = importlib.util.spec_from_file_location("conf", ROOT / "docs" / "site" / "conf.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_sidebar_has_every_page_once(conf: ModuleType) -> None:
    made = conf.sidebar((ROOT / "docs" / "README.md").read_text())
    listed = re.findall(r"^[^:`\n][^<\n]* </(.+)>$", made, re.MULTILINE)
    decisions = set((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    there = {*pages()} - {ROOT / "docs" / "README.md"} - decisions
    assert sorted(ROOT / one for one in listed) == sorted(there)
    assert made.count(":caption: ") == made.count("```{toctree}") > 4


def test_a_link_to_a_folder_leads_to_its_page_or_nowhere(conf: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "README.md").touch()
    (tmp_path / "units").mkdir()
    text = "[an app](app), [units](units/), [a page](page.md#x), [the web](https://a.example/b)"
    assert conf.without_folders(text, tmp_path) == (
        "[an app](app/README.md), units, [a page](page.md#x), [the web](https://a.example/b)"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<script defer src="https://cdn.example/x.js"></script>'),
        ("a.html", "<img alt='' src='//cdn.example/x.js'>"),
        ("a.html", '<link rel="stylesheet" href="http://cdn.example/x.js" />'),
        ("a.css", "@import 'https://cdn.example/x.js';"),
        ("a.css", "body { background: url(https://cdn.example/x.js) }"),
    ],
)
def test_what_a_page_would_fetch_is_noticed(
    conf: ModuleType, tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    (found,) = conf.fetched(tmp_path)
    assert found.startswith(f"{name}: ")
    assert found.endswith("//cdn.example/x.js")


def test_a_link_is_not_fetched(conf: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="https://b.example">b</a><script src="x.js">')
    assert list(conf.fetched(tmp_path)) == []
