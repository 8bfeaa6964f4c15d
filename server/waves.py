"""Which owner is asked in which wave of a roll-out: canaries first, then waves, then all others."""

import hashlib
import math
from collections.abc import Collection, Mapping

from disinherit.common.errors import RequestError
from disinherit.v1.unlearning_pb2 import RollOut, Wave

MOST_WAVES = 100


def check_roll_out(roll_out: RollOut) -> None:
    """Raise `RequestError` unless a roll-out's values make sense.

    Args:
        roll_out: as it was asked for.
    """
    if roll_out.canaries and roll_out.canary_count:
        raise RequestError(
            f"Expected canary owners by name or by number, but got {len(roll_out.canaries)} names "
            f"and the number {roll_out.canary_count}."
        )
    if len(roll_out.waves) > MOST_WAVES:
        raise RequestError(f"Expected at most {MOST_WAVES} waves, but got {len(roll_out.waves)}.")
    for wave in roll_out.waves:
        fits = 0 < wave.fraction <= 1 if wave.HasField("fraction") else wave.count > 0
        if not fits:
            raise RequestError(
                "Expected waves of a share of the owners above 0 and up to 100%, or of at least "
                f"one owner, but got {_said(wave)}."
            )
    share = math.fsum(wave.fraction for wave in roll_out.waves)
    if share > 1 + 1e-9:
        raise RequestError(
            f"Expected waves of at most 100% of the owners together, but got {100 * share:g}%."
        )
    if roll_out.HasField("min_success") and not 0 < roll_out.min_success <= 1:
        raise RequestError(
            "Expected a share of models to succeed above 0 and up to 1, but got "
            f"{roll_out.min_success:g}."
        )
    if roll_out.HasField("max_retain_drop") and not 0 <= roll_out.max_retain_drop <= 100:
        raise RequestError(
            "Expected an allowed drop of retain accuracy from 0 to 100 points, but got "
            f"{roll_out.max_retain_drop:g}."
        )
    if roll_out.HasField("max_error_rate") and not 0 <= roll_out.max_error_rate <= 1:
        raise RequestError(
            f"Expected an allowed error rate from 0 to 1, but got {roll_out.max_error_rate:g}."
        )


def assign_waves(
    roll_out: RollOut, request_id: str, owners: Collection[str], known: Mapping[str, int]
) -> dict[str, int]:
    """Return the wave of every owner.

    Who goes first among owners that are not named is decided by a hash of request and owner, so it
    is the same every time, and other owners' turn with another request.

    Args:
        roll_out: the roll-out.
        request_id: the request.
        owners: who is to be asked.
        known: owner -> wave, of those that have one: it stays. If there are any, all others come
            with the last wave, as they joined late.

    Raises:
        RequestError: if a canary is none of the owners.

    Example:
        >>> roll_out = RollOut(canaries=["zoe"], waves=[Wave(fraction=0.5)])
        >>> sorted(assign_waves(roll_out, "q", ["ann", "ben", "zoe", "cleo"], {}).values())
        [0, 1, 1, 2]
    """
    if known:
        last = max(known.values())
        return {owner: known.get(owner, last) for owner in owners}
    for name in roll_out.canaries:
        if name not in owners:
            raise RequestError(
                "Expected canaries that own models to unlearn in, but got "
                f"{name!r}. Choose among {', '.join(sorted(owners)[:10])}."
            )
    canaries = set(roll_out.canaries)
    waiting = sorted(set(owners) - canaries, key=lambda owner: _turn(request_id, owner))
    sizes = [
        max(1, math.ceil(w.fraction * len(owners) - 1e-9)) if w.HasField("fraction") else w.count
        for w in roll_out.waves
    ]
    if roll_out.canary_count:
        sizes.insert(0, roll_out.canary_count)
    waves = dict.fromkeys(canaries, 0)
    wave = 1 if canaries else 0
    for size in sizes:
        waves |= dict.fromkeys(waiting[:size], wave)
        waiting = waiting[size:]
        wave += 1
    return waves | dict.fromkeys(waiting, wave)


def _turn(request_id: str, owner: str) -> bytes:
    return hashlib.sha256(f"{request_id}\n{owner}".encode()).digest()


def _said(wave: Wave) -> str:
    return f"{100 * wave.fraction:g}%" if wave.HasField("fraction") else str(wave.count)
