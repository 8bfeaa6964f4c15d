"""`disinherit request`: ask the coordinator to forget, approve it, and follow it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Table

from disinherit.cli.asking import classes_by_model, seconds
from disinherit.cli.connection import Connection, connected
from disinherit.cli.output import (
    Format,
    FormatOption,
    print_json,
    print_json_line,
    print_line,
    print_rich,
)
from disinherit.cli.plans import by_owner, changed_method, roll_out_words, some
from disinherit.cli.request_report import EXAMPLES, report
from disinherit.cli.sample_files import read_all_samples
from disinherit.cli.statuses import exit_code, in_words, status_dict
from disinherit.common.errors import InputError, RequestError
from disinherit.common.method import Method
from disinherit.common.wire.received import received_request
from disinherit.common.wire.requests import Request, RollOut, Wave
from disinherit.v1 import coordinator_pb2 as pb

if TYPE_CHECKING:
    from grpc import UnaryUnaryMultiCallable

    from disinherit.common.method import MergeRule, Reference
    from disinherit.v1.coordinator_pb2_grpc import CoordinatorStub

    Steering = UnaryUnaryMultiCallable[pb.ControlRequest, pb.RequestStatus]

app = typer.Typer(
    help="Ask the coordinator to forget, and follow it.",
    no_args_is_help=True,
    suggest_commands=False,
)

RequestId = Annotated[str, typer.Argument(metavar="REQUEST", help="Id of the request.")]


@app.command(
    epilog="Examples:\n\n"
    "disinherit request submit --forget cat@r1 --reason 'consent withdrawn'\n\n"
    "disinherit request submit --id 2026-17 --forget cat@r1 --forget owl@r2 --deadline 30d\n\n"
    "disinherit request submit --samples erased.json --reason 'erasure request 118'\n\n"
    "disinherit request submit --client owner-3 --scope all\n\n"
    "disinherit request submit --forget cat@r1 --canary owner-3 --wave 10% --max-drop 2"
)
@connected
def submit(
    connection: Connection,
    forget: Annotated[
        list[str] | None,
        typer.Option(help="CLASS@MODEL: a class, and a model trained directly on it. Repeat."),
    ] = None,
    samples: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Samples, as `disinherit samples digest` named them at their owner. Repeat.",
        ),
    ] = None,
    ignore_unknown: Annotated[
        bool,
        typer.Option(
            "--ignore-unknown",
            help="With --samples: go on with those that are a model's, if some are not; the report "
            "counts the others.",
        ),
    ] = False,
    client: Annotated[
        str, typer.Option(help="An owner: forget all that it trained models on, everywhere else.")
    ] = "",
    reason: Annotated[str, typer.Option(help="For people to read.")] = "",
    request_id: Annotated[
        str | None,
        typer.Option(
            "--id", help="By default made from what is asked: the same again is the same request."
        ),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(help="When to give up owners that stay away: 90s, 45m, 12h, 30d."),
    ] = None,
    scope: Annotated[
        str, typer.Option(help="head, all, or parameter-name globs separated by commas.")
    ] = "head",
    reference: Annotated[
        str, typer.Option(help="Fisher to compare with: retain, or all (the paper's).")
    ] = "retain",
    merge: Annotated[str, typer.Option(help="MFIM rule: max (the paper's), mean, sum.")] = "max",
    alpha: Annotated[
        float | None, typer.Option(help="Selection threshold; tuned by each owner by default.")
    ] = None,
    lam: Annotated[
        float | None,
        typer.Option("--lambda", help="Dampening constant; tuned by each owner by default."),
    ] = None,
    gauge: Annotated[
        float | None, typer.Option(help="Gauge strength; tuned by each owner by default.")
    ] = None,
    row_scoped: Annotated[
        bool, typer.Option(help="Select in the head only in the forgotten classes' rows.")
    ] = True,
    repair_steps: Annotated[
        int,
        typer.Option(
            min=0, help="Steps of training on retained data after dampening, within the scope."
        ),
    ] = 0,
    min_inheritance: Annotated[
        float,
        typer.Option(
            "--inheritance", help="Leave models alone whose own Fisher is less like the roots'."
        ),
    ] = 0.0,
    rescale: Annotated[
        bool, typer.Option(help="Compare a model's Fisher with the roots' whatever their scale.")
    ] = True,
    encoding: Annotated[
        str,
        typer.Option(help="How Fisher information travels: full, bfloat16, or log8 (a byte each)."),
    ] = "full",
    retention: Annotated[
        str | None,
        typer.Option(
            help="How long owners keep old versions once it has ended: 12h, 30d; else for good."
        ),
    ] = None,
    canary: Annotated[
        list[str] | None,
        typer.Option(help="An owner that goes first. Repeat."),
    ] = None,
    canary_count: Annotated[
        int,
        typer.Option("--canaries", min=0, help="How many owners go first, in the place of names."),
    ] = 0,
    wave: Annotated[
        list[str] | None,
        typer.Option(help="Owners that follow: 10% of all, or a number. Repeat; the rest is last."),
    ] = None,
    min_success: Annotated[
        float | None,
        typer.Option(help="Share of a wave's models to be verified before the next; 1 by default."),
    ] = None,
    max_retain_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            help="Halt if a model loses more points of accuracy on what is kept, or nobody knows.",
        ),
    ] = None,
    max_error_rate: Annotated[
        float | None,
        typer.Option("--max-errors", help="Halt if a larger share of a wave's models fails."),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Submit a request to forget classes, samples or a client in all models derived from them."""
    if bool(forget) + bool(samples) + bool(client) != 1:
        raise RequestError(
            "Expected at least one class to forget, or samples or a client in its place, but got "
            f"{'several of these' if forget or samples else 'none'}. Say which and where it was "
            "learned, e.g. --forget cat@r1."
        )
    if ignore_unknown and not samples:
        raise InputError("Expected --samples with --ignore-unknown, but got none.")
    roll_out = RollOut(
        canaries=canary or [],
        canary_count=canary_count,
        waves=[Wave.parse(size) for size in wave or []],
        min_success=min_success,
        max_retain_drop=max_retain_drop,
        max_error_rate=max_error_rate,
    )
    request = Request(
        forget=classes_by_model(forget or []),
        samples=read_all_samples(samples or [], ignore_unknown),
        client=client,
        method=Method(
            scope=scope,
            reference=cast("Reference", reference),
            merge=cast("MergeRule", merge),
            alpha=alpha,
            lam=lam,
            gauge=gauge,
            row_scoped=row_scoped,
            encoding=encoding,
            repair_steps=repair_steps,
            min_inheritance=min_inheritance,
            rescale=rescale,
        ),
        id=request_id or "",
        reason=reason,
        roll_out=None if roll_out == RollOut() else roll_out,
        retention_seconds=0 if retention is None else seconds(retention),
    ).to_proto()
    wait = 0 if deadline is None else seconds(deadline)
    received_request(request)  # refused here rather than by its length on the way
    message = pb.SubmitRequestRequest(request=request, deadline_seconds=wait)
    _show(connection.call(lambda stub: stub.SubmitRequest, message), form)
    return 0


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
            help="The plan that `request show` showed: refused if it is another now. By default "
            "what was submitted, without what others than its owner said to descend from it since.",
        ),
    ] = "",
    form: FormatOption = Format.TABLE,
) -> int:
    """Let a submitted request begin. It takes another token than submitting it did."""
    message = pb.ControlRequest(id=request_id, plan_sha256=plan)
    _show(connection.call(lambda stub: stub.ApproveRequest, message), form)
    return 0


@app.command(epilog="Example: disinherit request pause forget-0123456789ab")
@connected
def pause(connection: Connection, request_id: RequestId, form: FormatOption = Format.TABLE) -> int:
    """Send nothing more for a request, for now. What was applied stays applied."""
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
    """Go on with a request that is paused or halted, or that gave up some owners."""
    wait = None if deadline is None else seconds(deadline)
    message = pb.ResumeRequestRequest(id=request_id, deadline_seconds=wait)
    _show(connection.call(lambda stub: stub.ResumeRequest, message), form)
    return 0


@app.command(epilog="Example: disinherit request resend forget-0123456789ab")
@connected
def resend(connection: Connection, request_id: RequestId, form: FormatOption = Format.TABLE) -> int:
    """Ask owners again, also those that answered: one that lost what it made makes it again."""
    return _steer(connection, lambda stub: stub.ResendRequest, request_id, form)


@app.command(epilog="Example: disinherit request abort forget-0123456789ab")
@connected
def abort(connection: Connection, request_id: RequestId, form: FormatOption = Format.TABLE) -> int:
    """End a request as it stands. What was applied stays applied."""
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
    reason: Annotated[str, typer.Option(help="For people to read.")],
    model: Annotated[
        list[str] | None, typer.Option(help="Only this affected model. Repeat.")
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """End a request and put back the models that it changed. They remember again."""
    message = pb.RollBackRequestRequest(id=request_id, reason=reason, model_ids=model or [])
    _show(connection.call(lambda stub: stub.RollBackRequest, message), form)
    return 0


@app.command(epilog="Example: disinherit request show forget-0123456789ab --format json")
@connected
def show(connection: Connection, request_id: RequestId, form: FormatOption = Format.TABLE) -> int:
    """Say how a request stands, and all that an approver should know of it.

    The exit code is 1 if it has ended and is not complete or rolled back.
    """
    status = connection.call(lambda stub: stub.GetRequest, pb.GetRequestRequest(id=request_id))
    whole = pb.GetCoverageRequest(id=request_id)
    pages = connection.pages(lambda stub: stub.GetCoverage, whole)
    _show(status, form, by_owner([one for page in pages for one in page.models]))
    return exit_code(status_dict(status)["state"])


@app.command("list", epilog="Example: disinherit request list")
@connected
def list_requests(connection: Connection, form: FormatOption = Format.TABLE) -> int:
    """List all requests, the oldest first."""
    statuses = [
        status_dict(status)
        for page in connection.pages(lambda stub: stub.ListRequests, pb.ListRequestsRequest())
        for status in page.requests
    ]
    if form is Format.JSON:
        print_json(statuses)
        return 0
    table = Table("request", "state", "models", "submitted", "reason", box=None)
    for status in statuses:
        table.add_row(
            status["id"],
            status["state"],
            in_words(status["tasks"]),
            status["created"],
            status["reason"],
        )
    print_rich(table)
    return 0


@app.command(epilog="Example: disinherit request watch forget-0123456789ab")
@connected
def watch(connection: Connection, request_id: RequestId, form: FormatOption = Format.TABLE) -> int:
    """Follow a request until it has ended: 0 if it is complete or rolled back, else 1.

    As JSON, one object on a line for every change.
    """
    last: dict[str, Any] = {}
    for status in connection.stream(
        lambda stub: stub.WatchRequest, pb.GetRequestRequest(id=request_id)
    ):
        last = status_dict(status)
        if form is Format.JSON:
            print_json_line(last)
        else:
            why = f" ({last['halted']})" if last["state"] == "halted" else ""
            print_line(f"{last['state']}{why}: {in_words(last['tasks'])}")
    return 0 if last.get("state") in ("complete", "rolled_back") else 1


def _steer(
    connection: Connection,
    method: "Callable[[CoordinatorStub], Steering]",
    request_id: str,
    form: Format,
) -> int:
    _show(connection.call(method, pb.ControlRequest(id=request_id)), form)
    return 0


def _show(
    status: pb.RequestStatus,
    form: Format,
    owners: Mapping[str, Sequence[str]] | None = None,
) -> None:

    shown = status_dict(status)
    if owners is not None:
        shown["owners"] = {owner: list(models) for owner, models in sorted(owners.items())}
    if form is Format.JSON:
        print_json(shown)
        return
    table = Table(box=None, show_header=False)
    for name in ("id", "state"):
        table.add_row(name, shown[name])
    table.add_row("models", in_words(shown["tasks"]))
    for root in shown["roots"]:
        what = ", ".join(root["classes"]) or (
            f"{root['sample_count']} samples"
            if root["sample_count"]
            else f"all of {shown['client']}"
        )
        table.add_row("forget", f"{what} at {root['model']}")
    if shown["waves"]["of"] > 1:
        table.add_row("waves", "{begun} of {of} have begun".format(**shown["waves"]))
    for owner, models in shown.get("owners", {}).items():
        table.add_row("owner", f"{owner}: {some(models)}")
    table.add_row("method", ", ".join(changed_method(shown["method"])) or "as by default")
    if words := roll_out_words(shown["roll_out"]):
        table.add_row("roll-out", "; ".join(words))
    kept = shown["retention_seconds"]
    table.add_row("old versions", f"destroyed {kept} s after the end" if kept else "kept")
    if shown["halted"]:
        table.add_row("halted", shown["halted"])
    for name in ("reason", "created", "updated", "deadline"):
        table.add_row(name, shown[name] or "none")
    for name, what in (("plan_sha256", "plan"), ("approved_plan_sha256", "approved plan")):
        if shown[name]:
            table.add_row(what, shown[name])
    print_rich(table)


app.command(name="report", epilog=EXAMPLES)(report)
