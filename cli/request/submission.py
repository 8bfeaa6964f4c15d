"""`disinherit request submit`: the options of a request, and their values as people type them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from disinherit.cli.connection import Connection, connected
from disinherit.cli.output import Format, FormatOption
from disinherit.cli.request.status import show_status
from disinherit.cli.samples import read_all_samples
from disinherit.common.errors import InputError, RequestError
from disinherit.common.method import Method
from disinherit.common.wire.received import received_request
from disinherit.common.wire.requests import Request, RollOut, Wave
from disinherit.v1 import coordinator_pb2 as pb

if TYPE_CHECKING:
    from disinherit.common.method import MergeRule, Reference

EXAMPLES = (
    "Examples:\n\n"
    "disinherit request submit --forget cat@r1 --reason 'consent withdrawn'\n\n"
    "disinherit request submit --id 2026-17 --forget cat@r1 --forget owl@r2 --deadline 30d\n\n"
    "disinherit request submit --samples erased.json --reason 'erasure request 118'\n\n"
    "disinherit request submit --client owner-3 --scope all\n\n"
    "disinherit request submit --forget cat@r1 --canary owner-3 --wave 10% --max-drop 2"
)

_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


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
    show_status(connection.call(lambda stub: stub.SubmitRequest, message), form)
    return 0


def classes_by_model(tokens: Sequence[str]) -> dict[str, list[str]]:
    """Return model -> classes, of `CLASS@MODEL` each.

    Raises:
        RequestError: if a class or a model is missing.

    Example:
        >>> classes_by_model(["cat@r1", "dog@r1"])
        {'r1': ['cat', 'dog']}
    """
    named: dict[str, list[str]] = {}
    for token in tokens:
        name, _, model = token.rpartition("@")
        if not name or not model:
            raise RequestError(
                f"Expected a class and a model as CLASS@MODEL, such as cat@r1, but got {token!r}."
            )
        named.setdefault(model, []).append(name)
    return named


def seconds(duration: str) -> int:
    """Return a duration in seconds.

    Raises:
        InputError: if it is none.

    Example:
        >>> seconds("12h")
        43200
    """
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise InputError(f"Expected a duration such as 90s, 45m, 12h or 30d, but got {duration!r}.")
    return int(match[1]) * _SECONDS[match[2]]
