"""Gates of a roll-out: conditions for the next wave, and thresholds that halt a campaign.

A wave has passed once enough of its models are verified.  A model that lost more accuracy on what
is to be kept than allowed halts the campaign, and so does one of which that was not measured: what
nobody measured must not pass for harmless.  So do more failures than allowed; a model that answered
and has not forgotten is one.  So does a wave in which too few models forgot and nobody is left to
be asked.  Every wave that has begun is looked at each time, since an owner that was away may answer
when later ones are under way.

Shares are of the models that were planned when the request was submitted.  An owner may register as
many descendants as it likes afterwards: they are dampened, and what they lose counts, but however
many of them fail or wait, they neither halt the roll-out for the others nor hold up a wave.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from disinherit.common.wire.requests import RollOut
from disinherit.server.states import Task, TaskState
from disinherit.v1.unlearning_pb2 import ModelResult

_ANY_DROP = 100.0
"""Points that every model may lose: nothing need be measured to know that it did not lose more."""


@dataclass(frozen=True, slots=True)
class Halt:
    """Why a campaign is halted.

    Attributes:
        reason: for people to read.
        said: the threshold and what was found, as numbers, for the audit log.
    """

    reason: str
    said: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WaveVerdict:
    """What follows from the answers so far.

    Attributes:
        open_waves: how many waves may be sent, the first ones.
        halt: why nothing more may be sent; `None` if it may.
    """

    open_waves: int
    halt: Halt | None = None


def judge(
    roll_out: RollOut, tasks: Collection[Task], open_waves: int, accepted_waves: int
) -> WaveVerdict:
    """Return whether the next wave may begin, or none may.

    Args:
        roll_out: the thresholds.
        tasks: those of all models that are to be dampened.
        open_waves: how many waves have begun.
        accepted_waves: how many of them have passed by a person's word, whatever came of them.
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
    """Return how many points of accuracy on what is kept a model lost, or `None` if unknown."""
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
    return Halt(reason, {"wave": number + 1, "waves": total, **found.said})


def _stuck(wave: Sequence[Task], number: int, total: int) -> Halt | None:
    """Return why a campaign does not go on although nobody of a wave is left to be asked."""
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
    said: dict[str, str | int] = {"max_retain_drop": repr(limit)}
    for task in wave:
        if task.result is None:
            continue
        drop = retain_drop(task.result)
        if drop is None:
            return Halt(
                f"the retain accuracy of {task.model_id} was not measured, so it is not known "
                f"whether it lost more than {limit:g} points",
                {**said, "model": task.model_id, "measured": False},
            )
        if drop > limit + 1e-9:
            lost = "would lose" if task.state is TaskState.HARMFUL else "lost"
            return Halt(
                f"{task.model_id} {lost} {drop:.1f} points of retain accuracy "
                f"({100 * task.result.retain_before:.1f}% before, "
                f"{100 * task.result.retain_after:.1f}% after), more than {limit:g}",
                {**said, "model": task.model_id, "retain_drop": repr(drop)},
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
