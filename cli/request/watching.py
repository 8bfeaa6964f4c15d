"""`disinherit request watch`: a request as it goes, alive on a terminal, in a pipe line by line."""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from disinherit.cli.connection import Connection, connected
from disinherit.cli.ids import RequestId
from disinherit.cli.output import (
    Format,
    FormatOption,
    as_time,
    is_terminal,
    live,
    print_json_line,
    print_line,
    warn_line,
)
from disinherit.cli.owner import ask_seen_owners
from disinherit.cli.request.next_steps import next_steps, waits_for_failed
from disinherit.cli.request.words import asked, in_words
from disinherit.cli.tables import ago, state_text
from disinherit.common.errors import InputError, UnreachableError
from disinherit.documents.campaign.status_values import status_dict
from disinherit.v1 import coordinator_pb2 as pb

EXAMPLES = (
    "Examples:\n\n"
    "disinherit request watch forget-0123456789ab\n\n"
    "disinherit request watch --all\n\n"
    "disinherit request watch --all --after 1200 -o json"
)

_DONE = ("verified", "exempt")
_BAR = 24
_MOST_MISSING = 10
_MOST_EVENTS = 5
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
"""Seconds at most between two attempts to reach a coordinator that is away."""


@connected
def watch(
    connection: Connection,
    request_id: RequestId = "",
    everything: Annotated[
        bool,
        typer.Option("--all", help="All that happens in the fleet, until Ctrl-C; without REQUEST."),
    ] = False,
    after: Annotated[
        int | None,
        typer.Option(
            min=0, help="With --all: first what happened after this number of the audit log."
        ),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Follow a request until it ends: exit code 0 if complete or rolled back, else 1.

    When the coordinator goes away meanwhile, it waits and goes on where it was.  JSON output is
    one object per line and change.  Models that failed are tried again, so a request does not end
    by that.
    """
    if everything == bool(request_id):
        got = "both" if everything else "neither"
        raise InputError(f"Expected the id of a request, or --all, but got {got}.")
    if after is not None and not everything:
        raise InputError("Expected --after with --all only: a request is shown as it is now.")
    if everything:
        _follow_fleet(connection, after, form)
        return 0
    if form is not Format.JSON and is_terminal():
        last = _follow_alive(connection, request_id)
    else:
        last = _follow_lines(connection, request_id, form)
    return 0 if last.get("state") in ("complete", "rolled_back") else 1


Seen = TypeVar("Seen")


def _going_on(stream: Callable[[], Iterator[Seen]], say: Callable[[str], None]) -> Iterator[Seen]:
    """Yield what a stream yields, begun anew whenever the coordinator was away.

    Args:
        stream: begins where it was.
        say: told when the connection is lost, and when it is back.

    Raises:
        DisinheritError: if the first call fails, or a later one for another reason.
    """
    begun = lost = False
    pause = _FIRST_PAUSE
    while True:
        try:
            for one in stream():
                if lost:
                    say(f"{clock()} The coordinator is back.")
                begun, lost, pause = True, False, _FIRST_PAUSE
                yield one
            return
        except UnreachableError as error:
            if not begun:
                raise
            if not lost:
                why = str(error).partition(". ")[0]
                say(f"{clock()} {why}. Waiting for it, until Ctrl-C; nothing is left out.")
            lost = True
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, _LONGEST_PAUSE)


def _statuses(connection: Connection, request_id: str) -> Iterator[pb.RequestStatus]:
    ask = pb.GetRequestRequest(id=request_id)
    return connection.stream(lambda stub: stub.WatchRequest, ask)


def _follow_lines(connection: Connection, request_id: str, form: Format) -> dict[str, Any]:
    """Print a line for each change, and return the last status."""
    last: dict[str, Any] = {}
    hinted = False
    for status in _going_on(lambda: _statuses(connection, request_id), warn_line):
        before, last = last, status_dict(status)
        if last == before:  # after the coordinator was away
            continue
        if form is Format.JSON:
            print_json_line(last)
            continue
        why = f" ({last['halted']})" if last["state"] == "halted" else ""
        print_line(f"{clock()} {last['state']}{why}: {in_words(last['tasks'])}")
        hint = "" if hinted else waits_for_failed(request_id, last["state"], last["tasks"])
        if hint:
            hinted = True
            print_line(hint)
    return last


def _follow_fleet(connection: Connection, after: int | None, form: Format) -> None:
    """Print what happens in the fleet, until Ctrl-C."""
    place = after

    def stream() -> Iterator[pb.FleetEvent]:
        ask = pb.WatchFleetRequest(after_sequence=place)
        return connection.stream(lambda stub: stub.WatchFleet, ask)

    for event in _going_on(stream, warn_line):
        place = max(event.sequence, place or 0)
        if form is Format.JSON:
            print_json_line(
                {
                    "sequence": event.sequence,
                    "time": as_time(event.time_us),
                    "kind": event.kind,
                    "request": event.request_id or None,
                    "model": event.model_id or None,
                    "owner": event.owner or None,
                    "state": event.state or None,
                    "text": event.text,
                    "actor": event.actor or None,
                }
            )
            continue
        when = as_time(event.time_us) if form is Format.WIDE else clock(event.time_us / 1e6)
        about = " ".join(filter(None, (event.request_id, event.model_id, event.owner)))
        said = f": {event.text}" if event.text else ""
        print_line(f"{when} {event.kind.replace('_', ' ')} {about}".rstrip() + said)


def _follow_alive(connection: Connection, request_id: str) -> dict[str, Any]:
    """Show a request on a terminal until it ends, and return the last status."""
    board = Board()

    def stream() -> Iterator[tuple[pb.RequestStatus, list[pb.ModelCoverage], dict[str, pb.Owner]]]:
        for status in _statuses(connection, request_id):
            owners = {owner.name: owner for owner in ask_seen_owners(connection)}
            yield status, _coverage(connection, request_id), owners

    with live(board.render):
        for change in _going_on(stream, board.events.append):
            board.update(*change)
    for step in next_steps(board.shown):
        warn_line(step)
    return board.shown


def _coverage(connection: Connection, request_id: str) -> list[pb.ModelCoverage]:
    ask = pb.GetCoverageRequest(id=request_id)
    pages = connection.pages(lambda stub: stub.GetCoverage, ask)
    return [one for page in pages for one in page.models]


@dataclass
class Board:
    """What a terminal shows of a request: head, bar, who is missing and why, and what happened.

    Attributes:
        shown: its status as JSON values; empty before the first one.
        covered: its affected versions.
        owners: name -> owner.
        events: lines about what happened, the latest last.
    """

    shown: dict[str, Any] = field(default_factory=dict)
    covered: Sequence[pb.ModelCoverage] = ()
    owners: Mapping[str, pb.Owner] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    _status: pb.RequestStatus = field(default_factory=pb.RequestStatus)

    def update(
        self,
        status: pb.RequestStatus,
        covered: Sequence[pb.ModelCoverage],
        owners: Mapping[str, pb.Owner],
    ) -> None:
        """Take in a change."""
        before = {one.model_id: one.state for one in self.covered}
        for one in covered:
            if before.get(one.model_id, one.state) != one.state:
                self.events.append(f"{clock()} {one.owner} {one.state} {one.model_id}{_kept(one)}")
        del self.events[:-_MOST_EVENTS]
        self._status, self.shown = status, status_dict(status)
        self.covered, self.owners = covered, owners

    def render(self) -> RenderableType:
        """Return what is shown now."""
        if not self.shown:
            return Text("asking the coordinator")
        return Group(self._head(), self._bar(), *self._missing(), *map(Text, self.events))

    def _head(self) -> Text:
        what = "; ".join(f"{name} at {model}" for name, model in asked(self.shown))
        reason = f" · {self.shown['reason']}" if self.shown["reason"] else ""
        waves = self.shown["waves"]
        wave = " · wave {begun}/{of}".format(**waves) if waves["of"] > 1 else ""
        left = self._status.deadline_us
        deadline = f" · deadline {ago(left)}" if left else ""
        halted = f" · {self.shown['halted']}" if self.shown["halted"] else ""
        return Text.assemble(
            (self.shown["id"], "bold"),
            f"  forget {what}{reason}  ",
            state_text(self.shown["state"]),
            f"{wave}{deadline}{halted}",
        )

    def _bar(self) -> Text:
        tasks = self.shown["tasks"]
        total = sum(tasks.values())
        done = sum(tasks.get(state, 0) for state in _DONE)
        full = _BAR * done // total if total else 0
        start = self._status.received_us or self._status.created_us
        spent = max(0, int(time.time() - start / 1e6))
        took = f"{spent // 3600}:{spent // 60 % 60:02}:{spent % 60:02}"
        rest = "   ".join(f"{n} {state}" for state, n in tasks.items() if state != "verified")
        return Text.assemble(
            ("█" * full, "green"),
            ("░" * (_BAR - full), "dim"),
            f"  {done}/{total} done   {rest}   {took}",
        )

    def _missing(self) -> list[RenderableType]:
        missing = [one for one in self.covered if one.state not in _DONE]
        # What needs somebody comes first, then what only waits.
        missing.sort(key=lambda one: one.state in ("pending", "sent", "applied"))
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        for kept in (True, True, False, False):
            table.add_column(no_wrap=kept, overflow="fold")
        for one in missing[:_MOST_MISSING]:
            table.add_row(state_text(one.state), one.model_id, one.owner, self._why(one))
        more = len(missing) - _MOST_MISSING
        return [table, *([Text(f"and {more} more")] if more > 0 else [])] if missing else []

    def _why(self, covered: pb.ModelCoverage) -> str:
        """Return why a model is not done: its reason, or where its owner is."""
        owner = self.owners.get(covered.owner)
        if owner is None or owner.online:
            return covered.reason
        seen = f"last seen {ago(owner.last_seen_us)}" if owner.last_seen_us else "never seen"
        hours = f", takes part {owner.hours}" if owner.hours else ""
        away = f"owner offline, {seen}{hours}"
        return f"{covered.reason}; {away}" if covered.reason else away


def clock(seconds: float | None = None) -> str:
    """Return a time of day in the zone of this machine, as HH:MM:SS.

    Args:
        seconds: since the epoch; now by default.
    """
    when = time.time() if seconds is None else seconds
    return datetime.fromtimestamp(when).astimezone().strftime("%H:%M:%S")


def _kept(covered: pb.ModelCoverage) -> str:
    """Return the accuracy on what is kept, before and after, in percent."""
    measured = covered.measured
    if not (measured.HasField("retain_before") and measured.HasField("retain_after")):
        return ""
    return f", retain {100 * measured.retain_before:.1f} → {100 * measured.retain_after:.1f}"
