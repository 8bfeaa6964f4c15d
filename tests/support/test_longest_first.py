"""The modules that are said to take longest are there, and begin."""

from tests import ROOT
from tests.support.longest_first import LONGEST, place


def test_each_is_a_module() -> None:
    assert [name for name in LONGEST if not (ROOT / name).is_file()] == []


def test_they_begin_and_all_others_stay_in_order() -> None:
    first, second = LONGEST[:2]
    names = ["a.py::b", f"{second}::test", "tests/c.py::test", f"{first}::one", f"{first}::two"]
    assert sorted(names, key=place) == [names[3], names[4], names[1], names[0], names[2]]
