"""`disinherit model show` and `lineage`: one model, and what it came from and became."""

from disinherit.cli.connection import Connection, connected
from disinherit.cli.graph_tree import check_model, print_tree
from disinherit.cli.ids import ModelId
from disinherit.cli.lineages import describe
from disinherit.cli.output import Format, FormatOption, as_time, print_json, print_line
from disinherit.cli.tables import moment, print_facts
from disinherit.common.graph.lineages import Lineage, children_of, first_versions, fold_versions
from disinherit.documents.campaign.gathering import gather_graph

SHOW_EXAMPLES = "Example: disinherit model show r1"
LINEAGE_EXAMPLES = "Example: disinherit model lineage r4"


@connected
def show(connection: Connection, model_id: ModelId, form: FormatOption = Format.TABLE) -> int:
    """Print a model: its versions, parents, children, classes and data."""
    graph = gather_graph(connection)
    models = fold_versions(graph)
    model = _find(models, model_id)
    below = children_of(models)[model.id]
    record = model.current
    data = model.versions[0].provenance
    parents = [f"{edge.parent} ({edge.kind.value}, {edge.weight:g})" for edge in model.parents]
    if form is Format.JSON:
        print_json(
            {
                "id": model.id,
                "owner": model.owner,
                "current": record.id,
                "versions": [
                    {
                        "id": one.id,
                        "status": one.status.value,
                        "created": as_time(one.created_us),
                        "digest": one.digest,
                    }
                    for one in model.versions
                ],
                "parents": {edge.parent: edge.weight for edge in model.parents},
                "children": below,
                "labels": list(record.labels),
                "dataset": data and data.dataset,
                "samples": data and dict(data.samples_per_class),
                "fisher_digest": record.fisher_digest or None,
            }
        )
        return 0
    counts = (
        "" if data is None else ", ".join(f"{k} {n}" for k, n in data.samples_per_class.items())
    )
    print_facts(
        [
            ("model", model.id),
            ("owner", model.owner),
            ("status", describe(model)),
            ("current", record.id if record.id != model.id else ""),
            ("created", moment(record.created_us)),
            ("derived from", ", ".join(parents) or "nothing: it is a root"),
            ("children", ", ".join(below) or "none"),
            ("classes", ", ".join(record.labels)),
            ("trained on", "" if data is None else f"{data.dataset}: {counts}"),
            ("Fisher", record.fisher_digest or "no summary"),
            ("digest", record.digest),
            *(
                ("version", f"{one.id}, {one.status.value}")
                for one in (model.versions if model.versions[1:] else ())
            ),
        ]
    )
    return 0


@connected
def lineage(connection: Connection, model_id: ModelId, form: FormatOption = Format.TABLE) -> int:
    """Print what a model came from, and the tree of what was derived from it."""
    graph = gather_graph(connection)
    models = fold_versions(graph)
    model = _find(models, model_id)
    ancestors = _ancestors(models, first_versions(models), model.id)
    below = children_of(models)
    if form is Format.JSON:
        reached, waiting = [], list(below[model.id])
        while waiting:
            one = waiting.pop(0)
            if one not in reached:
                reached.append(one)
                waiting += below[one]
        print_json({"id": model.id, "ancestors": ancestors, "descendants": reached})
        return 0
    for id in ancestors:
        print_line(f"{id} ({models[id].owner})")
    if ancestors:
        print_line("↓")
    print_tree(models, below, [model.id])
    return 0


def _find(models: dict[str, Lineage], model_id: str) -> Lineage:
    """Return the model of a version.

    Raises:
        GraphError: if there is none.
    """
    id = first_versions(models).get(model_id, model_id)
    check_model(models, id)
    return models[id]


def _ancestors(models: dict[str, Lineage], first: dict[str, str], id: str) -> list[str]:
    """Return all that a model was derived from, the oldest first."""
    found: set[str] = set()
    waiting = [id]
    while waiting:
        for edge in models[waiting.pop()].parents:
            parent = first[edge.parent]
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return [one for one in models if one in found]
