"""Pages about the project itself: nothing is left out, and what they name exists."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT

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


HOUSES = ("api", "cli", "client", "common", "deploy", "families", "server", "simulations", "ui")


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


def test_no_link_between_pages_is_dead() -> None:
    pages = [*ROOT.glob("*.md"), *DOCS.glob("**/*.md"), *ROOT.glob("examples/**/*.md")]
    dead = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert len(pages) > 30
    assert dead == []
