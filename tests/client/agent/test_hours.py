"""Hours of participation, by the coordinator's clock alone."""

import datetime
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disinherit.client.agent.hours import CoordinatorClock, Hours, parse_hours

DAY = 24 * 60
MINUTES = st.integers(0, DAY - 1)


@given(MINUTES, MINUTES, MINUTES)
def test_waits_match_a_count_by_minutes(start: int, end: int, now: int) -> None:
    if start == end:
        end = (end + 1) % DAY
    length = (end - start) % DAY
    open_minutes = {(start + passed) % DAY for passed in range(length)}
    wait = next(k for k in range(DAY) if (now + k) % DAY in open_minutes)
    left = next(k for k in range(1, DAY + 1) if (now + k) % DAY == end)
    window = Hours(start * 60.0, end * 60.0)
    assert window.until_open(now * 60.0) == wait * 60.0
    assert window.until_closed(now * 60.0) == left * 60.0


def test_hours_are_parsed() -> None:
    assert parse_hours("06:05-23:59") == Hours(6 * 3600 + 300.0, 23 * 3600 + 59 * 60.0)


def test_the_coordinators_time_continues_without_the_devices_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = CoordinatorClock()
    assert clock.second_of_day() is None
    noon = datetime.datetime(2026, 3, 1, 12, 0).astimezone()
    passed = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: passed[0])
    monkeypatch.setattr(time, "time", lambda: 0.0)  # 1970
    clock.set(int(noon.timestamp() * 1e6))
    assert clock.second_of_day() == 12 * 3600
    passed[0] = 90.0
    assert clock.second_of_day() == 12 * 3600 + 90
