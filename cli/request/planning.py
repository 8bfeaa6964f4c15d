"""`disinherit request plan`: what a submission would do, with nothing stored."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from disinherit.cli.connection import Connection, connected, spread
from disinherit.cli.output import Format, FormatOption, print_json, print_line
from disinherit.cli.request.submission import RequestOptions
from disinherit.cli.tables import print_table, state_text
from disinherit.common.errors import InputError
from disinherit.documents.campaign.status_values import method_dict
from disinherit.documents.words import size
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1 import unlearning_pb2

EXAMPLES = (
    "Examples:\n\n"
    "disinherit request plan --forget cat@r1\n\n"
    "disinherit request plan --samples erased.json --format json\n\n"
    "disinherit request plan --client owner-3 --store coordinator.db"
)

_REACHED = ("pending", "sent", "applied", "verified", "exempt")


@connected
@spread(RequestOptions, "options")
def plan(
    connection: Connection,
    options: RequestOptions,
    store: Annotated[
        Path | None,
        typer.Option(
            help="The coordinator's database or its folder, on its machine; instead of --server."
        ),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Print what `request submit` would do with the same options; nothing is stored.

    Exit code 0 if every affected version would change or is exempt, else 1.
    """
    request = options.to_message().request
    if store is None:
        message = pb.PlanRequestRequest(request=request)
        pages = list(connection.pages(lambda stub: stub.PlanRequest, message))
        models = [model for page in pages for model in page.models]
        notes = [note for page in pages for note in page.notes]
        said = describe_summary(pages[0].summary)
        details = [one for page in pages for one in page.details if one.warning]
        warned = {one.text for one in details}
        concerned = {model for one in details for model in one.model_ids}
        more = _more_roots(connection, request, concerned)
    else:
        models, notes = _of_store(store, request)
        said, warned, more = [], set(), []
    if form is Format.JSON:
        method = method_dict(request.method)
        rows = [_model_dict(model) for model in models]
        print_json({"id": request.id, "method": method, "models": rows, "notes": notes})
    else:
        marks = (("warning" if note in warned else "note", note) for note in notes)
        said += [f"{mark}: {note}" for mark, note in marks]
        if more:
            said.append(f"to name them as roots, too: {' '.join(more)}")
        _print(models, said)
    return 0 if all(model.state in _REACHED for model in models) else 1


def _more_roots(
    connection: Connection, request: unlearning_pb2.UnlearningRequest, concerned: set[str]
) -> list[str]:
    """Return the options that name models of a warning as roots, where they say what they know."""
    wanted = {name for root in request.roots for name in root.classes}
    if not wanted or not concerned:
        return []
    pages = connection.pages(lambda stub: stub.ListModels, pb.ListModelsRequest())
    return [
        f"--forget {shlex.quote(f'{name}@{record.id}')}"
        for page in pages
        for record in page.models
        if record.id in concerned
        for name in sorted(wanted & set(record.provenance.samples_per_class))
    ]


def _of_store(
    store: Path, request: unlearning_pb2.UnlearningRequest
) -> tuple[list[pb.PlannedModel], list[str]]:
    # Imported here: the service needs none of it, and help stays fast.
    from disinherit.server.campaign.looking import find_preview
    from disinherit.server.service.packing import planned_to_proto
    from disinherit.server.store.presence import find_presence
    from disinherit.server.store.store import CoordinatorStore

    path = store / "coordinator.db" if store.is_dir() else store
    if not path.is_file():
        raise InputError(f"Expected a coordinator's database as --store, but {path} is no file.")
    database = CoordinatorStore(path)
    try:
        found = find_preview(database, request)
        with database.reading() as db:
            present = find_presence(db, {model.owner for model in found.models})
    finally:
        database.close()
    models = [planned_to_proto(one, present.get(one.owner), found) for one in found.models]
    return models, list(found.notes)


def _model_dict(model: pb.PlannedModel) -> dict[str, Any]:
    return {
        "model": model.model_id,
        "owner": model.owner,
        "role": _role(model),
        "state": model.state,
        "reason": model.reason,
        "recipe": model.recipe or None,
        "shares": {share.root: share.coefficient for share in model.shares},
    }


def _print(models: Sequence[pb.PlannedModel], lines: Sequence[str]) -> None:
    print_table(
        ("model", "state", "owner", "role", "change", "reason"),
        [
            [
                *(model.model_id, state_text(model.state), model.owner, _role(model)),
                *(_change(model), model.reason),
            ]
            for model in models
        ],
        whole=("model", "state"),
    )
    for line in lines:
        print_line(line)


def describe_summary(summary: pb.PlanSummary) -> list[str]:
    """Return what a plan comes to as lines; none of a coordinator that does not say.

    Example:
        >>> describe_summary(
        ...     pb.PlanSummary(owners=3, owners_online=2, bytes_to_owners=2_000_000)
        ... )
        ['owners: 2 of 3 online', 'about 2.0 MB to all owners']
    """
    lines = []
    if summary.owners:
        lines.append(f"owners: {summary.owners_online} of {summary.owners} online")
    for travels, whose in (
        (summary.bytes_from_roots, "from the owners of roots"),
        (summary.bytes_to_owners, "to all owners"),
    ):
        if travels:
            lines.append(f"about {size(travels)} {whose}")
    if summary.missing_summaries:
        roots = ", ".join(summary.missing_summaries)
        lines.append(f"no summary is registered, so its owner needs the training data: {roots}")
    return lines


def _role(model: pb.PlannedModel) -> str:
    return "root" if model.root else "descendant"


def _change(model: pb.PlannedModel) -> str:
    """Return how a version would change, as text; empty where it inherits Fisher information."""
    if model.recipe:
        return f"rebuilt: {model.recipe}"
    return ", ".join(
        f"{share.coefficient:g} of {share.root}"
        for share in model.shares
        if share.root != model.model_id
    )
