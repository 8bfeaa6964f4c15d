"""What a plan says beside the affected versions: who is there, what is missing, how much it is."""

from collections.abc import Iterator

import pytest

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import (
    FisherScale,
    Inheritance,
    InheritanceKind,
    ModelRecord,
    Provenance,
)
from disinherit.server.planning.plan import plan
from disinherit.server.planning.previews import Preview, preview
from disinherit.server.states import Task
from disinherit.server.store.presence import Details
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1 import unlearning_pb2
from tests.support import campaign
from tests.support.campaign import make_request
from tests.support.service import Running, serving

LABELS = ("cat", "dog", "owl")
OWNERS = {"r": "anna", "c": "ben", "e": "ben", "f": "anna"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("plans")
    campaign.build(root)
    with serving(root) as running:
        yield running


def test_a_plan_says_which_owners_are_there(running: Running) -> None:
    attendance = running.world.store.attendance("agent")
    attendance.keep({"anna": Details(), "cleo": Details()})
    attendance.keep({"anna": Details()})
    client = running.client("operator")
    found = client.PlanRequest(pb.PlanRequestRequest(request=make_request({"r1": ["cat"]})))
    there = {
        model.owner: (model.owner_online, model.owner_last_seen_us > 0) for model in found.models
    }
    assert there == {"anna": (True, True), "ben": (False, False), "cleo": (False, True)}
    summary = found.summary
    assert (summary.owners, summary.owners_online) == (3, 1)
    assert summary.states == {"pending": len(found.models)}
    assert list(summary.missing_summaries) == []
    assert summary.bytes_to_owners >= summary.bytes_from_roots > 0
    page = pb.PlanRequestRequest(request=make_request({"r1": ["cat"]}), page_size=1)
    first = client.PlanRequest(page)
    assert first.summary == summary
    page.page_token = first.next_page_token
    assert not client.PlanRequest(page).HasField("summary")


def test_notes_that_are_warnings_come_first_and_name_what_they_are_about(running: Running) -> None:
    client = running.client("operator")
    found = client.PlanRequest(pb.PlanRequestRequest(request=make_request({"r1": ["cat"]})))
    assert sorted(note.text for note in found.details) == sorted(found.notes)
    assert [note.warning for note in found.details] == sorted(
        (note.warning for note in found.details), reverse=True
    )


def previewed(request: unlearning_pb2.UnlearningRequest, *, summary: bool = True) -> Preview:
    scale = FisherScale("all", (1.0, 1.0, 1.0), 30, 1000) if summary else None
    learned = Provenance("animals", {"cat": 5, "dog": 5})
    digest = "ab" * 32 if summary else ""
    graph = InheritanceGraph()
    for name, owner, created in (
        ("r", "anna", 1),
        ("c", "ben", 2),
        ("e", "ben", 3),
        ("f", "anna", 4),
    ):
        parents = [] if name == "r" else [Inheritance("r", name, InheritanceKind.TRANSFER, 0.5)]
        record = ModelRecord(
            name,
            owner,
            "aa",
            LABELS,
            f"{created:064x}",
            created,
            learned,
            digest,
            fisher_scale=scale,
        )
        graph.add(record, parents)
    planned = plan(graph, request)
    tasks = {model: Task(model, graph.model(model).owner) for model in planned.affected}
    return preview(graph, request, planned, tasks)


def test_what_is_sent_is_estimated_from_registered_sizes() -> None:
    """Anna and Ben each get one packet of the classes; the root answers with one for each class."""
    head = previewed(make_request({"r": ["cat", "dog"]}, scope="head"))
    assert (head.bytes_from_roots, head.bytes_to_owners) == (2 * 30 * 4, 2 * 30 * 4)
    deep = previewed(make_request({"r": ["cat"]}, scope="all"))
    assert (deep.bytes_from_roots, deep.bytes_to_owners) == (4000, 8000)
    request = make_request({"r": ["cat"]}, scope="all", mechanism="delta")
    request.method.delta_encoding = unlearning_pb2.DELTA_ENCODING_INT8
    changes = previewed(request)
    assert (changes.bytes_from_roots, changes.bytes_to_owners) == (1000, 2000)
    unknown = previewed(make_request({"r": ["cat"]}), summary=False)
    assert (unknown.bytes_from_roots, unknown.bytes_to_owners) == (0, 0)


def test_roots_without_a_summary_are_named_where_it_is_asked_for() -> None:
    assert previewed(make_request({"r": ["cat"]}), summary=False).missing_summaries == ("r",)
    assert previewed(make_request({"r": ["cat"]})).missing_summaries == ()
    request = make_request({"r": ["cat"]}, scope="all", mechanism="delta")
    assert previewed(request, summary=False).missing_summaries == ()


def test_versions_that_learned_the_class_themselves_are_a_warning() -> None:
    (note,) = previewed(make_request({"r": ["cat"]})).remarks
    assert note.warning
    assert note.models == ("c", "e", "f")
    assert note.text.startswith("c, e, f also trained directly on classes to forget")
