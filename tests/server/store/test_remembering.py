"""Results that are kept by what they were computed from."""

from collections.abc import Callable

import pytest

from disinherit.server.store import remembering
from disinherit.server.store.remembering import remembered


def counted() -> tuple[Callable[[bytes], int], list[bytes]]:
    """A function that is remembered, and what it was called with."""
    calls: list[bytes] = []

    def measure(row: bytes) -> int:
        calls.append(row)
        return len(row)

    return remembered(measure), calls


def test_a_result_of_many_rows_is_kept() -> None:
    """A graph of ten thousand versions was computed anew by each pass."""
    calls: list[int] = []

    def count(rows: tuple[bytes, ...]) -> int:
        calls.append(len(rows))
        return len(rows)

    kept = remembered(count)
    rows = [bytes(300) + str(number).encode() for number in range(20_000)]
    assert [kept(tuple(rows)), kept(tuple(rows))] == [20_000, 20_000]
    assert calls == [20_000]


def test_the_oldest_results_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that was used counts as new."""
    measure, calls = counted()
    monkeypatch.setattr(remembering, "_MOST", 3 * (remembering._EACH + 100))
    a, b, c, d = (bytes(99) + bytes([number]) for number in range(4))
    for row in (a, b, c, a, d, a, c, d):
        measure(row)
    assert calls == [a, b, c, d]
    measure(b)
    assert calls == [a, b, c, d, b]


def test_a_result_that_is_larger_than_all_room_takes_no_others_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is computed each time."""
    measure, calls = counted()
    monkeypatch.setattr(remembering, "_MOST", remembering._EACH + 100)
    small, large = b"small", bytes(101)
    for row in (small, large, large, small):
        assert measure(row) == len(row)
    assert calls == [small, large, large]


def test_names_of_arguments_count() -> None:
    """Two arguments with each other's values are another call."""

    def joined(one: str, two: str) -> str:
        return one + two

    join = remembered(joined)
    assert join(one="a", two="b") == "ab"
    assert join(one="b", two="a") == "ba"
