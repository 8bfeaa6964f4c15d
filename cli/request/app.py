"""The group of commands about requests: approval, control, status and list."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from disinherit.cli.audit import attest
from disinherit.cli.commands import Commands
from disinherit.cli.completion import complete_owners
from disinherit.cli.connection import Connection, connected
from disinherit.cli.coverage import EXAMPLES as COVERAGE_EXAMPLES
from disinherit.cli.coverage import coverage
from disinherit.cli.ids import RequestId
from disinherit.cli.output import (
    Format,
    FormatOption,
    QuietOption,
    print_json,
    print_line,
)
from disinherit.cli.request.export import EXAMPLES as EXPORT_EXAMPLES
from disinherit.cli.request.export import export
from disinherit.cli.request.plan import by_owner
from disinherit.cli.request.planning import EXAMPLES as PLAN_EXAMPLES
from disinherit.cli.request.planning import plan
from disinherit.cli.request.report import EXAMPLES as REPORT_EXAMPLES
from disinherit.cli.request.report import report
from disinherit.cli.request.status import exit_code, show_status
from disinherit.cli.request.submission import EXAMPLES as SUBMIT_EXAMPLES
from disinherit.cli.request.submission import submit
from disinherit.cli.request.watching import EXAMPLES as WATCH_EXAMPLES
from disinherit.cli.request.watching import watch
from disinherit.cli.request.words import asked, in_words
from disinherit.cli.samples import digest
from disinherit.cli.tables import Cell, ago, print_table, state_text
from disinherit.common.durations import seconds
from disinherit.documents.campaign.status_values import status_dict
from disinherit.v1 import coordinator_pb2 as pb

if TYPE_CHECKING:
    from grpc import UnaryUnaryMultiCallable

    from disinherit.v1.coordinator_pb2_grpc import CoordinatorStub

    Steering = UnaryUnaryMultiCallable[pb.ControlRequest, pb.RequestStatus]

app = Commands("Submit requests to forget, approve them and follow them.")


app.command(epilog=PLAN_EXAMPLES)(plan)
app.command(epilog=SUBMIT_EXAMPLES)(submit)


@app.command(
    epilog="Examples:\n\n"
    "disinherit request show forget-0123456789ab\n\n"
    "disinherit request approve forget-0123456789ab --plan 6b86b273ff34...\n\n"
    "disinherit request approve forget-0123456789ab"
)
@connected
def approve(
    connection: Connection,
    request_id: RequestId,
    plan: Annotated[
        str,
        typer.Option(
            metavar="DIGEST",
            help="Digest of the plan from `request show`; refused if the plan has changed. By "
            "default the submitted plan, without descendants that other owners registered since.",
        ),
    ] = "",
    form: FormatOption = Format.TABLE,
) -> int:
    """Approve a submitted request, with another token than that of its submission."""
    message = pb.ControlRequest(id=request_id, plan_sha256=plan)
    show_status(connection.call(lambda stub: stub.ApproveRequest, message), form)
    return 0


@app.command(epilog="Example: disinherit request pause forget-0123456789ab")
@connected
def pause(connection: Connection, request_id: RequestId, form: FormatOption = Format.TABLE) -> int:
    """Pause a request: send no further messages. Applied changes stay."""
    return _steer(connection, lambda stub: stub.PauseRequest, request_id, form)


@app.command(
    epilog="Examples:\n\n"
    "disinherit request resume forget-0123456789ab\n\n"
    "disinherit request resume forget-0123456789ab --deadline 7d"
)
@connected
def resume(
    connection: Connection,
    request_id: RequestId,
    deadline: Annotated[
        str | None,
        typer.Option(help="A new deadline from now: 90s, 45m, 12h, 30d, or 0s for none."),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Resume a request that is paused or halted, or that gave up some owners."""
    wait = None if deadline is None else seconds(deadline)
    message = pb.ResumeRequestRequest(id=request_id, deadline_seconds=wait)
    show_status(connection.call(lambda stub: stub.ResumeRequest, message), form)
    return 0


@app.command(epilog="Example: disinherit request resend forget-0123456789ab")
@connected
def resend(connection: Connection, request_id: RequestId, form: FormatOption = Format.TABLE) -> int:
    """Send a request to all owners again: an owner that lost its successor makes it again."""
    return _steer(connection, lambda stub: stub.ResendRequest, request_id, form)


@app.command(epilog="Example: disinherit request abort forget-0123456789ab")
@connected
def abort(connection: Connection, request_id: RequestId, form: FormatOption = Format.TABLE) -> int:
    """End a request now. Applied changes stay."""
    return _steer(connection, lambda stub: stub.AbortRequest, request_id, form)


@app.command(
    epilog="Examples:\n\n"
    "disinherit request rollback forget-0123456789ab --reason 'too much was lost'\n\n"
    "disinherit request rollback forget-0123456789ab --model r4 --model r6 --reason 'asked again'"
)
@connected
def rollback(
    connection: Connection,
    request_id: RequestId,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; for people to read.")],
    model: Annotated[
        list[str] | None, typer.Option(help="Only this affected model. Repeat.")
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """End a request and roll back the models that it changed. They remember again."""
    message = pb.RollBackRequestRequest(id=request_id, reason=reason, model_ids=model or [])
    show_status(connection.call(lambda stub: stub.RollBackRequest, message), form)
    return 0


@app.command(epilog="Example: disinherit request show forget-0123456789ab --format json")
@connected
def show(connection: Connection, request_id: RequestId, form: FormatOption = Format.TABLE) -> int:
    """Print the status of a request, with all that an approver should know.

    Exit code 1 if it ended without being complete or rolled back.
    """
    status = connection.call(lambda stub: stub.GetRequest, pb.GetRequestRequest(id=request_id))
    whole = pb.GetCoverageRequest(id=request_id)
    pages = connection.pages(lambda stub: stub.GetCoverage, whole)
    show_status(status, form, by_owner([one for page in pages for one in page.models]))
    return exit_code(status_dict(status)["state"])


@app.command(
    "list",
    epilog="Examples:\n\ndisinherit request list\n\ndisinherit request list --owner clinic-7",
)
@connected
def list_requests(
    connection: Connection,
    owner: Annotated[
        str,
        typer.Option(
            help="Only requests that affect a model of this owner.",
            autocompletion=complete_owners,
        ),
    ] = "",
    quiet: QuietOption = False,
    form: FormatOption = Format.TABLE,
) -> int:
    """List all requests, oldest first."""
    wanted = pb.ListRequestsRequest(owner=owner)
    pages = connection.pages(lambda stub: stub.ListRequests, wanted)
    statuses = [status for page in pages for status in page.requests]
    if quiet:
        for status in statuses:
            print_line(status.request.id)
        return 0
    if form is Format.JSON:
        print_json([status_dict(status) for status in statuses])
        return 0
    wide = form is Format.WIDE
    rows: list[list[Cell]] = []
    for status, shown in zip(statuses, map(status_dict, statuses), strict=True):
        forgotten = ", ".join(f"{what}@{model}" for what, model in asked(shown))
        row: list[Cell] = [shown["id"], state_text(shown["state"]), forgotten]
        times = [shown[name] for name in ("created", "updated", "deadline")]
        rows.append(
            [*row, in_words(shown["tasks"]), *times, shown["reason"]]
            if wide
            else [*row, in_words(shown["tasks"]), ago(status.created_us), shown["reason"]]
        )
    more = ["updated", "deadline"] if wide else []
    print_table(
        ["request", "state", "forget", "models", "submitted", *more, "reason"],
        rows,
        whole=("request", "state"),
        empty=f"No request affects a model of {owner}."
        if owner
        else "No requests yet. Submit one: disinherit request submit --forget CLASS@MODEL",
    )
    return 0


def _steer(
    connection: Connection,
    method: "Callable[[CoordinatorStub], Steering]",
    request_id: str,
    form: Format,
) -> int:
    show_status(connection.call(method, pb.ControlRequest(id=request_id)), form)
    return 0


app.command(epilog=WATCH_EXAMPLES)(watch)
app.command(
    "samples",
    epilog="Example: disinherit request samples --store models --model r1 ids.txt > erased.json",
)(digest)
app.command(epilog=COVERAGE_EXAMPLES.replace(" coverage", " request coverage"))(coverage)
app.command(name="report", epilog=REPORT_EXAMPLES)(report)
app.command(epilog="Example: disinherit request attest forget-0123456789ab --out attestation.json")(
    attest
)
app.command(name="export", epilog=EXPORT_EXAMPLES)(export)
