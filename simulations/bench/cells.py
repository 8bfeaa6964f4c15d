"""Records of a run: one line of JSON for each cell.

::

    suite.json                     the declaration, and where it was run
    cases/NAME/                    trained models (`disinherit.simulations.bench.cases.store`)
    shadows/NAME.safetensors       what shadow models say
    margins/NAME.safetensors       margins of references that were retrained with other seeds
    references/NAME.json           the panel of the original and of the retrained models, and gates
    cells/NAME/METHOD.json         the panel of what a method made, its clock and its traffic

A file is whole or not there, so a run that was cut short goes on where it was, and cells can be
written by many processes.  `results.jsonl` has all cells together, for other programs.  `pack_run`
puts everything that a report needs into one file, without models: what is kept of a run for good.
"""

import gzip
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disinherit.common.errors import CheckpointError, InputError
from disinherit.common.files import write_atomic
from disinherit.common.text import load_json

Record = dict[str, Any]


def reference_path(folder: Path, case: str) -> Path:
    """Return where the panel of a case's original and retrained models is."""
    return folder / "references" / f"{case}.json"


def cell_path(folder: Path, case: str, method: str) -> Path:
    """Return where a cell is; two methods never share a file."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", method)
    suffix = "" if readable == method else f"-{method.encode().hex()[:12]}"
    return folder / "cells" / case / f"{readable}{suffix}.json"


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as one line of JSON.

    Raises:
        CheckpointError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"Expected to write {path}, but: {error}.") from error
    line = json.dumps(record, ensure_ascii=False, allow_nan=False)
    write_atomic(path, line.encode() + b"\n")


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        CheckpointError: if it is not there, or damaged.
    """
    try:
        record = load_json(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"Expected a record of the bench in {path}, but: {error}. Remove it and run again."
        ) from None
    if not isinstance(record, dict):
        raise CheckpointError(f"Expected a JSON object in {path}. Remove it and run again.")
    return record


def read_run(folder: Path) -> tuple[Record, list[Record], list[Record]]:
    """Return a run's declaration with its environment, its references, and its cells.

    Only what belongs to the declared suite is read, in its order.

    Args:
        folder: of a run, or a file that `pack_run` made of one.

    Raises:
        InputError: if there is no run, or nothing is finished in it.
        CheckpointError: if a record is damaged.
    """
    if folder.is_file():
        return _unpacked(folder)
    if not (folder / "suite.json").is_file():
        raise InputError(f"Expected the folder of a bench run, but {folder} has no suite.json.")
    run = read_record(folder / "suite.json")
    references = [read_record(path) for path in sorted((folder / "references").glob("*.json"))]
    labels = [method["label"] for method in run["suite"]["methods"]]
    cells = [
        read_record(path)
        for reference in references
        for path in (cell_path(folder, reference["case"], label) for label in labels)
        if path.is_file()
    ]
    if not cells:
        raise InputError(f"Expected finished cells in {folder}, but there is none. Run the suite.")
    return run, references, cells


def pack_run(folder: Path, path: Path) -> None:
    """Write a run as one compressed file of JSON lines; the same run gives the same bytes.

    Args:
        folder: of the run.
        path: the file to write, `.jsonl.gz`.

    Raises:
        InputError: if the folder holds no run, or nothing is finished in it.
        CheckpointError: if a record is damaged, or the file cannot be written.
    """
    run, references, cells = read_run(folder)
    kinds = {"run": [run], "reference": references, "cell": cells}
    lines = [
        json.dumps({"kind": kind, **record}, ensure_ascii=False) + "\n"
        for kind, records in kinds.items()
        for record in records
    ]
    write_atomic(path, gzip.compress("".join(lines).encode(), mtime=0))


def _unpacked(path: Path) -> tuple[Record, list[Record], list[Record]]:
    found: dict[str, list[Record]] = {"run": [], "reference": [], "cell": []}
    try:
        for line in gzip.decompress(path.read_bytes()).splitlines():
            record = load_json(line)
            found[record.pop("kind")].append(record)
    except (
        OSError,
        EOFError,
        zlib.error,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        raise CheckpointError(
            f"Expected a packed run of the bench in {path}, but: {type(error).__name__}: {error}."
        ) from None
    if len(found["run"]) != 1 or not found["cell"]:
        raise CheckpointError(f"Expected one run with finished cells in {path}, but got none.")
    return found["run"][0], found["reference"], found["cell"]
