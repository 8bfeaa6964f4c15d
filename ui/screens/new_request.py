"""A new request in three steps, what and where and how, with its plan before it is submitted."""

from collections.abc import Mapping, Sequence
from typing import Any

from disinherit.common.durations import seconds
from disinherit.common.errors import DisinheritError, InputError
from disinherit.common.method import Method
from disinherit.common.wire.received import received_request
from disinherit.common.wire.requests import Request
from disinherit.common.wire.roll_out import RollOut, Wave
from disinherit.common.wire.samples import read_named
from disinherit.documents.words import as_time
from disinherit.ui.lineage import STATUSES
from disinherit.ui.screens.screen import Page
from disinherit.ui.sessions import VisitorSession
from disinherit.v1 import coordinator_pb2 as pb

KINDS = ("classes", "samples", "client")
_MOST_ROOTS = 1000
_OPTIONS = (
    ("reason", "--reason"),
    ("id", "--id"),
    ("deadline", "--deadline"),
    ("retention", "--retention"),
    ("min_success", "--min-success"),
    ("max_drop", "--max-drop"),
    ("max_errors", "--max-errors"),
    ("alpha", "--alpha"),
    ("lam", "--lambda"),
    ("gauge", "--gauge"),
)
"""Field of the form -> option of the command, where the form has a value."""

_CHOICES = (
    ("scope", "--scope", "head"),
    ("reference", "--reference", "retain"),
    ("merge", "--merge", "max"),
    ("mechanism", "--mechanism", "auto"),
    ("root_method", "--root-method", "auto"),
)
"""Field of the form -> option of the command, and the default, which is not said."""

FIELDS = (
    *("kind", "forget", "samples", "client", "canaries", "waves", "ignore_unknown"),
    *(name for name, _ in _OPTIONS),
    *(name for name, _, _ in _CHOICES),
)


def load(page: Page) -> Mapping[str, Any]:
    """Return an empty form; the roots of a link are filled in."""
    roots = page.query.getlist("root")
    return _values(page.session, {"kind": "classes"}, roots[:_MOST_ROOTS])


def command(page: Page) -> Sequence[str]:
    """Return the command that submits a request."""
    return ("request", "submit", "--forget", "CLASS@MODEL", "--reason", "WHY")


def answer(session: VisitorSession, form: Mapping[str, str]) -> tuple[Mapping[str, Any], str]:
    """Plan or submit what a form says.

    Args:
        session: the visitor.
        form: the fields, and `do`: `plan` or `submit`.

    Returns:
        Values of the page with the plan, or with what is wrong; and the id of the request that was
        submitted, `""` for none.
    """
    values = dict(_values(session, form, []))
    try:
        message = to_message(form)
        if form.get("do") == "submit":
            session.visitor.call(lambda stub: stub.SubmitRequest, message)
            return values, message.request.id
        values["plan"] = _plan(session, message.request)
    except DisinheritError as error:
        values["problem"] = str(error)
    else:
        values["command"] = equal_command(form)
    return values, ""


def to_message(form: Mapping[str, str]) -> pb.SubmitRequestRequest:
    """Return the message that submits what a form says.

    Raises:
        InputError: if it is no request.
    """
    kind = form.get("kind", "")
    if kind not in KINDS:
        raise InputError(f"Expected one of {', '.join(KINDS)} to forget, but got {kind[:50]!r}.")
    samples = read_named(form.get("samples", ""), "the field") if kind == "samples" else {}
    roll_out = RollOut(
        canaries=_words(form, "canaries"),
        waves=[Wave.parse(size) for size in _words(form, "waves")],
        min_success=_number(form, "min_success"),
        max_retain_drop=_number(form, "max_drop"),
        max_error_rate=_number(form, "max_errors"),
    )
    request = Request(
        forget=_classes(form) if kind == "classes" else {},
        samples=samples,
        client=form.get("client", "").strip() if kind == "client" else "",
        method=_method(form),
        id=form.get("id", "").strip(),
        reason=form.get("reason", "").strip(),
        roll_out=None if roll_out == RollOut() else roll_out,
        retention_seconds=_seconds(form, "retention"),
    ).to_proto()
    received_request(request)
    return pb.SubmitRequestRequest(request=request, deadline_seconds=_seconds(form, "deadline"))


def equal_command(form: Mapping[str, str]) -> Sequence[str]:
    """Return the command that submits the same."""
    words = ["request", "submit"]
    kind = form.get("kind")
    if kind == "classes":
        for token in _lines(form, "forget"):
            words += ["--forget", token]
    elif kind == "samples":
        words += ["--samples", "erased.json"]
    else:
        words += ["--client", form.get("client", "").strip()]
    for name, option in _OPTIONS:
        if value := form.get(name, "").strip():
            words += [option, value]
    for name, option, default in _CHOICES:
        if (value := form.get(name, default).strip()) and value != default:
            words += [option, value]
    for owner in _words(form, "canaries"):
        words += ["--canary", owner]
    for size in _words(form, "waves"):
        words += ["--wave", size]
    return words


def _values(
    session: VisitorSession, form: Mapping[str, str], roots: Sequence[str]
) -> Mapping[str, Any]:
    pages = session.visitor.pages(lambda stub: stub.ListModels, pb.ListModelsRequest())
    trained = [
        one
        for part in pages
        for one in part.models
        if STATUSES.get(one.status) == "active" and one.provenance.samples_per_class
    ]
    fields = {name: form.get(name, "") for name in FIELDS}
    fields["kind"] = fields["kind"] if fields["kind"] in KINDS else "classes"
    for name, _, default in _CHOICES:
        fields[name] = fields[name] or default
    named = [
        f"{label}@{one.id}"
        for one in trained
        if one.id in roots
        for label in sorted(one.provenance.samples_per_class)
    ]
    if named:
        fields["forget"] = "\n".join(named)
    return {
        "form": fields,
        "trained": [
            {
                "id": one.id,
                "owner": one.owner,
                "classes": sorted(one.provenance.samples_per_class),
                "summary": bool(one.fisher_digest),
            }
            for one in trained[:_MOST_ROOTS]
        ],
        "owners": sorted({one.owner for one in trained}),
        "plan": None,
        "problem": "",
    }


def _plan(session: VisitorSession, request: Any) -> dict[str, Any]:
    """Return what a submission would do."""
    message = pb.PlanRequestRequest(request=request)
    pages = list(session.visitor.pages(lambda stub: stub.PlanRequest, message))
    first = pages[0]
    summary = first.summary
    notes = [
        {"text": one.text, "warning": one.warning, "models": list(one.model_ids)}
        for one in first.details
    ] or [{"text": text, "warning": False, "models": []} for text in first.notes]
    return {
        "id": request.id,
        "models": [
            {
                "model": one.model_id,
                "owner": one.owner,
                "root": one.root,
                "state": one.state,
                "reason": one.reason,
                "recipe": one.recipe or None,
                "shares": {share.root: share.coefficient for share in one.shares},
                "online": one.owner_online,
                "last_seen": as_time(one.owner_last_seen_us),
                "missing_summary": one.missing_summary,
            }
            for part in pages
            for one in part.models
        ],
        "notes": notes,
        "owners": summary.owners,
        "owners_online": summary.owners_online,
        "bytes_from_roots": summary.bytes_from_roots,
        "bytes_to_owners": summary.bytes_to_owners,
        "missing_summaries": list(summary.missing_summaries),
    }


def _classes(form: Mapping[str, str]) -> dict[str, list[str]]:
    """Return model -> classes, from lines such as `cat@r1`."""
    named: dict[str, list[str]] = {}
    for token in _lines(form, "forget"):
        name, _, model = token.rpartition("@")
        if not name or not model:
            raise InputError(
                f"Expected a class and a model as CLASS@MODEL, such as cat@r1, but got {token!r}."
            )
        named.setdefault(model, []).append(name)
    if not named:
        raise InputError("Expected at least one class to forget, such as cat@r1, but got none.")
    return named


def _lines(form: Mapping[str, str], name: str) -> list[str]:
    return [line for one in form.get(name, "").splitlines() if (line := one.strip())]


def _words(form: Mapping[str, str], name: str) -> list[str]:
    return form.get(name, "").replace(",", " ").split()


def _number(form: Mapping[str, str], name: str) -> float | None:
    text = form.get(name, "").strip()
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"Expected a number as {name.replace('_', ' ')}, but got {text[:50]!r}."
        ) from None


def _seconds(form: Mapping[str, str], name: str) -> int:
    text = form.get(name, "").strip()
    return seconds(text) if text else 0


def _method(form: Mapping[str, str]) -> Method:
    chosen: dict[str, Any] = {
        name: form.get(name, "").strip() or default for name, _, default in _CHOICES
    }
    return Method(
        **chosen,
        alpha=_number(form, "alpha"),
        lam=_number(form, "lam"),
        gauge=_number(form, "gauge"),
    )
