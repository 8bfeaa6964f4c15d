"""Assignment of owners to waves."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disinherit.common.errors import RequestError
from disinherit.common.wire.roll_out import RollOut, Wave
from disinherit.server.planning.roll_out import assign_waves
from disinherit.v1 import unlearning_pb2 as pb

OWNERS = st.sets(st.text("abcdefgh", min_size=1, max_size=3), min_size=1, max_size=30)
COUNTED = st.builds(Wave, count=st.integers(1, 8))
SHARES = st.builds(Wave, fraction=st.floats(0.01, 0.2))
WAVES = st.lists(COUNTED | SHARES, max_size=5)


@st.composite
def staged(draw: st.DrawFn) -> tuple[RollOut, set[str]]:
    owners = draw(OWNERS)
    if draw(st.booleans()):
        named = draw(st.sets(st.sampled_from(sorted(owners))))
        return RollOut(canaries=sorted(named), waves=draw(WAVES)), owners
    return RollOut(canary_count=draw(st.integers(0, 5)), waves=draw(WAVES)), owners


def sizes(roll_out: RollOut, owners: int) -> list[int]:
    """How many owners each wave has, by counting on one's fingers."""
    asked = [len(roll_out.canaries)] if roll_out.canaries else []
    asked += [roll_out.canary_count] if roll_out.canary_count else []
    for wave in roll_out.waves:
        share = max(1, math.ceil(round((wave.fraction or 0) * owners, 6)))
        asked.append(share if wave.count is None else wave.count)
    left, found = owners, []
    for size in asked:
        found.append(min(size, left))
        left -= found[-1]
    return [*found, left]


@given(staged())
def test_every_owner_has_one_wave_and_every_wave_its_size(case: tuple[RollOut, set[str]]) -> None:
    roll_out, owners = case
    assert RollOut.from_proto(roll_out.to_proto()) == roll_out
    waves = assign_waves(roll_out, "q", owners, {})
    assert waves.keys() == owners
    expected = sizes(roll_out, len(owners))
    assert [list(waves.values()).count(number) for number in range(len(expected))] == expected
    assert {waves[name] for name in roll_out.canaries} <= {0}


@given(staged(), st.randoms(use_true_random=False))
def test_the_order_in_which_owners_are_known_does_not_matter(
    case: tuple[RollOut, set[str]], random: object
) -> None:
    roll_out, owners = case
    shuffled = list(owners)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert assign_waves(roll_out, "q", shuffled, {}) == assign_waves(roll_out, "q", owners, {})


@given(staged(), OWNERS)
def test_late_owners_come_last_and_move_no_other(
    case: tuple[RollOut, set[str]], late: set[str]
) -> None:
    roll_out, owners = case
    before = assign_waves(roll_out, "q", owners, {})
    after = assign_waves(roll_out, "q", owners | late, before)
    assert {owner: after[owner] for owner in owners} == before
    assert {after[owner] for owner in late - owners} <= {max(before.values())}


def test_another_request_starts_with_other_owners() -> None:
    owners = [f"owner-{number}" for number in range(50)]
    first = {
        owner
        for request in map(str, range(20))
        for owner, wave in assign_waves(RollOut(canary_count=3), request, owners, {}).items()
        if wave == 0
    }
    assert len(first) > 20


@pytest.mark.parametrize(
    ("roll_out", "message"),
    [
        (pb.RollOut(canaries=["a"], canary_count=1), "by name or by number"),
        (pb.RollOut(waves=[pb.Wave()]), "but got 0"),
        (pb.RollOut(waves=[pb.Wave(count=0)]), "but got 0"),
        (pb.RollOut(waves=[pb.Wave(fraction=1.5)]), "but got 150%"),
        (pb.RollOut(waves=[pb.Wave(fraction=-0.1)]), "but got -10%"),
        (pb.RollOut(waves=[pb.Wave(fraction=math.nan)]), "but got nan%"),
        (pb.RollOut(waves=[pb.Wave(fraction=0.6)] * 2), "together, but got 120%"),
        (pb.RollOut(waves=[pb.Wave(count=1)] * 101), "at most 100 waves, but got 101"),
        (pb.RollOut(min_success=0), "to succeed above 0"),
        (pb.RollOut(min_success=1.1), "to succeed above 0"),
        (pb.RollOut(max_retain_drop=-1), "from 0 to 100 points"),
        (pb.RollOut(max_retain_drop=math.nan), "from 0 to 100 points"),
        (pb.RollOut(max_error_rate=2), "error rate from 0 to 1, but got 2"),
    ],
)
def test_what_makes_no_sense_is_refused(roll_out: pb.RollOut, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        RollOut.from_proto(roll_out)


def test_a_canary_without_affected_models_is_refused() -> None:
    with pytest.raises(RequestError, match=r"but got 'zoe'. Choose among anna, ben\."):
        assign_waves(RollOut(canaries=["zoe"]), "q", {"ben", "anna"}, {})
