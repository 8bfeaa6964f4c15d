"""Gates of a roll-out: conditions for the next wave, and thresholds that halt a campaign.

A wave passes once enough of its models are verified.  Three things halt the campaign:

- a model lost more retain accuracy than allowed, or its loss was not measured;
- more models failed than allowed; a model that answered and has not forgotten counts as failed;
- too few models of a wave forgot, and no owner of the wave is left to ask.

Every begun wave is judged each time, since an absent owner may answer during later waves.

Shares refer to the models planned at submission.  Descendants that are registered later are
dampened, and their accuracy loss counts.  Their failures and delays neither halt the roll-out nor
delay a wave, so no owner can block others by registering models.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from disinherit.common.wire.roll_out import RollOut
from disinherit.server.states import Task, TaskState
from disinherit.v1.unlearning_pb2 import ModelResult

_ANY_DROP = 100.0
"""The largest possible loss in points: with this limit, no measurement is needed."""


@dataclass(frozen=True, slots=True)
class Halt:
    """The reason to halt a campaign.

    Attributes:
        reason: as text.
        details: threshold and measured values, as numbers for the audit log.
    """

    reason: str
    details: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WaveVerdict:
    """The decision about waves after the answers so far.

    Attributes:
        open_waves: number of waves that may be sent.
        halt: the reason to halt, if any.
    """

    open_waves: int
    halt: Halt | None = None


def judge(
    roll_out: RollOut, tasks: Collection[Task], open_waves: int, accepted_waves: int
) -> WaveVerdict:
    """Decide whether the next wave may begin, or the campaign halts.

    Args:
        roll_out: the thresholds.
        tasks: the tasks of all models to dampen.
        open_waves: number of begun waves.
        accepted_waves: number of waves that a person let pass, regardless of their results.
    """
    total = max((task.wave for task in tasks), default=0) + 1
    tasks = [task for task in tasks if task.state is not TaskState.UNAPPROVED]
    waves = [[task for task in tasks if task.wave == number] for number in range(total)]
    for number in range(accepted_waves, min(open_waves, total)):
        halt = _halt(roll_out, waves[number], number, total)
        if halt is not None:
            return WaveVerdict(open_waves, halt)
    passed = 0
    while passed < total and (passed < accepted_waves or _has_passed(roll_out, waves[passed])):
        passed += 1
    if passed < min(open_waves, total - 1):
        stuck = _stuck(waves[passed], passed, total)
        if stuck is not None:
            return WaveVerdict(open_waves, stuck)
    return WaveVerdict(max(open_waves, min(passed + 1, total)))


def retain_drop(result: ModelResult) -> float | None:
    """Return a model's loss of retain accuracy in percentage points; `None` if unknown."""
    if not (result.HasField("retain_before") and result.HasField("retain_after")):
        return None
    if not (0 <= result.retain_before <= 1 and 0 <= result.retain_after <= 1):
        return None
    return 100 * (result.retain_before - result.retain_after)


def _planned(wave: Iterable[Task]) -> list[Task]:
    return [task for task in wave if not task.late]


def _has_passed(roll_out: RollOut, wave: Sequence[Task]) -> bool:
    wave = _planned(wave)
    share = 1.0 if roll_out.min_success is None else roll_out.min_success
    verified = sum(task.state is TaskState.VERIFIED for task in wave)
    return verified >= share * len(wave) - 1e-9


def _halt(roll_out: RollOut, wave: Sequence[Task], number: int, total: int) -> Halt | None:
    found = None
    if roll_out.max_retain_drop is not None and roll_out.max_retain_drop < _ANY_DROP:
        found = _too_much_lost(wave, roll_out.max_retain_drop)
    if found is None and roll_out.max_error_rate is not None:
        found = _too_many_failed(wave, roll_out.max_error_rate)
    if found is None:
        return None
    reason = f"halted in wave {number + 1} of {total}: {found.reason}"
    return Halt(reason, {"wave": number + 1, "waves": total, **found.details})


def _stuck(wave: Sequence[Task], number: int, total: int) -> Halt | None:
    """Return a halt if a wave cannot pass and none of its owners is left to ask."""
    wave = _planned(wave)
    unforgotten = [task for task in wave if task.state.unforgotten]
    if not unforgotten or not all(task.state.settled for task in wave):
        return None
    first = unforgotten[0]
    return Halt(
        f"halted in wave {number + 1} of {total}: {len(unforgotten)} of its {len(wave)} models "
        f"answered and have not forgotten, the first {first.model_id}, which is {first.state}",
        {
            "wave": number + 1,
            "waves": total,
            "unforgotten": len(unforgotten),
            "models": len(wave),
        },
    )


def _too_much_lost(wave: Iterable[Task], limit: float) -> Halt | None:
    details: dict[str, str | int] = {"max_retain_drop": repr(limit)}
    for task in wave:
        if task.result is None:
            continue
        drop = retain_drop(task.result)
        if drop is None:
            return Halt(
                f"the retain accuracy of {task.model_id} was not measured, so it is not known "
                f"whether it lost more than {limit:g} points",
                {**details, "model": task.model_id, "measured": False},
            )
        if drop > limit + 1e-9:
            lost = "would lose" if task.state is TaskState.HARMFUL else "lost"
            return Halt(
                f"{task.model_id} {lost} {drop:.1f} points of retain accuracy "
                f"({100 * task.result.retain_before:.1f}% before, "
                f"{100 * task.result.retain_after:.1f}% after), more than {limit:g}",
                {**details, "model": task.model_id, "retain_drop": repr(drop)},
            )
    return None


def _too_many_failed(wave: Sequence[Task], limit: float) -> Halt | None:
    wave = _planned(wave)
    failed = sum(task.state is TaskState.FAILED or task.state.unforgotten for task in wave)
    if failed <= limit * len(wave) + 1e-9:
        return None
    unforgotten = sum(task.state.unforgotten for task in wave)
    also = f" ({unforgotten} of them answered, and have not forgotten)" if unforgotten else ""
    return Halt(
        f"{failed} of its {len(wave)} models failed{also}, more than {100 * limit:g}%",
        {"max_error_rate": repr(limit), "failed": failed, "models": len(wave)},
    )
