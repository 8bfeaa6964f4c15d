"""Notebooks, run as a reader does: cell after cell, in one process without a kernel.

    python -m tests.support.notebooks

runs those of the examples, and writes what they print into them.
"""

import ast
import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests import ROOT

NOTEBOOKS = tuple(sorted((ROOT / "examples").glob("*.ipynb")))


def read(path: Path) -> dict[str, Any]:
    """The notebook."""
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def printed(notebook: dict[str, Any]) -> Iterator[str]:
    """Run the cells of code in order, and yield what each prints.

    As in a notebook, an expression at the end of a cell is shown.
    """
    space: dict[str, Any] = {"__name__": "__main__"}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        body = ast.parse("".join(cell["source"])).body
        last = body[-1].value if body and isinstance(body[-1], ast.Expr) else None
        body = body if last is None else body[:-1]
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(ast.Module(body, []), "<cell>", "exec"), space)
            if last is not None:
                value = eval(compile(ast.Expression(last), "<cell>", "eval"), space)
                if value is not None:
                    print(value)
        yield out.getvalue()


def stored(notebook: dict[str, Any]) -> list[str]:
    """What each cell of code prints, as the notebook has it."""
    cells = (cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    return ["".join(line for one in cell["outputs"] for line in one["text"]) for cell in cells]


def main() -> None:
    """Write what the cells print into the notebooks."""
    for path in NOTEBOOKS:
        notebook = read(path)
        texts = list(printed(notebook))
        cells = (cell for cell in notebook["cells"] if cell["cell_type"] == "code")
        for count, (cell, text) in enumerate(zip(cells, texts, strict=True), 1):
            cell["execution_count"] = count
            lines = text.splitlines(keepends=True)
            out = {"name": "stdout", "output_type": "stream", "text": lines}
            cell["outputs"] = [out] if lines else []
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
