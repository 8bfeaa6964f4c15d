"""A small federation of real owners with a coordinator, and a transport on which things go wrong.

The seven models of `simulations.topology.FEDERATED` on three owners; cats enter at r1, owls at r2::

    anna: d, r1, r4      ben: s, r2, r6      cleo: r3
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from sqlalchemy import insert, select
from torch import Tensor

from disinherit.client.store.store import ModelStore
from disinherit.common.errors import StoreError
from disinherit.common.method import Method
from disinherit.common.wire.requests import Request
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.states import TaskState
from disinherit.server.store.database import Database
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.store.tables import METADATA
from disinherit.server.transport.base import Answer, Ask, Transport
from disinherit.simulations.scenario.scenarios import FEDERATED
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.owner import LABELS, PointsOwner, direct_transport

OWNERS = {
    "d": "anna",
    "s": "ben",
    "r1": "anna",
    "r2": "ben",
    "r3": "cleo",
    "r4": "anna",
    "r6": "ben",
}
NAMES = ("anna", "ben", "cleo")
FORGET: Mapping[str, tuple[str, ...]] = {"r1": ("cat",), "r2": ("owl",)}
AFFECTED = ("r1", "r2", "r3", "r4", "r6")
MESSAGES = (
    ("anna", "query.fisher"),
    ("ben", "query.fisher"),
    ("anna", "train.unlearn"),
    ("ben", "train.unlearn"),
    ("cleo", "train.unlearn"),
    ("anna", "evaluate.panel"),
    ("ben", "evaluate.panel"),
    ("cleo", "evaluate.panel"),
)
"""What owners are asked in a campaign over all of them, in this order."""

Twist = Callable[[Ask, Callable[[], Answer]], Answer]
"""Answers a message; the second argument is how the owner would."""


def make_method(**changes: Any) -> Method:
    """A method with nothing left to tune, that compares Fishers as they are.

    Every model of the federation forgets by it.
    """
    return replace(Method(alpha=1.0, lam=0.5, gauge=3.0, rescale=False), **changes)


def make_request(
    forget: Mapping[str, Sequence[str]] = FORGET, request_id: str = "q", **method: Any
) -> pb.UnlearningRequest:
    return Request(
        forget=forget, id=request_id, reason="asked to", method=make_method(**method)
    ).to_proto()


class TroubledTransport:
    """Carries messages to real owners, except where a test has other plans.

    Attributes:
        inner: the way to the owners.
        twists: (owner, action) -> what happens instead.
        asked: every message, in order.
    """

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.twists: dict[tuple[str, str], Twist] = {}
        self.asked: list[Ask] = []

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        assert len({ask.owner for ask in asks}) == len(asks)
        for ask in asks:
            self.asked.append(ask)

            def honest(ask: Ask = ask) -> Answer:
                (answer,) = self.inner.ask([ask], timeout)
                return answer

            twist = self.twists.get((ask.owner, ask.action))
            yield twist(ask, honest) if twist else honest()

    def actions(self) -> list[tuple[str, str]]:
        """Who was asked for what, and forget about it."""
        asked = [(ask.owner, ask.action) for ask in self.asked]
        self.asked.clear()
        return asked


def gone(ask: Ask, _: Callable[[], Answer]) -> Answer:
    """The owner cannot be reached."""
    return Answer(ask, error=f"owner {ask.owner} is not connected", unreachable=True)


def broken(ask: Ask, _: Callable[[], Answer]) -> Answer:
    """The owner cannot do it."""
    return Answer(ask, error=f"owner {ask.owner}: disk\non fire")


def reply_lost(ask: Ask, honest: Callable[[], Answer]) -> Answer:
    """The owner does it, but its answer does not come through in time."""
    honest()
    return Answer(ask, error=f"owner {ask.owner} did not answer", unreachable=True)


def lying(change: Callable[[Any], None]) -> Twist:
    """The owner does it, and changes its answer."""

    def twist(ask: Ask, honest: Callable[[], Answer]) -> Answer:
        answer = honest()
        assert answer.reply is not None
        change(answer.reply)
        return answer

    return twist


class World:
    """A federation in a folder.

    Args:
        root: the folder, as `build` left it.
        database: the URL of a database other than the one in the folder.
        kind: of the owners.

    Attributes:
        place: of the coordinator's database: a file or a URL.
        packets: folder of the Fisher packets.
    """

    def __init__(
        self, root: Path, database: str | None = None, kind: type[PointsOwner] = PointsOwner
    ) -> None:
        self.root = root
        self.database = database
        self.kind = kind
        self.place: str | Path = database or root / "coordinator.db"
        self.packets = root / "coordinator.db.packets"
        self.store = CoordinatorStore(self.place, self.packets)
        self.transport = TroubledTransport(direct_transport(root, NAMES, kind=kind))
        self.coordinator = Coordinator(self.store, self.transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def again(self) -> "World":
        """The same federation with a coordinator of its own, as after a restart."""
        return World(self.root, self.database, self.kind)

    def states(self, request_id: str = "q") -> dict[str, TaskState]:
        return {model: task.state for model, task in self.store.tasks(request_id).items()}

    def reason(self, model: str, request_id: str = "q") -> str:
        return self.store.tasks(request_id)[model].reason

    def owned(self, model: str) -> ModelStore:
        """The store of a model's owner; to be closed."""
        owner = self.store.graph().model(model).owner
        return ModelStore(self.root / owner, owner)

    def weights(self, model: str) -> dict[str, Tensor]:
        with self.owned(model) as store:
            return store.weights(model)

    def files(self) -> dict[str, bytes]:
        """Everything the owners have on disk."""
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for name in NAMES
            for path in sorted((self.root / name).rglob("*"))
            if path.is_file()
        }

    def knowledge(self) -> object:
        """Everything the coordinator knows."""
        graph = self.store.graph()
        tasks = {request: self.store.tasks(request) for request in self.store.requests()}
        return graph.models(), graph.edges(), tasks


def build(
    root: Path,
    kind: type[PointsOwner] = PointsOwner,
    scope: str = "head",
    left_out: Callable[[str], Sequence[str]] = lambda id: FEDERATED.never_learned(id, FORGET),
) -> None:
    """Train the federation in an empty folder and register it.

    Args:
        root: the folder.
        kind: of the owners.
        scope: of the summaries that they register.
        left_out: the classes that a model is not trained on.
    """
    weights: dict[str, dict[str, Tensor]] = {}
    store = CoordinatorStore(root / "coordinator.db")
    for age, derivation in enumerate(FEDERATED.derivations, start=1):
        unknown = left_out(derivation.id)
        name = OWNERS[derivation.id]
        with kind(root / name, name) as owner:
            record = owner.train(
                derivation.id,
                classes=[label for label in LABELS if label not in unknown],
                created_us=age,
                start=[weights[parent] for parent in derivation.parents],
            )
            weights[derivation.id] = owner.store.weights(derivation.id)
        store.add_model(record, FEDERATED.edges(derivation))
    errors = Coordinator(store, direct_transport(root, NAMES, kind=kind)).register(NAMES, scope)
    store.close()
    if errors:
        raise StoreError(str(errors))


def copy(
    built: Path,
    root: Path,
    database: str | None = None,
    kind: type[PointsOwner] = PointsOwner,
) -> World:
    """Open a copy of what `build` made.

    Args:
        built: the original.
        root: the folder of the copy; made.
        database: the URL of an empty database that the coordinator's is moved to.
        kind: of the owners, as in `build`.
    """
    shutil.copytree(built, root)
    if database is not None:
        CoordinatorStore(database).close()
        source, target = Database(built / "coordinator.db"), Database(database)
        with source.reading() as old, target.writing() as new:
            for table in METADATA.sorted_tables:
                for row in old.execute(select(table)):
                    new.execute(insert(table).values(**row._mapping))
        source.close()
        target.close()
    return World(root, database, kind)
