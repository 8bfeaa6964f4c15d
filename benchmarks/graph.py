"""Inheritance graphs of 10^4 to 10^6 versions with two edges each: in memory, and in a store.

In memory: load, `affected`, planning a request at three roots, and adding a version. In an SQLite
store, where a version inherits from others of its block of ten: opening, registering a version, and
what planning a request reads. CPU seconds; one call each, as all sizes show the same.
"""

import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from measuring import Claim, Figures, arguments, report
from sqlalchemy import insert

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.proto import inheritance_to_proto, record_to_proto
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.common.wire.requests import Request
from disinherit.server.planning.plan import plan
from disinherit.server.store.database import Database
from disinherit.server.store.graph import find_descendants
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.store.tables import EDGES, MODELS

KIND = InheritanceKind.TRANSFER


def main() -> None:
    """Measure, print and store."""
    options = arguments(__doc__)
    rows, claims = [], []
    for size in (1000,) if options.reduced else (10**4, 10**5, 10**6):
        row = {"versions": size} | _in_memory(size)
        if size <= 10**5:
            row |= _in_store(size)
        rows.append(row)
        if size == 10**6:
            claims.append(Claim(8, "affected, 10^6 versions, s", row["affected"], at_most=2))
    if len(rows) > 1:
        grown = rows[1]["register, store"] / rows[0]["register, store"]
        claims.append(Claim(8, "registering in a store of 10^5 / of 10^4", grown, at_most=2))
    report(options, "graph", "Graphs: CPU seconds", rows, claims)


def _version(number: int) -> ModelRecord:
    return ModelRecord(f"m{number}", f"owner-{number % 1000}", "a", ("x", "y"), "", number + 1)


def _edges(size: int, oldest: Callable[[int], int]) -> list[Inheritance]:
    chosen = random.Random(0)
    return [
        Inheritance(f"m{parent}", f"m{child}", KIND)
        for child in range(size)
        if oldest(child) < child
        for parent in {chosen.randrange(oldest(child), child) for _ in range(2)}
    ]


def _in_memory(size: int) -> Figures:
    records = [_version(number) for number in range(size)]
    edges = _edges(size, lambda child: max(0, child - 1000))
    graph, load = _timed(lambda: InheritanceGraph(records, edges))
    _, affected = _timed(lambda: graph.affected(["m0"]))
    request = Request(id="q", forget={id: ["x"] for id in ("m0", "m5", "m9")}).to_proto()
    _, planned = _timed(lambda: plan(graph, request))
    new = Inheritance(f"m{size - 1}", f"m{size}", KIND)
    _, added = _timed(lambda: graph.add(_version(size), [new]))
    return {"load": load, "affected": affected, "plan": planned, "add": added}


def _in_store(size: int) -> Figures:
    with tempfile.TemporaryDirectory(prefix="disinherit-") as folder:
        file = Path(folder) / "store.db"
        CoordinatorStore(file).close()
        _fill(file, size)
        store, opening = _timed(lambda: CoordinatorStore(file))
        try:
            taken = []
            for number in range(size, size + 50):
                new = Inheritance(f"m{number - size}", f"m{number}", KIND)
                version = _version(number)
                taken.append(_timed(partial(store.add_model, version, [new]))[1])
            with store.reading() as db:
                part, read = _timed(lambda: find_descendants(db, [f"m{size // 20 * 10}"]))
        finally:
            store.close()
    return {
        "open, store": opening,
        "register, store": sorted(taken)[len(taken) // 2],
        "read a request's part": read,
        "versions read": len(part),
    }


def _fill(file: Path, size: int) -> None:
    database = Database(file)
    records = [_version(number) for number in range(size)]
    models = [
        {"id": r.id, "owner": r.owner, "created_us": r.created_us, "record": _data(r)}
        for r in records
    ]
    edges = [
        {"parent": e.parent, "child": e.child, "edge": inheritance_to_proto(e).SerializeToString()}
        for e in _edges(size, lambda child: child // 10 * 10)
    ]
    with database.writing() as db:
        db.execute(insert(MODELS), models)
        db.execute(insert(EDGES), edges)
    database.close()


def _data(record: ModelRecord) -> bytes:
    return record_to_proto(record).SerializeToString(deterministic=True)


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    return run(), time.process_time() - started


if __name__ == "__main__":
    main()
