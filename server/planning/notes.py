"""Notes of a plan, for who approves it: what is worth to know, and what the request may miss."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.identifiers import line_name
from disinherit.common.graph.records import ModelRecord
from disinherit.common.limits import clipped
from disinherit.server.planning.class_names import Arrivals, Followed
from disinherit.server.planning.unreached import Unreached, asked_classes
from disinherit.v1.unlearning_pb2 import UnlearningRequest

_NOTHING: Arrivals = {}
_FEW = 5
"""Maximum number of versions listed in a note."""


@dataclass(frozen=True, slots=True)
class PlanNote:
    """A sentence about a plan.

    Attributes:
        text: the sentence.
        models: the versions that it is about; empty if it is about the whole request.
        warning: whether the request may miss what it is to reach, unless somebody changes it.
    """

    text: str
    models: tuple[str, ...] = ()
    warning: bool = False


def calibration_notes(request: UnlearningRequest) -> Iterator[PlanNote]:
    """Yield the note on rounds that a federation is to run afterwards."""
    rounds = request.method.calibration_rounds
    if rounds:
        yield PlanNote(
            f"{rounds} rounds of calibration are to follow in the Flower app of the federation "
            "(`disinherit.calibrate`), which alone can run them: global models lose accuracy until "
            "then."
        )


def origin_notes(origins: Mapping[str, tuple[str, ...]]) -> Iterator[PlanNote]:
    """Yield the notes on roots that were unlearned before, given the versions that each was."""
    for root, chain in origins.items():
        yield PlanNote(
            f"{root} was unlearned from {', '.join(chain)}: models derived from those know what "
            f"{root} knows, so they are affected, too.",
            (root,),
        )


def not_reached_notes(models: Mapping[str, str]) -> Iterator[PlanNote]:
    """Yield the notes of a plan on models that it does not reach.

    Args:
        models: model -> why.
    """
    for reason, some in _by_reason(models):
        yield PlanNote(f"{', '.join(some)}: not reached, {reason}.", tuple(some), warning=True)


def unreached_notes(unreached: Unreached) -> Iterator[PlanNote]:
    """Yield the notes on versions that are not reached, or may not be."""
    yield from not_reached_notes(unreached.models)
    for reason, some in _by_reason(unreached.unsure):
        yield PlanNote(f"{', '.join(some)}: {reason}.", tuple(some), warning=True)


def holder_notes(
    holders: Iterable[ModelRecord],
    request: UnlearningRequest,
    followed: Followed,
    *,
    by_changes: bool,
) -> Iterator[PlanNote]:
    """Yield notes on versions, by training provenance, that the roots may miss."""
    asked = asked_classes(request)
    of_root = {root.model_id: set(root.classes) for root in request.roots}
    everywhere = {name for names in asked for name in names}
    inherited: dict[int, set[str]] = {}
    also: list[str] = []
    for record in holders:
        arrivals = followed.arrivals.get(record.id, _NOTHING)
        if id(arrivals) not in inherited:
            inherited[id(arrivals)] = _inherited(arrivals, asked)
        names = inherited[id(arrivals)]
        counts = record.provenance.samples_per_class if record.provenance else {}
        held = {name for name, count in counts.items() if count}
        missed = sorted((held & everywhere) - names)
        if missed:
            yield PlanNote(
                f"{record.id} was trained directly on {', '.join(missed)}, and no root that it "
                "inherits from is to forget that: this request does not reach it there. Add it as "
                "a root to include it.",
                (record.id,),
                warning=True,
            )
        if held & names - of_root.get(record.id, set()):
            also.append(record.id)
    if also:
        done = "dampened as descendants, with the Fisher information of the given roots"
        if by_changes:
            done = "changed as descendants, by the changes of the given roots"
        text = f"{', '.join(also)} also trained directly on classes to forget; they are {done}."
        yield PlanNote(text, tuple(also), warning=True)


def same_data_notes(
    graph: InheritanceGraph, request: UnlearningRequest, models: Iterable[str]
) -> Iterator[PlanNote]:
    """Yield notes on descendants that may have been trained on the samples to forget themselves.

    An owner that has the root as well looks whether they were.  Others get no ids of samples; that
    they give their data the name of the root's is all that tells.

    Args:
        graph: has the models and roots.
        request: the request.
        models: the affected models to change.
    """
    roots = [graph.model(root.model_id) for root in request.roots if root.samples]
    lines = {line_name(root.model_id) for root in request.roots}
    found: dict[tuple[str, str], list[str]] = {}
    for record in map(graph.model, models if roots else ()):
        own = record.provenance
        if line_name(record.id) in lines or own is None or not any(own.samples_per_class.values()):
            continue
        for root in roots:
            same = root.provenance is not None and root.provenance.dataset == own.dataset
            if same and root.owner != record.owner:
                found.setdefault((root.id, own.dataset), []).append(record.id)
    for (root_id, dataset), some in found.items():
        yield PlanNote(
            f"{clipped(', '.join(some))} of other owners: trained on data called {dataset!r}, as "
            f"{root_id} was. Whether samples to forget are among it, only these owners can tell, "
            "who do not get their ids: ask them, and name these models as roots if so.",
            tuple(some),
            warning=True,
        )


def parentless_notes(
    records: Iterable[ModelRecord], request: UnlearningRequest, followed: Followed
) -> Iterator[PlanNote]:
    """Yield notes on versions that may have inherited a class to forget from an unknown parent."""
    everywhere = {name for names in asked_classes(request) for name in names}
    found: dict[str, list[str]] = {}
    for record in records:
        if record.provenance is None or record.id in followed.arrivals:
            continue
        counts = record.provenance.samples_per_class
        named = sorted(x for x in everywhere.intersection(record.labels) if not counts.get(x))
        if named:
            found.setdefault(", ".join(named), []).append(record.id)
    for names, ids in found.items():
        more = f" and {len(ids) - _FEW} more" if len(ids) > _FEW else ""
        yield PlanNote(
            f"{', '.join(ids[:_FEW])}{more}: {names} among the classes, not trained on directly, "
            "and registered without a parent: if they inherited that from a root, this request "
            "does not reach it there. Register what they were derived from.",
            tuple(ids),
            warning=True,
        )


def _by_reason(models: Mapping[str, str]) -> Iterable[tuple[str, list[str]]]:
    """Return each reason with the models that have it, in their order."""
    found: dict[str, list[str]] = {}
    for model, reason in models.items():
        found.setdefault(reason, []).append(model)
    return found.items()


def _inherited(arrivals: Arrivals, asked: Mapping[frozenset[str], int]) -> set[str]:
    """Return a model's names of the classes that its roots are to forget."""
    return {
        naming.renaming[name]
        for naming, present in arrivals.items()
        for classes, some in asked.items()
        if some & present
        for name in classes
        if name in naming.renaming
    }
