"""Results that are kept by what they were computed from."""

from disinherit.server.store import remembering
from disinherit.server.store.remembering import remembered


def test_a_result_of_many_rows_is_kept() -> None:
    """A graph of ten thousand versions was computed anew by each pass."""
    calls = []
    count = remembered(lambda rows: calls.append(1) or len(rows))
    rows = tuple(bytes(300) + str(number).encode() for number in range(20_000))
    assert [count(rows), count(tuple(rows))] == [20_000, 20_000]
    assert len(calls) == 1


def test_the_oldest_results_go_first(monkeypatch) -> None:
    """A result that was used counts as new."""
    calls = []
    measure = remembered(lambda row: calls.append(row) or len(row))
    monkeypatch.setattr(remembering, "_MOST", 3 * (remembering._EACH + 100))
    a, b, c, d = (bytes(99) + bytes([number]) for number in range(4))
    for row in (a, b, c, a, d, a, c, d):
        measure(row)
    assert calls == [a, b, c, d]
    measure(b)
    assert calls == [a, b, c, d, b]


def test_a_result_that_is_larger_than_all_room_takes_no_others_place(monkeypatch) -> None:
    """It is computed each time."""
    calls = []
    measure = remembered(lambda row: calls.append(row) or len(row))
    monkeypatch.setattr(remembering, "_MOST", remembering._EACH + 100)
    small, large = b"small", bytes(101)
    for row in (small, large, large, small):
        assert measure(row) == len(row)
    assert calls == [small, large, large]


def test_names_of_arguments_count() -> None:
    """Two arguments with each other's values are another call."""
    join = remembered(lambda **parts: parts["one"] + parts["two"])
    assert join(one="a", two="b") == "ab"
    assert join(one="b", two="a") == "ba"
