"""A transport to real owners on which messages are lost, repeated, kept back, and damaged."""

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from google.protobuf.message import DecodeError, Message

from disinherit.client.handlers import HANDLERS
from disinherit.common.wire.messages import ACTIONS
from disinherit.common.wire.packets import attach_tensors
from disinherit.direct import DirectTransport
from disinherit.server.transport.base import Answer, Ask
from disinherit.v1 import unlearning_pb2 as pb
from tests.acceptance.chaos.federation import World, held_by, openers, owner_folder

Fault = Callable[["Unreliable", Ask], Answer]
"""Does something to a message, and returns what the coordinator hears of it."""


def silence(ask: Ask) -> Answer:
    """Return what the coordinator hears of an owner that does not answer."""
    return Answer(ask, error=f"owner {ask.owner} did not answer", unreachable=True)


@dataclass(slots=True)
class Unreliable:
    """Carries the coordinator's messages to owners, in any order, some of them with a fault.

    Attributes:
        world: where the owners are.
        fault: what happens to the messages that something happens to.
        random: chooses them.
        share: of the messages, how many.
        scratch: a folder that does not exist, for copies of an owner.
        injected: how many there were.
        kept: messages that are still on their way.
    """

    world: World
    fault: Fault
    random: Random
    share: float
    scratch: Path
    injected: int = 0
    kept: list[Ask] = field(default_factory=list)

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        """Yield exactly one answer for each message."""
        for ask in self.random.sample(asks, len(asks)):
            self.deliver_kept(0.3)
            if self.random.random() < self.share:
                self.injected += 1
                yield self.fault(self, ask)
            else:
                yield self.deliver(ask)

    def deliver(self, ask: Ask) -> Answer:
        """Have an owner answer a message."""
        (answer,) = DirectTransport(self.world.owners).ask([ask], 0.0)
        return answer

    def deliver_kept(self, share: float) -> None:
        """Deliver some of the messages that were kept back, in any order; nobody hears of it."""
        self.random.shuffle(self.kept)
        arriving = [ask for ask in self.kept if self.random.random() < share]
        self.kept = [ask for ask in self.kept if ask not in arriving]
        for ask in arriving:
            self.deliver(ask)


def lose_request(_: Unreliable, ask: Ask) -> Answer:
    """The message does not arrive."""
    return silence(ask)


def lose_reply(line: Unreliable, ask: Ask) -> Answer:
    """The owner does it, but its answer does not arrive."""
    line.deliver(ask)
    return silence(ask)


def duplicate(line: Unreliable, ask: Ask) -> Answer:
    """The message arrives up to four times; one of the answers does."""
    answers = [line.deliver(ask) for _ in range(line.random.randint(2, 4))]
    return line.random.choice(answers)


def delay(line: Unreliable, ask: Ask) -> Answer:
    """The message arrives once or twice, later and in another order, when nobody waits for it."""
    line.kept += [replace(ask, tensors=dict(ask.tensors))] * line.random.randint(1, 2)
    return silence(ask)


def damage_fisher(line: Unreliable, ask: Ask) -> Answer:
    """A bit of the Fisher information in the message, or in the answer to it, is another one."""
    if ask.tensors:
        flipped = {digest: flip(line.random, data) for digest, data in ask.tensors.items()}
        return line.deliver(replace(ask, tensors=flipped))
    answer = line.deliver(ask)
    if isinstance(answer.reply, pb.FisherReply):
        for root in answer.reply.roots:
            for packet in root.packets:
                packet.tensors = flip(line.random, packet.tensors)
        return answer
    return truncate(line, ask)


def truncate(line: Unreliable, ask: Ask) -> Answer:
    """The message, or the answer to it, is cut off somewhere."""
    try:
        if line.random.random() < 0.5:
            task = _cut(line.random, ACTIONS[ask.action].task, ask.task)
            return replace(line.deliver(replace(ask, task=task)), ask=ask)
        answer = line.deliver(ask)
        if answer.reply is None:
            return answer
        return replace(answer, reply=_cut(line.random, ACTIONS[ask.action].reply, answer.reply))
    except DecodeError as error:
        return Answer(ask, error=f"owner {ask.owner}: it is damaged: {error}")


def flip_any_bit(line: Unreliable, ask: Ask) -> Answer:
    """A bit anywhere in the message is another one, and the connection is cut, as TLS does.

    A copy of the owner gets the message all the same: whatever it makes of it, every version that
    it holds then is what its digest says.
    """
    name = ask.owner
    source, copied = owner_folder(line.world.folder, name), owner_folder(line.scratch, name)
    shutil.copytree(source, copied)
    try:
        task = type(ask.task).FromString(flip(line.random, ask.task.SerializeToString()))
        with openers(line.scratch)[name]() as owner:
            attach_tensors(task, ask.tensors.__getitem__)
            HANDLERS[ask.action](owner, task)
    except Exception:  # an agent answers with one line, whatever it is
        logging.getLogger(__name__).debug("refused", exc_info=True)
    held_by(line.scratch, name)
    shutil.rmtree(line.scratch)
    return silence(ask)


def _cut(random: Random, kind: type[Message], message: Message) -> Message:
    data = message.SerializeToString()
    return kind.FromString(data[: random.randint(0, len(data))])


def flip(random: Random, data: bytes) -> bytes:
    """Return bytes with one random bit of them flipped."""
    if not data:
        return data
    changed = bytearray(data)
    changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(changed)
