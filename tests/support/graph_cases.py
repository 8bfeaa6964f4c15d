"""Inheritance graphs that the tests of its formats share."""

from dataclasses import replace

from hypothesis import strategies as st

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.recipes import Recipe
from disinherit.common.graph.records import (
    Inheritance,
    InheritanceKind,
    ModelRecord,
    ModelStatus,
    Provenance,
)

TIES = Recipe("ties", {"weights": "1,0.5", "density": "0.5"})
KINDS = tuple(InheritanceKind)
# Anything a class may be called: all of Unicode that can be encoded, controls included.
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,7}", fullmatch=True)
digests = st.text("0123456789abcdef", max_size=8)
provenances = st.none() | st.builds(
    Provenance, names, st.dictionaries(names, st.integers(0, 2**40), max_size=3), digests
)


@st.composite
def random_graphs(draw: st.DrawFn) -> InheritanceGraph:
    records: list[ModelRecord] = []
    edges: list[Inheritance] = []
    for id in draw(st.lists(ids, unique=True, max_size=6)):
        record = ModelRecord(
            id=id,
            owner=draw(ids),
            architecture=draw(digests),
            labels=tuple(draw(st.lists(names, unique=True, max_size=4))),
            digest=draw(digests),
            created_us=draw(st.integers(0, 2**55)),
            provenance=draw(provenances),
            fisher_digest=draw(digests),
            status=draw(st.sampled_from(ModelStatus)),
        )
        older = [parent for parent in records if parent.created_us < record.created_us]
        parents = draw(st.lists(st.sampled_from(older), unique_by=id_of)) if older else []
        kinds = [draw(st.sampled_from(KINDS)) for _ in parents]
        share = 1 / max(sum(kind.merges for kind in kinds), 1)
        recipe = draw(st.sampled_from([None, Recipe.AVERAGE, TIES]))
        for place, (parent, kind) in enumerate(zip(parents, kinds, strict=True), 1):
            weight = share if kind.merges else draw(st.floats(0, 1, exclude_min=True))
            labels = draw(mappings(parent, record))
            computed = (recipe, place) if recipe else (None, 0)
            edge = Inheritance(parent.id, id, kind, weight, labels, *computed)
            source, trust = draw(st.sampled_from([("", 0.0), ("dvc", 0.9), ("edge list", 1.0)]))
            edges.append(replace(edge, source=source, confidence=trust))
        records.append(record)
    return InheritanceGraph(records, edges)


def id_of(record: ModelRecord) -> str:
    return record.id


def mappings(parent: ModelRecord, child: ModelRecord) -> st.SearchStrategy[dict[str, str]]:
    """One-to-one mappings between the names that the two do not share."""
    sources = [label for label in parent.labels if label not in child.labels]
    targets = [label for label in child.labels if label not in parent.labels]
    return st.integers(0, len(sources)).map(
        lambda count: dict(zip(sources[:count], targets, strict=False))
    )


def sample() -> InheritanceGraph:
    """Two roots, their merge, a transfer with a mapping, and a successor."""
    return InheritanceGraph(
        [
            ModelRecord("r", "ann", "arch", ("cat", "dog"), "d1", 1, Provenance("set", {"cat": 2})),
            ModelRecord("s", "bob", "arch", ("cat", "dog"), "d2", 2),
            ModelRecord("m", "bob", "arch", ("cat", "dog"), "d3", 3),
            ModelRecord("t", "cy", "arch", ('"K\\&amp;\n', "dog"), "d4", 4, None, "f0"),
            ModelRecord("t2", "cy", "arch", ('"K\\&amp;\n', "dog"), "d5", 5),
            ModelRecord("u", "cy", "arch", (), "d6", 6, status=ModelStatus.RETIRED),
        ],
        [
            Inheritance("r", "m", InheritanceKind.FEDERATED, 0.25),
            Inheritance("s", "m", InheritanceKind.FEDERATED, 0.75),
            Inheritance("m", "t", InheritanceKind.TRANSFER, 1.0, {"cat": '"K\\&amp;\n'}),
            Inheritance("t", "t2", InheritanceKind.UNLEARNED),
        ],
    )
