"""Cells of releases, against all differences of all unions."""

import itertools
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disinherit.client.privacy.release_ledger import Release, Released, ReleaseLedger, TrainingSet
from disinherit.client.privacy.released_cells import smallest_cell, smallest_cell_of_all
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


IDS = {sample: f"{number:032x}" for number, sample in enumerate(sorted(WORLD))}
"""Sample -> its HMAC."""


@st.composite
def releases_of_versions(draw: st.DrawFn) -> tuple[Released, frozenset[str]]:
    """A release of a training set of any samples of the world, and the samples in it."""
    trained = draw(SAMPLES)
    some = draw(st.frozensets(st.sampled_from(sorted(trained)), max_size=3))
    labels = draw(st.frozensets(st.sampled_from(sorted({WORLD[one] for one in trained}))))
    inside = frozenset(s for s in trained - some if WORLD[s] in labels) if labels else some
    sizes = tuple(sorted(Counter(WORLD[one] for one in inside).items()))
    names = frozenset(map(IDS.__getitem__, some))
    release = Release(
        frozenset(label for label, _ in sizes) if labels else frozenset(),
        names if labels else frozenset(),
        frozenset() if labels else names,
        sizes,
    )
    data = TrainingSet.of(frozenset(map(IDS.__getitem__, trained)), "version")
    return Released(data, release), inside


@given(st.lists(releases_of_versions().filter(lambda made: bool(made[1])), min_size=1, max_size=4))
def test_cells_of_several_training_sets_are_those_of_their_samples(
    made: list[tuple[Released, frozenset[str]]],
) -> None:
    """Whatever the sets are called, and however they overlap."""
    *known, new = (one for one, _ in made)
    of = {hmac: WORLD[sample] for sample, hmac in IDS.items()}
    found = smallest_cell_of_all(
        known, new, lambda names: dict(Counter(of[name] for name in names))
    )
    cells = Counter(
        frozenset(i for i, (_, s) in enumerate(made) if sample in s) for sample in WORLD
    )
    touched = [count for inside, count in cells.items() if len(made) - 1 in inside]
    assert found is not None
    # Sets that share nothing with the new one, not even by way of others, may be left out.
    assert min(count for inside, count in cells.items() if inside) <= found <= min(touched)


def test_data_of_unknown_samples_is_not_compared_with_other_data() -> None:
    everything, part = of_classes(frozenset("ab")), of_classes(frozenset("a"))
    unknown, other = TrainingSet("first", ""), TrainingSet("second", "")
    known = TrainingSet.of(frozenset(IDS.values()), "v")
    for data in (other, known):
        new, old = Released(data, part), Released(unknown, everything)
        assert smallest_cell_of_all([old], new, classes_of) is None
        assert smallest_cell_of_all([new], old, classes_of) is None
        # Nothing that is shared, and one set alone.
        apart = Released(data, of_classes(frozenset("c")))
        assert smallest_cell_of_all([old], apart, classes_of) == 4
    assert smallest_cell_of_all([], Released(unknown, everything), classes_of) == 8
    assert (
        smallest_cell_of_all([Released(unknown, part)], Released(unknown, everything), classes_of)
        == 4
    )


def test_a_release_is_recorded_once_and_a_refused_one_never(tmp_path: Path) -> None:
    ledger = ReleaseLedger(tmp_path)
    seen: list[int] = []

    def add(name: str, release: Release) -> None:
        new = Released(TrainingSet(name, ""), release)
        ledger.add(new, lambda known, _: seen.append(len(known)))

    for _ in range(2):  # the second time without a question
        add("data", of_classes(frozenset("a")))
    assert seen == [0]

    def refuse(*_: object) -> None:
        raise WithheldError("no")

    with pytest.raises(WithheldError):
        ledger.add(Released(TrainingSet("data", ""), of_classes(frozenset("b"))), refuse)
    add("data", of_samples(frozenset({"a0"})))
    add("other data", of_classes(frozenset("a")))
    assert seen == [0, 1, 2]  # of all data


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


def test_earlier_names_of_the_same_data_are_this_data(tmp_path: Path) -> None:
    ledger, seen = ReleaseLedger(tmp_path), list[list[str]]()

    def add(name: str, release: Release, *former: str) -> None:
        ledger.add(
            Released(TrainingSet(name, ""), release),
            lambda known, _: seen.append([one.data.name for one in known]),
            former.__contains__,
        )

    for name in ("first", "second", "third"):
        add(name, of_classes(frozenset("a")))
    add("data", of_classes(frozenset("ab")), "first", "third")
    assert seen[-1] == ["data", "second", "data"]
    add("data", of_classes(frozenset("a")), "first", "third")
    assert len(seen) == 4  # a set that was released under a former name


def test_the_samples_of_a_version_are_remembered_when_its_owner_has_forgotten_them(
    tmp_path: Path,
) -> None:
    ledger, seen = ReleaseLedger(tmp_path), list[TrainingSet]()
    data = TrainingSet.of(frozenset(IDS.values()), "v")
    for one in (data, TrainingSet("points", "v"), TrainingSet("points", "w")):
        ledger.add(
            Released(one, of_classes(frozenset("abc"[len(seen)]))),
            lambda _, new: seen.append(new.data),
        )
    assert seen == [data, data, TrainingSet("points", "w")]


def test_equal_sets_have_equal_names() -> None:
    assert of_classes(frozenset("ab")).name == of_classes(frozenset("ba")).name
    assert of_classes(frozenset("a")).name != of_classes(frozenset("ab")).name
    assert of_samples(frozenset({"a0"})).name != of_classes(frozenset("a")).name


def test_a_damaged_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "releases.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match="releases.db"):
        ReleaseLedger(tmp_path).add(
            Released(TrainingSet("data", ""), of_classes(frozenset("a"))), lambda *_: None
        )
