"""Assignment of owners to the waves of a roll-out."""

import hashlib
import math
from collections.abc import Collection, Mapping

from disinherit.common.errors import RequestError
from disinherit.common.text import did_you_mean
from disinherit.common.wire.roll_out import RollOut


def assign_waves(
    roll_out: RollOut, request_id: str, owners: Collection[str], known: Mapping[str, int]
) -> dict[str, int]:
    """Return the wave of every owner.

    Canaries come first, then the waves, then all other owners.  A hash of request and owner orders
    unnamed owners: the order is stable, and differs between requests.

    Args:
        roll_out: the roll-out.
        request_id: the request.
        owners: the owners to ask.
        known: owner -> wave, of owners with a wave, which they keep. If there are any, all others
            joined late and are in the last wave.

    Raises:
        RequestError: if a canary is not one of the owners.

    Example:
        >>> from disinherit.common.wire.roll_out import Wave
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
                f"{did_you_mean(name, owners)}"
            )
    canaries = set(roll_out.canaries)
    waiting = sorted(set(owners) - canaries, key=lambda owner: _turn(request_id, owner))
    sizes = [
        max(1, math.ceil(wave.fraction * len(owners) - 1e-9)) if wave.fraction else wave.count or 0
        for wave in roll_out.waves
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
