"""Put the stored figures into docs/performance.md, between its markers.

    python benchmarks/render.py          # write
    python benchmarks/render.py --check  # only say whether the page shows the stored figures

`<!-- begin NAME -->` and `<!-- end NAME -->` enclose the table of a benchmark; `summary` is the
table of all targets, whose column "before" is what the same benchmark said in the folder `before`.
"""

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

from figures import FIGURES, cell, wanted

PAGE = FIGURES.parent.parent / "performance.md"

Stored = Mapping[str, Any]


def render() -> None:
    """Write the tables."""
    PAGE.write_text(rendered())


def rendered() -> str:
    """Return the page with the tables of the stored figures.

    Raises:
        ValueError: if figures have no place on the page.
    """
    stored = {file.stem: json.loads(file.read_text()) for file in sorted(FIGURES.glob("*.json"))}
    earlier = [json.loads(f.read_text()) for f in sorted((FIGURES / "before").glob("*.json"))]
    blocks = {name: _table(content) for name, content in stored.items()}
    blocks["summary"] = _summary(stored, earlier)
    page = PAGE.read_text()
    places = re.findall(r"<!-- begin (\w+) -->", page)
    if homeless := sorted(blocks.keys() - set(places)):
        raise ValueError(f"Expected a place for {homeless} on {PAGE}, but there are {places}.")
    for name in places:
        block = blocks.get(name, "Not measured yet.")
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n\n{block}\n\n{end}{rest.partition(end)[2]}"
    return page


def _summary(stored: Mapping[str, Stored], earlier: list[Stored]) -> str:
    before = {c["what"]: c["value"] for content in earlier for c in content["claims"]}
    claims = sorted(
        (
            claim | {"script": _script(name)}
            for name, content in stored.items()
            for claim in content["claims"]
        ),
        key=lambda claim: claim["target"],
    )
    rows = [
        [
            str(claim["target"]),
            claim["what"],
            *(cell(v) for v in (before.get(claim["what"]), claim["limit"], claim["value"])),
            wanted(claim),
            "yes" if _holds(claim) else "no",
            f"[{claim['script']}](../benchmarks/{claim['script']})",
        ]
        for claim in claims
    ]
    columns = ["target", "figure", "before", "limit", "now", "wanted", "met", "script"]
    return _markdown(columns, rows)


def _script(name: str) -> str:
    """Return the benchmark that stored some figures; those of a device have its name behind."""
    found = f"{name.removesuffix('_cuda')}.py"
    if not (FIGURES.parents[2] / "benchmarks" / found).is_file():
        raise ValueError(f"Expected the benchmark of {name}, but there is no benchmarks/{found}.")
    return found


def _holds(claim: Mapping[str, Any]) -> bool:
    if claim["at_most"] is not None:
        return bool(claim["value"] <= claim["at_most"])
    return claim["at_least"] is None or bool(claim["value"] >= claim["at_least"])


def _table(content: Stored) -> str:
    columns = list(dict.fromkeys(column for row in content["rows"] for column in row))
    rows = [
        [cell(v["cpu"] if isinstance(v := row.get(column), dict) else v) for column in columns]
        for row in content["rows"]
    ]
    shown = f"{content['title']}:\n\n{_markdown(columns, rows)}"
    if "environment" not in content:  # counts, which depend on no machine
        return shown
    e = content["environment"]
    where = (
        f"{e['date']}, commit {e['commit']}, {e['processor']}, {e['threads']} thread(s) of "
        f"{e['cores']} cores, load {e['load_average']}, copying "
        f"{e['copied_gigabytes_per_second']} GB/s, {e['gigaflops_per_second']} GFLOP/s in float32, "
        f"PyTorch {e['torch']}"
    )
    return f"{shown}\n\nMeasured {where}."


def _markdown(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    if "--check" not in sys.argv[1:]:
        render()
    elif rendered() != PAGE.read_text():
        sys.exit(f"Expected {PAGE} to show the stored figures: run 'make performance'.")
