"""Propagation of class names: equal to the naive algorithm, and cheap for many roots."""

import time
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from disinherit.common.errors import GraphError, LabelError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord, Provenance
from disinherit.common.method import Method
from disinherit.server.planning.class_names import follow_classes
from disinherit.server.planning.plan import plan
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.naive_following import follow_naively, group_naively

NAMES = ("ant", "bee", "cow", "dog", "elk")
METHOD = Method(scope="all").to_proto()


def version(model_id: str, created_us: int, labels: tuple[str, ...]) -> ModelRecord:
    return ModelRecord(model_id, "anna", "aa", labels, "00", created_us)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[InheritanceGraph, list[str], list[str]]:
    """A graph with arbitrary valid label spaces and mappings, roots, and cleansed versions."""
    size = draw(st.integers(1, 9))
    graph = InheritanceGraph()
    cleansed = []
    for age in range(size):
        few = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)
        labels = tuple(draw(few))
        kinds = st.sampled_from([InheritanceKind.TRANSFER, InheritanceKind.UNLEARNED])
        graph.add(version(f"m{age}", age, labels), [])
        for parent in sorted(draw(st.sets(st.integers(0, age - 1), max_size=3))) if age else ():
            mapping = draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(labels)))
            kind = draw(kinds)
            try:
                graph.add_inheritance(f"m{parent}", f"m{age}", kind, labels=mapping)
            except (GraphError, LabelError):
                continue
            if (
                kind is InheritanceKind.UNLEARNED
                and f"m{age}" not in cleansed
                and draw(st.booleans())
            ):
                cleansed.append(f"m{age}")
    ids = [f"m{age}" for age in range(size)]
    roots = draw(st.lists(st.sampled_from(ids), min_size=1, unique=True))
    return graph, roots, cleansed


@settings(max_examples=400, deadline=None)
@given(graphs())
def test_names_equal_those_of_the_naive_algorithm(
    drawn: tuple[InheritanceGraph, list[str], list[str]],
) -> None:
    graph, roots, cleansed = drawn
    affected = graph.affected(roots, cleansed=cleansed)
    arrived, failed = follow_naively(graph, roots, affected, cleansed)

    followed = follow_classes(graph, roots, affected, cleansed)

    assert followed.failed == failed
    for model in affected:
        found = {
            root: {name: set(targets) for name, targets in naming.names.items()}
            for naming, some in followed.arrivals[model].items()
            for position, root in enumerate(roots)
            if some >> position & 1
        }
        assert found == arrived[model]


@settings(max_examples=200, deadline=None)
@given(graphs(), st.data())
def test_groups_equal_those_of_the_naive_algorithm(
    drawn: tuple[InheritanceGraph, list[str], list[str]], data: st.DataObject
) -> None:
    graph, roots, _ = drawn
    roots = [root for root in roots if len(graph.model(root).labels) > 1]
    # Roots that are successors are tested elsewhere.
    roots = [
        r for r in roots if all(e.kind is not InheritanceKind.UNLEARNED for e in graph.parents(r))
    ]
    if not roots:
        return
    asked = [
        pb.Root(model_id=r, classes=[data.draw(st.sampled_from(graph.model(r).labels))])
        for r in roots
    ]
    planned = plan(graph, pb.UnlearningRequest(id="q", roots=asked, method=METHOD))
    affected = graph.affected(roots)
    arrived, failed = follow_naively(graph, roots, affected)
    todo = [model for model in affected if model not in planned.exempt and model not in failed]

    assert planned.failed == failed
    # No two of these names look alike.
    reached = [
        model
        for model in todo
        if any(root.classes[0] in arrived[model].get(root.model_id, {}) for root in asked)
    ]
    assert set(planned.not_reached) == {*todo} - {*reached}
    found = [(group.roots, group.renamings, group.models) for group in planned.groups]
    assert found == group_naively(graph, roots, arrived, reached)


def federation(rounds: int, clients: int) -> InheritanceGraph:
    """Every round: the global model, an update of every client, and their average."""
    labels = tuple(map(str, range(10)))
    trained = Provenance("d", {"0": 5})
    models = [ModelRecord("g0", "server", "aa", labels, "00", 1)]
    edges = []
    for r in range(rounds):
        updates = [f"u{r}.{client}" for client in range(clients)]
        for client, update in enumerate(updates):
            age = len(models) + 1
            models.append(ModelRecord(update, f"c{client}", "aa", labels, "00", age, trained))
            edges.append(Inheritance(f"g{r}", update, InheritanceKind.INCREMENTAL))
        merged = f"g{r + 1}"
        models.append(ModelRecord(merged, "server", "aa", labels, "00", len(models) + 1))
        share = 1 / clients
        edges += [Inheritance(u, merged, InheritanceKind.FEDERATED, share) for u in updates]
    return InheritanceGraph(models, edges)


def test_a_client_of_a_thousand_rounds_is_planned_in_seconds() -> None:
    graph = federation(1000, 5)
    roots = [pb.Root(model_id=f"u{r}.0") for r in range(1000)]
    request = pb.UnlearningRequest(id="q", client="c0", roots=roots, method=METHOD)
    started = time.process_time()
    planned = plan(graph, request)
    seconds = time.process_time() - started
    tracemalloc.start()
    plan(graph, request)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert len(planned.affected) == 1 + 5 * 1000 + 1000 - 5
    assert len(planned.groups) == 1000
    assert planned.groups[-1].roots == tuple(f"u{r}.0" for r in range(1000))
    assert seconds < 5
    assert peak < 500e6


def test_a_hundred_thousand_versions_are_grouped_in_one_sweep() -> None:
    """Eight chains, of which the last two join at the end: work per ancestor would take minutes."""
    size = 100_000
    ids = [f"m{number:06}" for number in range(size)]
    labels = ("cat", "dog")
    models = [version(id, number, labels) for number, id in enumerate(ids)]
    edges = [Inheritance(ids[n - 8], ids[n], InheritanceKind.TRANSFER) for n in range(8, size)]
    models.append(version("end", size, labels))
    edges += [Inheritance(id, "end", InheritanceKind.TRANSFER) for id in ids[-2:]]
    graph = InheritanceGraph(models, edges)
    roots = [pb.Root(model_id=id, classes=["cat"]) for id in ids[:8]]
    started = time.process_time()
    planned = plan(graph, pb.UnlearningRequest(id="q", roots=roots, method=METHOD))
    assert time.process_time() - started < 10
    assert {group.roots: len(group.models) for group in planned.groups} == {
        (root,): size // 8 for root in ids[:8]
    } | {tuple(ids[6:8]): 1}
