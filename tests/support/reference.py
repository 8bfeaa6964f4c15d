"""Pieces of the pages that are made from the code."""

import ast
import inspect
import re
from collections.abc import Iterable, Sequence
from enum import Enum


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def one_line(text: str) -> str:
    """A text as it stands in a cell of a table."""
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


def words(code: str) -> str:
    """Code within a sentence; nothing where there is none."""
    return f"`{code}`" if code else ""


def meanings_of(kind: type[Enum]) -> dict[str, str]:
    """Value -> what is said below the member of an enumeration."""
    (declared,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(declared, ast.ClassDef)
    found = {}
    for member, said in zip(declared.body, declared.body[1:], strict=False):
        if isinstance(member, ast.Assign) and isinstance(said, ast.Expr):
            assert isinstance(member.value, ast.Constant)
            found[str(member.value.value)] = one_line(ast.literal_eval(said.value))
    return found
