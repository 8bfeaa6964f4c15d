"""Owners that refuse, lie, or answer nonsense for some time, and are honest then."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from google.protobuf.message import Message

from disinherit.direct import DirectTransport
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.states import TaskState
from disinherit.server.transport.base import Answer, Ask
from disinherit.v1 import unlearning_pb2 as pb
from tests.acceptance.chaos.federation import World, held_by
from tests.acceptance.chaos.lies import Lie, changed
from tests.acceptance.chaos.troubles import Round, Trouble

_PASSES = 3
_SHARE = 0.8
"""Of the answers of an owner that lies, how many do."""

_ERRORS = (
    "no room on the disk",
    "\x1b]0;owned\x07no\r\nroom\u202e",
    "e" * 3 * 2**20,
    "",
)
_FAILED_STATES = (TaskState.FAILED, TaskState.INEFFECTIVE, TaskState.HARMFUL, TaskState.NOT_REACHED)


@dataclass(slots=True)
class Dishonest:
    """Carries messages to owners, of which one does not answer what it should.

    Attributes:
        world: where the owners are.
        owner: the one.
        random: chooses the answers that are changed, and the lies.
        lies: kind of reply -> what may take its place; none to refuse.
        injected: how many answers were not what they should be.
        as_root: whether one of them was about a root, whose information others' models need.
    """

    world: World
    owner: str
    random: Random
    lies: Mapping[type[Message], Sequence[Lie]]
    injected: int = 0
    as_root: bool = False

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        """Yield exactly one answer for each message."""
        for ask in asks:
            if ask.owner == self.owner and not self.lies:
                yield self._counted(Answer(ask, error=self.random.choice(_ERRORS)))
                continue
            (answer,) = DirectTransport(self.world.owners).ask([ask], timeout)
            told: Any = None
            if ask.owner == self.owner and answer.reply and self.random.random() < _SHARE:
                told = changed(self.random, self.lies, answer.reply)
            yield answer if told is None else self._counted(replace(answer, reply=told))

    def _counted(self, answer: Answer) -> Answer:
        self.injected += 1
        self.as_root = self.as_root or answer.ask.action in ("query.fisher", "query.delta")
        return answer


def dishonest(lies: Mapping[type[Message], Sequence[Lie]]) -> Trouble:
    """Return what has one owner lie, or refuse, in three passes over a campaign.

    Args:
        lies: kind of reply -> what may take its place; none to refuse whatever is asked.
    """

    def trouble(round: Round, request_id: str) -> None:
        world = round.world
        owner = round.random.choice(sorted(world.owners))
        line = Dishonest(world, owner, round.random, lies)
        for _ in range(_PASSES):
            round.attempt(request_id, line)
            round.found += contradicted(world, request_id, owner, line.as_root)
            if pb.RegisterReply in lies:
                round.found += _register(world, line)
        round.injected += line.injected
        _honest_again(world, request_id)

    return trouble


def contradicted(world: World, request_id: str, liar: str, as_root: bool) -> Iterator[str]:
    """Yield what must not be, while an owner lies.

    Args:
        world: the federation.
        request_id: the campaign's request.
        liar: the owner.
        as_root: whether it lied about a root, too.
    """
    with world.open_store() as store:
        tasks = store.tasks(request_id)
    held = {owner: held_by(world.folder, owner) for owner in world.owners}
    for model, task in tasks.items():
        made = task.successor
        if task.state is TaskState.VERIFIED and (
            made is None or held[task.owner].get(made.id) != made.digest
        ):
            yield f"{model} is verified in {request_id}, which its owner does not hold"
        if task.state in _FAILED_STATES and task.owner != liar and not as_root:
            yield f"{model} is {task.state} by a lie of {liar}: {task.reason}"
        if len(task.reason) > 1000 or not task.reason.isprintable():
            yield f"the reason at {model} cannot be printed: {task.reason!a:.1000}"


def _register(world: World, line: Dishonest) -> Iterator[str]:
    """Have the owner register its models, and yield what changed that may not."""

    def known() -> dict[str, tuple[str, str, tuple[str, ...]]]:
        return {one.id: (one.owner, one.digest, one.labels) for one in store.graph().models()}

    with world.open_store() as store:
        before = known()
        Coordinator(store, line).register([line.owner], "head")
        held = held_by(world.folder, line.owner)
        for model, (owner, digest, labels) in known().items():
            # It may be the first to tell of what it really made.
            new = model not in before and owner == line.owner and held.get(model) == digest
            if before.get(model) != (owner, digest, labels) and not new:
                yield f"{line.owner} registered {model} of {owner} with digest {digest[:80]}"


def _honest_again(world: World, request_id: str) -> None:
    """Have all owners register the truth; a person sends again what is held to be ineffective."""
    with world.open_store() as store:
        for request in world.requests:
            if any(task.state.unforgotten for task in store.tasks(request.id).values()):
                store.resend(request.id)
    for request in world.requests:
        world.recover(request.id)
        if request.id == request_id:
            return
