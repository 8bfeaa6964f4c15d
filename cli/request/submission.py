"""`disinherit request submit`: options of a request, and the parsing of their values."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from disinherit.cli.commands import ROLL_OUT, WHAT, options_in
from disinherit.cli.connection import Connection, connected, spread
from disinherit.cli.method_options import (
    AlphaOption,
    CalibrationRoundsOption,
    DeltaEncodingOption,
    DeltaRankOption,
    EncodingOption,
    GaugeOption,
    InheritanceOption,
    LambdaOption,
    MechanismOption,
    MergeOption,
    ReferenceOption,
    RepairStepsOption,
    RescaleOption,
    RootMethodOption,
    RowScopedOption,
    ScopeOption,
)
from disinherit.cli.output import Format, FormatOption, QuietOption, print_line, warn_line
from disinherit.cli.request.next_steps import done_before
from disinherit.cli.request.status import show_status
from disinherit.cli.samples import read_all_samples
from disinherit.common.durations import seconds
from disinherit.common.encodings import Encoding
from disinherit.common.errors import InputError, RequestError
from disinherit.common.method import Method
from disinherit.common.wire.received import received_request
from disinherit.common.wire.requests import Request
from disinherit.common.wire.roll_out import RollOut, Wave
from disinherit.documents.campaign.status_values import status_dict
from disinherit.v1 import coordinator_pb2 as pb

EXAMPLES = (
    "Examples:\n\n"
    "disinherit request submit --forget cat@r1 --reason 'consent withdrawn'\n\n"
    "disinherit request submit --id 2026-17 --forget cat@r1 --forget owl@r2 --deadline 30d\n\n"
    "disinherit request submit --samples erased.json --reason 'erasure request 118'\n\n"
    "disinherit request submit --client owner-3 --scope all\n\n"
    "disinherit request submit --forget cat@r1 --canary owner-3 --wave 10% --max-drop 2"
)


_what, _roll_out = options_in(WHAT), options_in(ROLL_OUT)


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """Options that say what a request asks for; each field is described by its help."""

    forget: Annotated[
        list[str] | None,
        _what(
            "--forget",
            "-f",
            metavar="CLASS@MODEL",
            help="A class, and a model that was trained directly on it. Repeat.",
        ),
    ] = None
    samples: Annotated[
        list[Path] | None,
        _what(
            metavar="FILE",
            help="Digests of samples, from `disinherit samples digest` at their owner. Repeat.",
        ),
    ] = None
    ignore_unknown: Annotated[
        bool,
        _what(
            "--ignore-unknown",
            help="With --samples: leave out samples that a model was not trained on; the report "
            "counts them.",
        ),
    ] = False
    client: Annotated[
        str,
        _what(
            metavar="OWNER", help="Forget all training data of an owner in the models of others."
        ),
    ] = ""
    reason: Annotated[
        str, _what("--reason", "-r", metavar="TEXT", help="Why; for people to read.")
    ] = ""
    request_id: Annotated[
        str | None,
        _what("--id", help="Id of the request; by default derived from what is asked and how."),
    ] = None
    deadline: Annotated[
        str | None,
        _roll_out(
            metavar="DURATION",
            help="Give up owners that have not answered by then: 90s, 45m, 12h, 30d.",
        ),
    ] = None
    scope: ScopeOption = "head"
    reference: ReferenceOption = "retain"
    merge: MergeOption = "max"
    alpha: AlphaOption = None
    lam: LambdaOption = None
    gauge: GaugeOption = None
    row_scoped: RowScopedOption = True
    repair_steps: RepairStepsOption = None
    min_inheritance: InheritanceOption = 0.0
    rescale: RescaleOption = True
    encoding: EncodingOption = Encoding.FULL
    mechanism: MechanismOption = "auto"
    root_method: RootMethodOption = "auto"
    delta_encoding: DeltaEncodingOption = "full"
    delta_rank: DeltaRankOption = 0
    calibration_rounds: CalibrationRoundsOption = 0
    retention: Annotated[
        str | None,
        _roll_out(
            metavar="DURATION",
            help="Destroy superseded versions this long after the end, e.g. 30d. By default they "
            "are kept.",
        ),
    ] = None
    canary: Annotated[
        list[str] | None, _roll_out(metavar="OWNER", help="An owner of the first wave. Repeat.")
    ] = None
    canary_count: Annotated[
        int, _roll_out("--canaries", min=0, help="Number of owners in the first wave.")
    ] = 0
    wave: Annotated[
        list[str] | None,
        _roll_out(
            metavar="SIZE",
            help="Size of the next wave: 10% of all owners, or a number. Repeat; the rest is last.",
        ),
    ] = None
    min_success: Annotated[
        float | None,
        _roll_out(
            metavar="SHARE",
            help="Share of a wave's models to verify before the next wave; 1 by default.",
        ),
    ] = None
    max_retain_drop: Annotated[
        float | None,
        _roll_out(
            "--max-drop",
            metavar="POINTS",
            help="Halt if a model loses more than this many points of retained accuracy, or if it "
            "was not measured.",
        ),
    ] = None
    max_error_rate: Annotated[
        float | None,
        _roll_out(
            "--max-errors",
            metavar="SHARE",
            help="Halt if more than this share of a wave's models fails.",
        ),
    ] = None

    def to_message(self) -> pb.SubmitRequestRequest:
        """Return the message that submits the request.

        Raises:
            InputError: if the options are no request.
        """
        if bool(self.forget) + bool(self.samples) + bool(self.client) != 1:
            several = "several of these" if self.forget or self.samples else "none"
            raise RequestError(
                "Expected at least one class to forget, or samples, or a client, but got "
                f"{several}. Give a class and its model, e.g. --forget cat@r1."
            )
        if self.ignore_unknown and not self.samples:
            raise InputError("Expected --samples with --ignore-unknown, but got none.")
        roll_out = RollOut(
            canaries=self.canary or [],
            canary_count=self.canary_count,
            waves=[Wave.parse(size) for size in self.wave or []],
            min_success=self.min_success,
            max_retain_drop=self.max_retain_drop,
            max_error_rate=self.max_error_rate,
        )
        request = Request(
            forget=classes_by_model(self.forget or []),
            samples=read_all_samples(self.samples or [], self.ignore_unknown),
            client=self.client,
            method=self._method(),
            id=self.request_id or "",
            reason=self.reason,
            roll_out=None if roll_out == RollOut() else roll_out,
            retention_seconds=0 if self.retention is None else seconds(self.retention),
        ).to_proto()
        wait = 0 if self.deadline is None else seconds(self.deadline)
        received_request(request)  # a request that is too long is refused here
        return pb.SubmitRequestRequest(request=request, deadline_seconds=wait)

    def _method(self) -> Method:
        return Method(
            scope=self.scope,
            reference=self.reference,
            merge=self.merge,
            alpha=self.alpha,
            lam=self.lam,
            gauge=self.gauge,
            row_scoped=self.row_scoped,
            encoding=self.encoding,
            repair_steps=self.repair_steps,
            min_inheritance=self.min_inheritance,
            rescale=self.rescale,
            mechanism=self.mechanism,
            root_method=self.root_method,
            delta_encoding=self.delta_encoding,
            delta_rank=self.delta_rank,
            calibration_rounds=self.calibration_rounds,
        )


@connected
@spread(RequestOptions, "options")
def submit(
    connection: Connection,
    options: RequestOptions,
    again: Annotated[
        bool, typer.Option("--again", help="Submit it, also if it was done before.")
    ] = False,
    quiet: QuietOption = False,
    form: FormatOption = Format.TABLE,
) -> int:
    """Submit a request to forget classes, samples or a client in all models derived from them."""
    message = options.to_message()
    message.again = again
    status = connection.call(lambda stub: stub.SubmitRequest, message)
    if quiet:
        print_line(status.request.id)
    else:
        show_status(status, form)
    if before := done_before(status_dict(status), status.updated_us):
        warn_line(before)
    return 0


def classes_by_model(tokens: Sequence[str]) -> dict[str, list[str]]:
    """Return model -> classes, parsed from `CLASS@MODEL`.

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
