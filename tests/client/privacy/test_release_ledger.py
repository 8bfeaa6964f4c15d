"""Cells of releases, against all differences of all unions."""

import itertools
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disinherit.client.privacy.release_ledger import Release, ReleaseLedger, smallest_cell
from disinherit.common.errors import StoreError, WithheldError

CLASSES = ("a", "b", "c")
WORLD = {f"{name}{number}": name for name in CLASSES for number in range(4)}
"""Sample -> its class."""

SAMPLES = st.frozensets(st.sampled_from(sorted(WORLD)), min_size=1)


def of_samples(samples: frozenset[str]) -> Release:
    counts = Counter(WORLD[sample] for sample in samples)
    return Release(frozenset(), frozenset(), samples, tuple(sorted(counts.items())))


def of_classes(labels: frozenset[str], without: frozenset[str] = frozenset()) -> Release:
    counts = Counter(WORLD[s] for s in WORLD if WORLD[s] in labels and s not in without)
    return Release(labels, without, frozenset(), tuple(sorted(counts.items())))


RELEASES = st.one_of(
    SAMPLES.map(of_samples),
    st.builds(
        of_classes,
        st.frozensets(st.sampled_from(CLASSES), min_size=1),
        st.frozensets(st.sampled_from(sorted(WORLD)), max_size=3),
    ),
)


def members(release: Release) -> frozenset[str]:
    whole = {s for s in WORLD if WORLD[s] in release.labels and s not in release.without}
    return frozenset(whole | release.samples)


def classes_of(samples: frozenset[str]) -> dict[str, int]:
    return dict(Counter(WORLD[sample] for sample in samples))


@given(st.lists(RELEASES, min_size=1, max_size=4))
def test_cells_are_the_finest_groups_that_unions_and_differences_give(
    releases: list[Release],
) -> None:
    sets = [members(release) for release in releases]
    unions = {
        frozenset().union(*chosen)
        for count in range(len(sets) + 1)
        for chosen in itertools.combinations(sets, count)
    }
    apart = {left - right for left in unions for right in unions} - {frozenset()}
    together = {left & right for left in sets for right in sets} - {frozenset()}
    found = smallest_cell(releases, classes_of)
    assert found is not None
    cells = Counter(frozenset(i for i, s in enumerate(sets) if sample in s) for sample in WORLD)
    expected = [count for inside, count in cells.items() if inside]
    assert found == min(expected, default=0)
    # No set that the releases separate is smaller.
    assert all(len(group) >= found for group in apart | together)


def test_a_release_is_recorded_once_and_a_refused_one_never(tmp_path: Path) -> None:
    ledger = ReleaseLedger(tmp_path)
    seen: list[int] = []
    for _ in range(2):  # the second time without a question
        ledger.add("data", of_classes(frozenset("a")), lambda known: seen.append(len(known)))
    assert seen == [0]

    def refuse(known: object) -> None:
        raise WithheldError("no")

    with pytest.raises(WithheldError):
        ledger.add("data", of_classes(frozenset("b")), refuse)
    ledger.add("data", of_samples(frozenset({"a0"})), lambda known: seen.append(len(known)))
    ledger.add("other data", of_classes(frozenset("a")), lambda known: seen.append(len(known)))
    assert seen == [0, 1, 0]


def test_the_smallest_cell_is_none_if_it_cannot_be_known() -> None:
    two, one = of_samples(frozenset({"a0", "a1"})), of_samples(frozenset({"a0"}))
    everything = of_classes(frozenset("a"))
    assert smallest_cell([two, one, everything], lambda _: None) is None
    assert smallest_cell([two, one], lambda _: None) == 1
    # For a set released as such, the ledger has the classes, even if its samples are gone.
    assert smallest_cell([two, everything], lambda _: None) == 2


def test_additional_samples_of_a_later_version_are_a_cell() -> None:
    def of(**sizes: int) -> Release:
        return Release(frozenset(sizes), frozenset(), frozenset(), tuple(sorted(sizes.items())))

    assert smallest_cell([of(a=30), of(a=31)], classes_of) == 1
    assert smallest_cell([of(a=31), of(a=30), of(a=60)], classes_of) == 1
    assert smallest_cell([of(a=30, b=30), of(a=60, b=30)], classes_of) == 30
    assert smallest_cell([of(a=30, b=30), of(a=30, b=30, c=2)], classes_of) == 2


def test_earlier_names_of_the_same_data_count(tmp_path: Path) -> None:
    ledger, seen = ReleaseLedger(tmp_path), list[int]()
    for name in ("first", "second", "third"):
        ledger.add(name, of_classes(frozenset("a")), lambda known: seen.append(len(known)))
    ledger.add(
        "data",
        of_classes(frozenset("ab")),
        lambda known: seen.append(len(known)),
        {"first", "third"}.__contains__,
    )
    assert seen == [0, 0, 0, 2]


def test_equal_sets_have_equal_names() -> None:
    assert of_classes(frozenset("ab")).name == of_classes(frozenset("ba")).name
    assert of_classes(frozenset("a")).name != of_classes(frozenset("ab")).name
    assert of_samples(frozenset({"a0"})).name != of_classes(frozenset("a")).name


def test_a_damaged_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "releases.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match="releases.db"):
        ReleaseLedger(tmp_path).add("data", of_classes(frozenset("a")), lambda _: None)
