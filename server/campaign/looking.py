"""A request at the present graph: its plan, as a submission makes it, with nothing stored."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from disinherit.common.errors import GraphError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.text import did_you_mean
from disinherit.common.wire.requests import with_first_reason
from disinherit.server.campaign.staging import find_new_tasks, find_unapproved
from disinherit.server.planning.plan import Plan, check_plan, plan
from disinherit.server.planning.previews import Preview, preview
from disinherit.server.planning.targets import with_roots
from disinherit.server.states import Task, cleansed
from disinherit.server.store.campaigns import Driven, find_driven
from disinherit.server.store.cleared import find_cleared
from disinherit.server.store.graph import (
    find_all_ids,
    find_holders,
    find_owners,
    find_parentless,
    page_records,
    read_descendants,
)
from disinherit.server.store.known_plans import plan_again
from disinherit.server.store.request_rows import check_same, find_submitted
from disinherit.server.store.store import CoordinatorStore
from disinherit.v1 import unlearning_pb2 as pb


@dataclass(frozen=True, slots=True)
class Look:
    """A request with its plan for the present graph.

    Attributes:
        request: the request, with its roots.
        graph: the subgraph of their descendants.
        plan: the plan.
        driven: its campaign; `None` if it was not submitted.
    """

    request: pb.UnlearningRequest
    graph: InheritanceGraph
    plan: Plan
    driven: Driven | None

    @property
    def tasks(self) -> Mapping[str, Task]:
        """Model -> its task so far."""
        return {} if self.driven is None else self.driven.tasks


def look(store: CoordinatorStore, request: pb.UnlearningRequest, *, notes: bool) -> Look:
    """Plan a request for the present graph.

    Args:
        store: graph, requests and tasks.
        request: the request, submitted or not.
        notes: whether to make the plan's notes, which need every version that was trained on a
            class to forget.

    Raises:
        InputError: if the request cannot be planned, or another one has its id.
    """
    with store.reading() as db:
        stored = find_submitted(db, request.id)
        request = with_first_reason(request, stored)
        owned = functools.partial(page_records, db)
        asked = with_roots(request, owned, lambda: find_owners(db), stored)
        check_same(asked, stored)
        roots = [root.model_id for root in asked.roots]
        part = read_descendants(db, roots)
        graph = part.graph()
        unknown = next((root for root in roots if root not in graph), None)
        others = () if unknown is None else find_all_ids(db)
        driven = None if stored is None else find_driven(db, asked.id, None)
        classes = [name for root in asked.roots for name in root.classes if notes]
        holders = find_holders(db, classes) if classes else ()
        parentless = find_parentless(db, classes) if classes else ()
        cleared = find_cleared(db, graph, roots) if stored is None and not asked.client else {}
    if unknown is not None:
        raise GraphError(
            f"Expected the id of a model in the graph, but got {unknown!r}; add the model first or "
            f"correct the id.{did_you_mean(unknown, others)}"
        )
    tasks = {} if driven is None else driven.tasks
    if stored is not None and not classes:
        return Look(asked, graph, plan_again(part, asked, tasks), driven)
    planned = plan(
        graph,
        asked,
        cleansed(tasks.values()),
        holders,
        parentless,
        tasked=tasks,
        cleared=cleared,
    )
    if stored is None:
        check_plan(planned)
    return Look(asked, graph, planned, driven)


def find_tasks(store: CoordinatorStore, seen: Look) -> list[Task]:
    """Return the tasks that a submission would add or change.

    Args:
        store: graph, requests and tasks.
        seen: the request with its plan.

    Raises:
        RequestError: if a canary owns none of the models.
    """
    waiting: Mapping[str, str] = {}
    if seen.driven is not None and seen.driven.campaign.plan:
        waiting = find_unapproved(store, seen.request, seen.graph, seen.plan, seen.tasks)
    late = seen.driven is not None
    return find_new_tasks(seen.request, seen.graph, seen.plan, seen.tasks, waiting, late=late)


def find_preview(
    store: CoordinatorStore, request: pb.UnlearningRequest, *, notes: bool = True
) -> Preview:
    """Return what submitting a request would do; nothing is stored.

    Args:
        store: graph, requests and tasks.
        request: the request, submitted or not.
        notes: whether to make the plan's notes.

    Raises:
        InputError: if a submission would be refused.
    """
    seen = look(store, request, notes=notes)
    tasks = dict(seen.tasks) | {task.model_id: task for task in find_tasks(store, seen)}
    return preview(seen.graph, seen.request, seen.plan, tasks)
