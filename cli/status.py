"""`disinherit status`: the coordinator, the caller, and what waits for somebody."""

import importlib.metadata
from typing import Any

from disinherit.cli.connection import Connection, connected
from disinherit.cli.output import Format, FormatOption, as_time, print_json, print_line
from disinherit.cli.owner import ask_seen_owners, presence
from disinherit.cli.request.words import in_words
from disinherit.cli.tables import ago, moment, print_facts, print_table, state_text
from disinherit.common.errors import NotAllowedError
from disinherit.documents.campaign.status_values import status_dict
from disinherit.v1 import coordinator_pb2 as pb

EXAMPLES = "Example: disinherit status --server fleet.org:50051"

_STEPS = {
    "approver": {
        "awaiting_approval": "disinherit request approve {id}",
        "halted": "disinherit request resume {id}, or rollback",
    },
    "operator": {
        "paused": "disinherit request resume {id}",
        "halted": "disinherit request coverage {id}",
        "partial": "disinherit request coverage {id}",
    },
}
"""Role -> state of a request that waits for it -> what to do."""

_RUNNING = ("awaiting_approval", "running", "paused", "halted", "rolling_back")


@connected
def status(connection: Connection, form: FormatOption = Format.TABLE) -> int:
    """Print whether the coordinator serves, who you are to it, and what needs you.

    Exit code 1 if it answers and cannot serve, 3 if it does not answer.
    """
    serving = connection.health()
    who = connection.call(lambda stub: stub.WhoAmI, pb.WhoAmIRequest())
    requests, owners = _requests(connection), ask_seen_owners(connection)
    steps = _STEPS.get(who.role, {})
    mine = [one for one in requests if one["state"] in steps]
    under_way = [one for one in requests if one["state"] in _RUNNING]
    away = [one for one in owners if not one.online and one.pending_tasks]
    if form is Format.JSON:
        print_json(
            {
                "server": connection.server,
                "serving": serving,
                "release": who.release,
                "own_release": importlib.metadata.version("disinherit"),
                "name": who.name,
                "role": who.role,
                "expires": as_time(who.expires_us),
                "needs_you": [one["id"] for one in mine],
                "under_way": {one["id"]: one["state"] for one in under_way},
                "owners": len(owners),
                "owners_online": sum(one.online for one in owners),
                "away": {one.name: as_time(one.last_seen_us) for one in away},
            }
        )
        return 0 if serving else 1
    own = importlib.metadata.version("disinherit")
    release = who.release if who.release == own else f"{who.release}; this program is {own}"
    online = sum(one.online for one in owners)
    print_facts(
        [
            ("server", connection.server),
            ("health", state_text("ok", "serving") if serving else state_text("problem")),
            ("release", release),
            ("you", f"{who.name}, {who.role}{f' {who.owner}' if who.owner else ''}"),
            ("token until", moment(who.expires_us)),
            ("approval", "by a second person" if who.approval else "not needed"),
            ("owners", f"{online} of {len(owners)} online" if owners else ""),
        ]
    )
    if mine:
        print_line("needs you")
        print_table(
            ("request", "state", "do"),
            [
                [one["id"], state_text(one["state"]), steps[one["state"]].format(id=one["id"])]
                for one in mine
            ],
            whole=("request", "state", "do"),
        )
    rest = [one for one in under_way if one not in mine]
    if rest:
        print_line("under way")
        print_table(
            ("request", "state", "models"),
            [[one["id"], state_text(one["state"]), in_words(one["tasks"])] for one in rest],
            whole=("request", "state"),
        )
    if away:
        print_line("away, with models that wait for them")
        print_table(
            ("owner", "state", "last seen", "waiting"),
            [
                [
                    *(one.name, state_text(presence(one)), ago(one.last_seen_us)),
                    str(one.pending_tasks),
                ]
                for one in away
            ],
            whole=("owner", "state"),
        )
    if not (mine or rest or away):
        print_line("nothing waits for anybody")
    return 0 if serving else 1


def _requests(connection: Connection) -> list[dict[str, Any]]:
    """Return the statuses of all requests; none if the caller may not list them."""
    try:
        pages = list(connection.pages(lambda stub: stub.ListRequests, pb.ListRequestsRequest()))
    except NotAllowedError:
        return []
    return [status_dict(status) for page in pages for status in page.requests]
