"""Pages about the project itself: nothing is left out, and what they name exists."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT
from tests.support.pages import pages

TESTS = ROOT / "tests"
DOCS = ROOT / "docs"
CASES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 15, 18, 20, 22)


def test_no_fault_is_left_out() -> None:
    found = re.findall(r"^\| ([A-Z]\d+) \|", (DOCS / "faults.md").read_text(), re.MULTILINE)
    expected = [
        *(f"N{number}" for number in range(1, 19)),
        *(f"S{number}" for number in range(1, 41)),
        *(f"P{number:02d}" for number in CASES),
        *(f"U{number}" for number in range(1, 9)),
        *(f"R{number}" for number in range(1, 10)),
    ]
    assert sorted(found) == sorted(expected)


def test_no_promise_is_left_out() -> None:
    found = re.findall(r"^\| (\d+) \|", (DOCS / "promises.md").read_text(), re.MULTILINE)
    assert list(map(int, found)) == list(range(1, 44))


@pytest.mark.parametrize("page", ["faults.md", "promises.md"])
def test_the_tests_that_are_named_exist(page: str) -> None:
    text = (DOCS / page).read_text()
    files = list(TESTS.glob("**/test_*.py"))
    modules = {path.relative_to(TESTS).with_suffix("").as_posix() for path in files}
    functions = set(re.findall(r"def (test_\w+)", "".join(map(Path.read_text, files))))
    named = re.findall(r"(?<![:\w])((?:\w+/)*test_\w+)(?:::(test_\w+)(…?))?", text)
    assert len(named) > 40
    for module, function, cut in named:
        assert module in modules or module.endswith("a/test_x"), module
        if function and not cut:
            assert function in functions, function
        elif function:
            assert any(one.startswith(function) for one in functions), function


HOUSES = (
    *("api", "cli", "client", "common", "deploy", "families", "flower", "server"),
    *("simulations", "ui"),
)


@pytest.mark.parametrize("folder", HOUSES)
def test_every_module_is_named_in_its_room(folder: str) -> None:
    page = (DOCS / "architecture.md").read_text()
    part = page.partition(f"\n## `{folder}/`\n")[2].partition("\n## ")[0]
    named = []
    for room in re.split(r"^### ", f"`{folder}`\n{part}", flags=re.MULTILINE):
        place = re.match(r"`([\w/]+)`", room)
        assert place is not None, room
        names = room.partition("\nModules: ")[2].partition(".\n")[0]
        named += [f"{place[1]}/{name}" for name in re.findall(r"`(\w+)`", names)]
    modules = [path for path in (ROOT / folder).glob("**/*.py") if path.stem != "__init__"]
    found = [path.relative_to(ROOT).with_suffix("").as_posix() for path in modules]
    left_out = ("/versions/", "/disinherit_app/")
    assert sorted(named) == sorted(
        one for one in found if not any(part in one for part in left_out)
    )


def written(node: ast.AST) -> Iterator[str]:
    """The names and words that a node has itself."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield from re.findall(r"\w+", node.value)
    for field in ("id", "attr", "arg", "name", "asname", "module"):
        if isinstance(name := getattr(node, field, None), str):
            yield from name.split(".")


def test_what_docstrings_name_exists() -> None:
    """A name in backticks stands in code, too, or is that of a module or a folder."""
    code = [
        path for house in (*HOUSES, "benchmarks", "tests") for path in ROOT.glob(f"{house}/**/*.py")
    ]
    protos = ROOT.glob("protos/disinherit/v1/*.proto")
    known = {word for path in protos for word in re.findall(r"\w+", path.read_text())}
    docstrings: list[tuple[Path, str]] = []
    for path in code:
        known |= {*path.relative_to(ROOT).parent.parts, path.stem}
        nodes = list(ast.walk(ast.parse(path.read_text())))
        documented = {
            node.body[0].value
            for node in nodes
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and ast.get_docstring(node) is not None
            and isinstance(node.body[0], ast.Expr)
        }
        docstrings += [(path, ast.literal_eval(node)) for node in documented]
        known.update(*(written(node) for node in nodes if node not in documented))
    assert len(docstrings) > 3000
    gone = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, text in docstrings
        for name in re.findall(r"`([A-Za-z_][\w.]*)`", text)
        if not known.issuperset(name.strip(".").split("."))
    ]
    assert gone == []
    file = r"(?<![\w./-])(?:" + "|".join((*HOUSES, "docs", "tests")) + r")/[\w/]+\.(?:py|md)\b"
    named = [one for _, text in docstrings for one in re.findall(file, text)]
    assert [one for one in named if not (ROOT / one).exists()] == []


LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
"""A link to a page or a file of the project, and the heading in it."""


def headings(page: str) -> Iterator[str]:
    """The names under which links reach the headings of a page, as GitHub makes them."""
    seen: dict[str, int] = {}
    text = re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)
    for heading in re.findall(r"^#+ +(.+)$", text, re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        seen[name] = seen.get(name, -1) + 1
        yield f"{name}-{seen[name]}" if seen[name] else name


def dead_links(page: Path) -> Iterator[str]:
    """The links of a page to what does not exist."""
    for file, heading in LINK.findall(page.read_text()):
        there = page.parent / file if file else page
        gone = not there.exists() or bool(
            heading and there.suffix == ".md" and heading not in headings(there.read_text())
        )
        if gone:
            yield f"{page.name}: {file}#{heading}"


def test_no_link_between_pages_is_dead() -> None:
    assert len(pages()) > 30
    assert [dead for page in pages() for dead in dead_links(page)] == []


def test_a_dead_link_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# It works: `a` & b\n\n[1](#it-works-a--b) [2](#other) [3](gone.md)\n")
    assert list(dead_links(page)) == ["page.md: #other", "page.md: gone.md#"]


def section(page: str, name: str) -> str:
    """The part of a page from a heading up to the next one."""
    plain = re.sub(r"^```.*?^```$", lambda one: "\n" * one[0].count("\n"), page, flags=re.S | re.M)
    starts = [match.start() for match in re.finditer(r"^#+ ", plain, re.MULTILINE)]
    places = {name: place for place, name in enumerate(headings(page))}
    lines = [plain.count("\n", 0, start) for start in starts] + [page.count("\n") + 1]
    first, end = lines[places[name] : places[name] + 2]
    return "\n".join(page.splitlines()[first:end])


CODE_LINK = re.compile(r"\[`(?:disinherit\.)?([^`\]]+)`\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)")


def test_a_link_from_code_leads_to_where_it_is_explained() -> None:
    wrong = [
        f"{page.name}: {code}"
        for page in pages()
        for code, file, heading in CODE_LINK.findall(page.read_text())
        if code not in section((page.parent / file if file else page).read_text(), heading)
    ]
    assert wrong == []


def title(page: Path) -> str:
    found = re.search(r"^# (.+)$", page.read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_index_calls_pages_by_their_titles() -> None:
    """But results, which it calls by what was measured, and the first page."""
    listed = (DOCS / "README.md").read_text().partition("\n## All pages\n")[2]
    parts = dict(re.findall(r"^### ([\w-]+)(.*?)(?=^###|\Z)", listed, re.DOTALL | re.MULTILINE))
    assert parts.keys() == {"Tutorials", "How-to", "Reference", "Explanation", "Results", "The"}
    for kind in ("Tutorials", "How-to", "Reference", "Explanation"):
        for text, file in re.findall(r"^- \[(.+?)\]\(([^)]+)\)", parts[kind], re.MULTILINE):
            assert text == title(DOCS / file), file
    tutorials = re.findall(r"\((?:tutorial-)(\w+)\.md\)", parts["Tutorials"])
    assert sorted(tutorials) == sorted(one.stem[9:] for one in DOCS.glob("tutorial-*.md"))


def test_the_index_lists_every_page_once() -> None:
    parts = (DOCS / "README.md").read_text().partition("\n## All pages\n")
    listed = re.findall(r"^- \[.+?\]\(([^)#]+)\): \S", parts[2], re.MULTILINE)
    decisions = set(DOCS.glob("adr/[0-9]*.md"))
    assert len(decisions) > 30
    pages_there = {*pages()} - {DOCS / "README.md"} - decisions
    assert sorted((DOCS / one).resolve() for one in listed) == sorted(pages_there)


def test_the_figures_of_the_readme_are_those_of_the_results() -> None:
    part = (ROOT / "README.md").read_text().partition("\n## Results")[2].partition("\n## ")[0]
    rows = [row for row in re.findall(r"^\|.+\|$", part, re.MULTILINE) if "---:" not in row]
    assert len(rows) == 5
    assert set(rows) <= set((DOCS / "results.md").read_text().splitlines())


def test_every_link_has_its_end() -> None:
    """A `#` in a note of the Makefile begins a comment: the first page of results was cut there."""
    for page in pages():
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
        cut = re.findall(r"\]\((?!<?[^()\s]+(?:\([^()\s]*\))?[^()\s]*\)).*", text)
        assert cut == [], page
