"""Gates: calls beyond a limit are refused at once, and whatever ends makes room again."""

import asyncio
from typing import Any, cast

import grpc
import pytest

from disinherit.common.limits import Limit
from disinherit.server.ports.gates import AsyncContext, Gate

INSIDE, EACH = 4, 2


class AbortedError(Exception):
    """A call was refused."""


class Context:
    """What a gate uses of a call.

    Args:
        who: the caller.
    """

    def __init__(self, who: str) -> None:
        self.who = who
        self.code: grpc.StatusCode | None = None
        self.details = ""

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.code, self.details = code, details
        raise AbortedError


class Calls:
    """A gate, and calls that stay inside until they are told to leave.

    Args:
        patience: how long a call waits for its turn; 0 to be refused at once, `None` for ever.
        of_callers: whether callers are counted.
    """

    def __init__(self, patience: float | None = 0.0, *, of_callers: bool = False) -> None:
        gate = Gate(limit(INSIDE), limit(EACH), "streams", patience, of_callers=of_callers)
        self.leaving = asyncio.Event()
        handler: Any = grpc.stream_unary_rpc_method_handler(cast("Any", self._answer))
        self.guarded: Any = gate.guard(handler, caller).stream_unary

    async def _answer(self, _: object, context: Context) -> str:
        await self.leaving.wait()
        if context.who == "faulty":
            raise ValueError
        return context.who

    async def enter(self, who: str) -> "tuple[Context, asyncio.Task[str]]":
        """A call, inside or refused."""
        context = Context(who)
        task = asyncio.create_task(self.guarded(None, context))
        await asyncio.sleep(0.01)
        return context, task


async def caller(context: AsyncContext) -> str:
    return cast("Context", context).who


def limit(most: int) -> Limit:
    return Limit("some", most, "calls", "calls of a test")


async def refused(calls: Calls, who: str) -> str:
    context, task = await calls.enter(who)
    with pytest.raises(AbortedError):
        await task
    assert context.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    return context.details


def test_calls_beyond_the_limits_of_one_caller_and_of_all_are_refused() -> None:
    async def run() -> None:
        calls = Calls()
        inside = [await calls.enter(who) for who in ("anna", "anna", "ben", "faulty")]
        assert "2 streams of one caller" in await refused(calls, "anna")
        assert "4 streams at a time" in await refused(calls, "cleo")
        calls.leaving.set()
        ended = await asyncio.gather(*(task for _, task in inside), return_exceptions=True)
        assert ended[:3] == ["anna", "anna", "ben"]
        assert isinstance(ended[3], ValueError)
        # All have left, also the one that failed, so there is room for as many again.
        again = [await calls.enter(who) for who in ("anna", "anna", "ben", "ben")]
        assert await asyncio.gather(*(task for _, task in again)) == ["anna", "anna", "ben", "ben"]

    asyncio.run(run())


def test_a_call_that_is_given_up_makes_room() -> None:
    async def run() -> None:
        calls = Calls()
        inside = [await calls.enter(f"owner-{number}") for number in range(INSIDE)]
        assert "4 streams" in await refused(calls, "late")
        task = inside[0][1]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        _, late = await calls.enter("late")
        calls.leaving.set()
        assert await late == "late"
        await asyncio.gather(*(task for _, task in inside[1:]))

    asyncio.run(run())


@pytest.mark.parametrize("patience", [30.0, None])
def test_calls_wait_for_their_turn_at_a_gate_with_patience(patience: float | None) -> None:
    async def run() -> None:
        calls = Calls(patience)
        tasks = [(await calls.enter(f"owner-{number}"))[1] for number in range(3 * INSIDE)]
        # A caller has its share, whether its calls wait or are inside.
        tasks.append((await calls.enter("owner-11"))[1])
        assert "2 streams of one caller" in await refused(calls, "owner-11")
        calls.leaving.set()
        assert await asyncio.gather(*tasks) == [*(f"owner-{n}" for n in range(12)), "owner-11"]

    asyncio.run(run())


def test_a_call_that_has_waited_long_enough_is_refused() -> None:
    async def run() -> None:
        calls = Calls(patience=0.2)
        inside = [(await calls.enter(f"owner-{number}"))[1] for number in range(INSIDE)]
        assert "4 streams at a time" in await refused(calls, "late")
        calls.leaving.set()
        await asyncio.gather(*inside)
        assert await (await calls.enter("late"))[1] == "late"

    asyncio.run(run())


def test_a_caller_who_is_here_may_come_again_where_all_places_are_taken() -> None:
    async def act() -> None:
        calls = Calls(of_callers=True)
        inside = [await calls.enter(f"owner-{number}") for number in range(INSIDE)]
        again, task = await calls.enter("owner-0")
        late, refused = await calls.enter("late")
        assert (again.code, late.code) == (None, grpc.StatusCode.RESOURCE_EXHAUSTED)
        calls.leaving.set()
        await asyncio.gather(*(one for _, one in inside), task, refused, return_exceptions=True)

        calls.leaving.clear()  # each gave back one place
        for number in range(INSIDE):
            assert (await calls.enter(f"other-{number}"))[0].code is None
        assert (await calls.enter("late"))[0].code is grpc.StatusCode.RESOURCE_EXHAUSTED
        calls.leaving.set()

    asyncio.run(act())


def test_a_caller_who_is_being_refused_has_no_place_to_share() -> None:
    """A second call was let in while the first was told so, and gave a place back it had not."""

    class Telling(Context):
        async def abort(self, code: grpc.StatusCode, details: str) -> None:
            await asyncio.sleep(0.01)  # the network takes its time
            await super().abort(code, details)

    async def act() -> None:
        calls = Calls(of_callers=True)
        inside = [(await calls.enter(f"owner-{number}"))[1] for number in range(INSIDE)]
        late = [Telling("late"), Telling("late")]
        tried = [asyncio.create_task(calls.guarded(None, context)) for context in late]
        calls.leaving.set()
        await asyncio.gather(*tried, *inside, return_exceptions=True)
        assert [one.code for one in late] == 2 * [grpc.StatusCode.RESOURCE_EXHAUSTED]

        calls.leaving.clear()
        again = [await calls.enter(f"other-{number}") for number in range(INSIDE + 1)]
        assert [context.code is None for context, _ in again] == [True] * INSIDE + [False]
        calls.leaving.set()
        await asyncio.gather(*(task for _, task in again), return_exceptions=True)

    asyncio.run(act())
