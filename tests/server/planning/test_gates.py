"""Gates of a roll-out: properties, and each threshold separately."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disinherit.common.wire.roll_out import RollOut
from disinherit.server.planning.gates import judge, retain_drop
from disinherit.server.states import Task, TaskState
from disinherit.v1.unlearning_pb2 import ModelResult

S = TaskState
DONE = (S.APPLIED, S.VERIFIED)
ACCURACY = st.none() | st.floats(0, 1)
SHARE = st.none() | st.floats(0.01, 1)


def make_result(before: float | None, after: float | None) -> ModelResult:
    return ModelResult(retain_before=before, retain_after=after)


def make_task(wave: int, state: TaskState, drop: float | None = 0.0, name: str = "m") -> Task:
    """A task; a done one lost `drop` points, or an unknown number."""
    measured = (None, None) if drop is None else (0.9, 0.9 - drop / 100)
    result = make_result(*measured) if state in DONE else None
    return Task(name, "anna", state, result=result, wave=wave)


@st.composite
def campaigns(draw: st.DrawFn) -> tuple[RollOut, list[Task], int, int]:
    states = st.sampled_from([S.PENDING, S.SENT, S.APPLIED, S.VERIFIED, S.FAILED])
    tasks = []
    for number in range(draw(st.integers(0, 12))):
        state = draw(states)
        result = make_result(draw(ACCURACY), draw(ACCURACY)) if state in DONE else None
        tasks.append(Task(f"m{number}", "anna", state, result=result, wave=draw(st.integers(0, 3))))
    roll_out = RollOut(
        min_success=draw(SHARE),
        max_retain_drop=draw(st.none() | st.floats(0, 100)),
        max_error_rate=draw(st.none() | st.floats(0, 1)),
    )
    opened = draw(st.integers(1, 4))
    return roll_out, tasks, opened, draw(st.integers(0, opened))


def passed(roll_out: RollOut, wave: list[Task]) -> bool:
    share = 1.0 if roll_out.min_success is None else roll_out.min_success
    return sum(task.state is S.VERIFIED for task in wave) >= share * len(wave) - 1e-9


@given(campaigns())
def test_no_wave_begins_before_all_earlier_ones_have_passed(
    case: tuple[RollOut, list[Task], int, int],
) -> None:
    roll_out, tasks, opened, accepted = case
    verdict = judge(roll_out, tasks, opened, accepted)
    assert verdict.open_waves >= opened
    for number in range(opened, verdict.open_waves):
        for before in range(accepted, number):
            assert passed(roll_out, [task for task in tasks if task.wave == before])


@given(campaigns())
def test_no_wave_begins_after_an_exceeded_or_unmeasured_threshold(
    case: tuple[RollOut, list[Task], int, int],
) -> None:
    roll_out, tasks, opened, accepted = case
    verdict = judge(roll_out, tasks, opened, accepted)
    begun = [task for task in tasks if accepted <= task.wave < opened]
    lost = [retain_drop(task.result) for task in begun if task.result is not None]
    limit = roll_out.max_retain_drop
    too_much = (
        limit is not None
        and limit < 100  # points: any drop is allowed
        and any(drop is None or drop > limit + 1e-9 for drop in lost)
    )
    waves = [[task for task in begun if task.wave == number] for number in range(4)]
    too_many = roll_out.max_error_rate is not None and any(
        sum(task.state is S.FAILED for task in wave) > roll_out.max_error_rate * len(wave) + 1e-9
        for wave in waves
    )
    assert (verdict.halt is not None) == (too_much or too_many)
    if verdict.halt is not None:
        assert verdict.open_waves == opened


@given(campaigns())
def test_an_accepted_wave_does_not_halt_again(
    case: tuple[RollOut, list[Task], int, int],
) -> None:
    roll_out, tasks, opened, _ = case
    verdict = judge(roll_out, tasks, opened, accepted_waves=opened)
    assert verdict.halt is None
    last = max((task.wave for task in tasks), default=0) + 1
    assert verdict.open_waves >= min(opened + 1, last)


@pytest.mark.parametrize(
    ("canary", "opened"),
    [
        ([S.PENDING, S.VERIFIED], 1),  # its owner is away: nobody is skipped
        ([S.SENT, S.VERIFIED], 1),
        ([S.APPLIED, S.VERIFIED], 1),
        ([S.FAILED, S.VERIFIED], 1),
        ([S.VERIFIED, S.VERIFIED], 2),
        ([], 2),
    ],
)
def test_without_a_threshold_all_must_be_verified(canary: list[TaskState], opened: int) -> None:
    tasks = [*(make_task(0, state) for state in canary), make_task(1, S.PENDING)]
    verdict = judge(RollOut(), tasks, 1, 0)
    assert (verdict.open_waves, verdict.halt) == (opened, None)


def test_a_share_of_verified_models_may_suffice() -> None:
    tasks = [*(make_task(0, S.VERIFIED) for _ in range(9)), make_task(0, S.PENDING)]
    tasks.append(make_task(1, S.PENDING))
    assert judge(RollOut(min_success=0.9), tasks, 1, 0).open_waves == 2
    assert judge(RollOut(min_success=0.91), tasks, 1, 0).open_waves == 1


@pytest.mark.parametrize("drop", [2.0, -5.0])
def test_the_allowed_loss_does_not_halt(drop: float) -> None:
    tasks = [make_task(0, S.VERIFIED, drop), make_task(1, S.PENDING)]
    assert judge(RollOut(max_retain_drop=2.0), tasks, 1, 0).open_waves == 2


@pytest.mark.parametrize(
    ("task", "reason", "details"),
    [
        (
            make_task(0, S.VERIFIED, 12.34, "r1"),
            "halted in wave 1 of 2: r1 lost 12.3 points of retain accuracy (90.0% before, 77.7% "
            "after), more than 2",
            {"model": "r1", "max_retain_drop": "2.0"},
        ),
        (
            make_task(0, S.VERIFIED, None, "r1"),
            "halted in wave 1 of 2: the retain accuracy of r1 was not measured, so it is not known "
            "whether it lost more than 2 points",
            {"model": "r1", "measured": False},
        ),
        (
            make_task(0, S.FAILED),
            "halted in wave 1 of 2: 1 of its 2 models failed, more than 25%",
            {"failed": 1, "models": 2, "max_error_rate": "0.25"},
        ),
    ],
)
def test_the_reason_has_measured_and_allowed_values(
    task: Task, reason: str, details: dict[str, Any]
) -> None:
    tasks = [task, make_task(0, S.PENDING), make_task(1, S.PENDING)]
    halt = judge(RollOut(max_retain_drop=2.0, max_error_rate=0.25), tasks, 1, 0).halt
    assert halt is not None
    assert halt.reason == reason
    assert details.items() <= halt.details.items()


def test_a_late_owner_of_an_earlier_wave_still_halts() -> None:
    roll_out = RollOut(min_success=0.5, max_retain_drop=2.0)
    tasks = [make_task(0, S.VERIFIED), make_task(0, S.APPLIED, 9.0), make_task(1, S.SENT)]
    halt = judge(roll_out, [*tasks, make_task(2, S.PENDING)], 2, 0).halt
    assert halt is not None
    assert "in wave 1 of 3" in halt.reason


@pytest.mark.parametrize(
    "measured",
    [(math.nan, 0.5), (0.5, math.nan), (1.5, 0.5), (0.5, -0.1), (None, 0.5), (0.5, None)],
)
def test_an_invalid_accuracy_counts_as_not_measured(
    measured: tuple[float | None, float | None],
) -> None:
    assert retain_drop(make_result(*measured)) is None


@pytest.mark.parametrize("state", [S.FAILED, S.PENDING, S.INEFFECTIVE, S.UNAPPROVED])
def test_late_models_neither_halt_a_roll_out_nor_delay_a_wave(state: TaskState) -> None:
    planned = [make_task(0, S.VERIFIED, name="a"), make_task(1, S.PENDING, name="b")]
    late = [Task(f"junk{i}", "cleo", state, late=True) for i in range(40)]
    verdict = judge(RollOut(max_error_rate=0.1), [*planned, *late], 1, 0)
    assert (verdict.halt, verdict.open_waves) == (None, 2)


def test_a_late_model_with_too_much_loss_still_halts() -> None:
    late = Task("late", "cleo", S.APPLIED, result=make_result(0.9, 0.1), late=True)
    verdict = judge(RollOut(max_retain_drop=2.0), [make_task(0, S.VERIFIED), late], 1, 0)
    assert verdict.halt is not None
    assert "late lost 80.0 points" in verdict.halt.reason
