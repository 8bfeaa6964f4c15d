"""One tree of errors in one module, and unique class names."""

import ast
from collections import defaultdict
from pathlib import Path

from disinherit.common import errors
from tests import ROOT

PROJECT = ROOT
PRODUCT = (
    *("common", "families", "client", "server", "deploy", "simulations", "cli", "api"),
    *("documents", "flower", "ui"),
)
REASONS = {"Stopped", "Unsupported"}
"""No errors: a user never meets them."""


def classes() -> dict[str, list[tuple[Path, ast.ClassDef]]]:
    found = defaultdict(list)
    for folder in PRODUCT:
        for path in sorted((PROJECT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    found[node.name].append((path.relative_to(PROJECT), node))
    return found


def test_every_error_that_a_user_can_meet_is_in_the_tree() -> None:
    elsewhere = {
        name: str(path)
        for name, places in classes().items()
        for path, node in places
        if {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        & {"Exception", "ValueError", "RuntimeError", *vars(errors)}
        and not name.startswith("_")
        and path != Path("common/errors.py")
    }
    assert elsewhere.keys() == REASONS


def test_the_drawing_of_the_tree_shows_every_error() -> None:
    tree = str(errors.__doc__)
    for name, value in vars(errors).items():
        if isinstance(value, type):
            assert issubclass(value, errors.DisinheritError)
            assert f" {name} " in f"{tree} ".replace("\n", " ")


def test_no_name_of_a_class_has_two_meanings() -> None:
    twice = {
        name: [str(path) for path, _ in places]
        for name, places in classes().items()
        if len(places) > 1 and not name.startswith("_")
    }
    assert twice == {}
