"""Databases and owners' folders that are put back from copies, in the middle of a campaign."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from disinherit.server.store.log_mark import mark_file
from disinherit.simulations.run.folder import DATABASE
from tests.acceptance.chaos import messages
from tests.acceptance.chaos.federation import World, owner_folder
from tests.acceptance.chaos.messages import Unreliable
from tests.acceptance.chaos.troubles import MESSAGES, Meanwhile, Round

_LOST = 0.25
"""Share of answers that are lost in a pass, so that a copy may be of any state."""

_FROM_BEFORE = 0.3
"""Share of the copies of a database that are from before all requests."""


def put_database_back(round: Round, request_id: str) -> None:
    """Put the coordinator's database back to a copy: from before all requests, or from a pass.

    The file beside the key, which says up to where the log was signed, is that of the copy in one
    case of two: then only owners know that something is missing.  A person says that the
    coordinator may go on, if it asks for that, and submits again what the copy does not know.
    """
    world, random = round.world, round.random
    copy = world.folder.with_name("copy")
    line = Unreliable(world, messages.lose_reply, random, _LOST, copy)
    if random.random() < _FROM_BEFORE:
        copy.mkdir()
        shutil.copy(world.built / DATABASE, copy)
        round.attempt(request_id, line)
    else:
        number = random.randrange(MESSAGES)
        round.attempt(request_id, Meanwhile(line, number, lambda: _back_up(world, copy)))
        if not copy.exists():  # the pass had ended before
            _back_up(world, copy)
    for _ in range(random.randint(0, 2)):
        round.attempt(request_id, world.transport)
    _put_back(world, copy, with_mark=random.random() < 0.5)
    shutil.rmtree(copy)
    round.injected += 1
    world.confirms = True
    for request in world.requests:
        world.confirm_history()
        world.submit(request)
        world.recover(request.id)
        if request.id == request_id:
            return


def put_owner_back(round: Round, request_id: str) -> None:
    """Put an owner's folder back to a copy from a pass, as a device that starts its older image.

    It is asked what it holds then, as one that connects anew.
    """
    world, random = round.world, round.random
    owner = random.choice(sorted(world.owners))
    folder, copy = owner_folder(world.folder, owner), world.folder.with_name("image")
    copied, back = sorted(random.sample(range(MESSAGES), 2))

    def put_back() -> None:
        shutil.rmtree(folder)
        shutil.move(copy, folder)
        round.injected += 1

    before = round.injected
    line = Meanwhile(world.transport, copied, lambda: shutil.copytree(folder, copy))
    round.attempt(request_id, Meanwhile(line, back, put_back))
    if not copy.exists() and round.injected == before:  # the pass had ended before
        shutil.copytree(folder, copy)
        round.attempt(request_id, world.transport)
    if copy.exists():
        put_back()
    world.look_again(owner)
    for request in world.requests:
        world.recover(request.id)
        if request.id == request_id:
            return


def _back_up(world: World, copy: Path) -> None:
    copy.mkdir()
    with (
        closing(sqlite3.connect(world.folder / DATABASE)) as running,
        closing(sqlite3.connect(copy / DATABASE)) as target,
    ):
        running.backup(target)
    if mark_file(world.key).exists():
        shutil.copy(mark_file(world.key), copy)


def _put_back(world: World, copy: Path, *, with_mark: bool) -> None:
    for path in world.folder.glob(f"{DATABASE}*"):
        if path.is_file():
            path.unlink()
    shutil.copy(copy / DATABASE, world.folder)
    if with_mark:
        mark = mark_file(world.key)
        mark.unlink(missing_ok=True)
        if (copy / mark.name).exists():
            shutil.copy(copy / mark.name, mark)
