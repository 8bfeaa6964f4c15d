"""What a call takes in counts, the same on every machine: statements, transactions, memory, bytes.

python benchmarks/counts.py           # compare with the stored counts, as CI does
python benchmarks/counts.py --store   # store them, and say why in the commit

A store of SQLite with 60 owners and 5 versions each gets every call a few times, without a network.
Bytes are those of the answer; allocated is what Python's objects take at most while a call runs.
More than a tenth above what is stored is a regression, and fails.
"""

import argparse
import gc
import json
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import FIGURES
from load_clients import GROUP, Size, registration, submission
from sqlalchemy import event

from disinherit.common.graph.proto import record_to_proto
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.service.documents import Records
from disinherit.server.service.feed import Feed
from disinherit.server.service.models import Models, received_version
from disinherit.server.service.packing import (
    coverage_to_proto,
    model_report_to_proto,
    status_to_proto,
)
from disinherit.server.service.principals import Principal, Role
from disinherit.server.service.requests import Requests
from disinherit.server.states import CampaignEvent
from disinherit.server.store.notifications import ModelTimes
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.transport.routing import RoutedTransport
from disinherit.v1 import coordinator_pb2 as pb

SIZE = Size(60, 5, 1, 0.0, 14)
TIMES = 4
"""Calls of each kind, of which the first does not count: it fills what is kept."""

MORE = 1.1
"""The largest ratio to what is stored."""

_TITLE = f"What a call takes, in a store of {SIZE.owners} owners with {SIZE.versions} versions each"
KINDS = ("statements", "transactions", "bytes", "allocated KB")
_STORED = FIGURES / "counts.json"
_OPERATOR = Principal("operator", Role.OPERATOR)
_APPROVER = Principal("approver", Role.APPROVER)
_VIEWER = Principal("viewer", Role.VIEWER)

Call = Callable[[int], int]
"""Makes a call for the time with this number, and returns the bytes of the answer."""


class Counter:
    """Counts the statements and transactions of a store during a block.

    Args:
        store: the store.
    """

    def __init__(self, store: CoordinatorStore) -> None:
        self.statements = self.transactions = 0
        self._engine = store._database._engine
        self._listeners: dict[str, Callable[..., None]] = {
            "before_cursor_execute": self._execute,
            "begin": self._begin,
        }

    def __enter__(self) -> "Counter":
        self.statements = self.transactions = 0
        for name, listener in self._listeners.items():
            event.listen(self._engine, name, listener)
        return self

    def __exit__(self, *_: object) -> None:
        # What is allocated is another matter while somebody listens.
        for name, listener in self._listeners.items():
            event.remove(self._engine, name, listener)

    def _execute(self, *args: object) -> None:
        self.statements += not str(args[2]).startswith("BEGIN")

    def _begin(self, _: object) -> None:
        self.transactions += 1


def main() -> None:
    """Compare, or store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", action="store_true", help="store the counts")
    found = measured()
    if parser.parse_args().store:
        rows = [{"call": call, **counts} for call, counts in found.items()]
        content = {"title": _TITLE, "rows": rows, "claims": []}
        _STORED.write_text(json.dumps(content, indent=1) + "\n")
        return
    stored = {row.pop("call"): row for row in json.loads(_STORED.read_text())["rows"]}
    problems = list(compared(found, stored))
    if problems:
        sys.exit("\n".join(problems))
    print(f"{len(found)} calls take no more than a tenth above what is stored")


def compared(
    found: dict[str, dict[str, float]], stored: dict[str, dict[str, float]]
) -> Iterator[str]:
    """Yield one line for each count that is more than a tenth above what is stored.

    Args:
        found: call -> its counts.
        stored: likewise.

    Example:
        >>> list(compared({"list": {"bytes": 12.0}}, {"list": {"bytes": 10.0}}))
        ['Expected list to take at most 11 bytes, a tenth above the stored 10, but it takes 12.']
    """
    if found.keys() != stored.keys():
        changed = ", ".join(sorted(found.keys() ^ stored.keys()))
        yield f"Expected stored counts of all calls, and no others, but see {changed}: store them."
    for call in found.keys() & stored.keys():
        for kind, count in found[call].items():
            most = MORE * stored[call][kind]
            if count > most:
                yield (
                    f"Expected {call} to take at most {most:.4g} {kind}, a tenth above the stored "
                    f"{stored[call][kind]:g}, but it takes {count:g}."
                )


def measured() -> dict[str, dict[str, float]]:
    """Return call -> its mean counts."""
    found = {}
    with filled() as store:
        counter = Counter(store)
        for name, call in calls(store).items():
            call(0)
            with counter:
                size = sum(call(number) for number in range(1, TIMES))
            counts = (counter.statements, counter.transactions, size)
            means = [round(count / (TIMES - 1), 1) for count in counts]
            found[name] = dict(zip(KINDS, (*means, allocated(call)), strict=True))
    return found


def allocated(call: Call) -> float:
    """Return the kilobytes that Python allocates at most during a call: the least of some calls."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        peaks = []
        for number in range(TIMES, 2 * TIMES - 1):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            call(number)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
        gc.enable()
    return round(min(peaks) / 1024, 1)


@contextmanager
def filled() -> Iterator[CoordinatorStore]:
    """A store with versions of all owners, and requests of which every other one runs."""
    with tempfile.TemporaryDirectory() as folder:
        store = CoordinatorStore(Path(folder) / "c.db", Path(folder) / "packets")
        for group in range(SIZE.owners // GROUP):
            for version in range(SIZE.versions):
                for owner in range(group * GROUP, (group + 1) * GROUP):
                    record, edges = received_version(registration(owner, version, alone=False))
                    store.register(record, edges, actor=f"owner:owner-{owner}")
        requests = _requests(store)
        for number in range(SIZE.requests):
            requests.submit(submission(f"q{number}", number, SIZE).request, 0, _OPERATOR)
            if number % 2 == 0:
                requests.approve(f"q{number}", "", _APPROVER)
        yield store
        store.close()


def _requests(store: CoordinatorStore) -> Requests:
    coordinator = Coordinator(store, RoutedTransport([]))
    return Requests(coordinator, lambda _: None, Feed(store, lambda _: None))


def calls(store: CoordinatorStore) -> dict[str, Call]:
    """Return the calls of the load, and a pass of the driver, by name."""
    models, requests = Models(store, lambda _: None), _requests(store)
    records, coordinator = Records(store, None), Coordinator(store, RoutedTransport([]))

    def register(number: int) -> int:
        record, edges = received_version(registration(0, SIZE.versions + number, alone=True))
        return record_to_proto(models.register(_OPERATOR, record, edges)).ByteSize()

    def register_batch(number: int) -> int:
        messages = [registration(1 + number, SIZE.versions + i, alone=True) for i in range(20)]
        return models.register_all(_OPERATOR, messages).ByteSize()

    def submit(number: int) -> int:
        message = submission(f"new{number}", number, SIZE).request
        return status_to_proto(requests.submit(message, 0, _OPERATOR, again=True)).ByteSize()

    def coverage(_: int) -> int:
        page, times = requests.coverage("q0", 0, "")
        packed = [
            coverage_to_proto(one, times.get(one.model_id, ModelTimes())) for one in page.models
        ]
        return pb.GetCoverageResponse(models=packed).ByteSize()

    def report(_: int) -> int:
        found = records.report("q0", 0, "")[1]
        return pb.GetReportResponse(models=map(model_report_to_proto, found)).ByteSize()

    def drive(_: int) -> int:
        coordinator.drive("q10")
        return 0

    return {
        "ListModels, own": lambda _: models.list(_OPERATOR, "owner-7", 0, "").ByteSize(),
        "ListModels, all": lambda _: models.list(_VIEWER, "", 100, "").ByteSize(),
        "GetGraph": lambda _: sum(map(len, models.graph())),
        "GetRequest, running": lambda _: status_to_proto(requests.show("q0")).ByteSize(),
        "GetRequest, awaiting approval": lambda _: status_to_proto(requests.show("q1")).ByteSize(),
        "ListRequests": lambda _: sum(one.ByteSize() for one in requests.list("", 20, "")[0]),
        "GetCoverage": coverage,
        "GetReport": report,
        "ExportAudit, one": lambda _: sum(map(len, records.audit_lines("q0"))),
        "RegisterModel": register,
        "RegisterModels, 20": register_batch,
        "PauseRequest": lambda n: _moved(requests, CampaignEvent.PAUSE, 2 * n),
        "ResumeRequest": lambda n: _moved(requests, CampaignEvent.RESUME, 2 * n),
        "SubmitRequest": submit,
        "ApproveRequest": lambda n: status_to_proto(
            requests.approve(f"q{2 * n + 1}", "", _APPROVER)
        ).ByteSize(),
        "a pass of which nobody is reached": drive,
    }


def _moved(requests: Requests, event: CampaignEvent, number: int) -> int:
    return status_to_proto(requests.move(event, f"q{number}", _OPERATOR)).ByteSize()


if __name__ == "__main__":
    main()
