"""What a person types, as a request."""

import hashlib
import re
from collections.abc import Sequence

from disinherit.common.errors import InputError, RequestError
from disinherit.v1.unlearning_pb2 import Method, RollOut, Root, UnlearningRequest, Wave

_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_WAVE = re.compile(r"([0-9]{1,9})|([0-9]{1,3}(?:\.[0-9]{1,9})?)%")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def make_request(
    forget: Sequence[str],
    method: Method,
    reason: str,
    request_id: str | None,
    samples: Sequence[Root] = (),
    client: str = "",
    roll_out: RollOut | None = None,
    retention_seconds: int = 0,
) -> UnlearningRequest:
    """Return a request.

    Args:
        forget: `CLASS@MODEL` each.
        method: how to unlearn.
        reason: for people to read.
        request_id: `None` to make it from the rest, so that the same again is the same request.
        samples: roots of samples, as their owners name them, in the place of classes.
        client: an owner whose whole contribution is to be forgotten, in the place of both.
        roll_out: in which order owners are asked, and what must hold; `None` for all at once.
        retention_seconds: how long owners keep the superseded versions after the end; 0 for good.

    Raises:
        RequestError: if there is nothing to forget, or things of several kinds, or it is not said
            where.

    Example:
        >>> request = make_request(["cat@r1", "dog@r1"], Method(), "", None)
        >>> list(request.roots[0].classes), request.id[:7]
        (['cat', 'dog'], 'forget-')
    """
    if bool(forget) + bool(samples) + bool(client) != 1:
        raise RequestError(
            "Expected at least one class to forget, or samples or a client in its place, but got "
            f"{'several of these' if forget or samples else 'none'}. Say which and where it was "
            "learned, e.g. --forget cat@r1."
        )
    listed = [
        *(Root(model_id=m, classes=names) for m, names in _by_model(forget).items()),
        *samples,
    ]
    request = UnlearningRequest(
        reason=reason,
        roots=listed,
        method=method,
        client=client,
        roll_out=roll_out,
        retention_seconds=retention_seconds,
    )
    content = request.SerializeToString(deterministic=True)
    request.id = request_id or f"forget-{hashlib.sha256(content).hexdigest()[:12]}"
    return request


def make_roll_out(
    canaries: Sequence[str],
    canary_count: int,
    waves: Sequence[str],
    min_success: float | None,
    max_retain_drop: float | None,
    max_error_rate: float | None,
) -> RollOut | None:
    """Return a staged roll-out, or `None` if nothing is said of one.

    Args:
        canaries: owners that go first.
        canary_count: how many do, in the place of names; 0 for none.
        waves: owners that follow, `10%` of all or a number each.
        min_success: share of a wave's models to be verified before the next begins.
        max_retain_drop: points of retain accuracy that a model may lose.
        max_error_rate: share of a wave's models that may fail.

    Raises:
        RequestError: if a wave is neither a share nor a number.

    Example:
        >>> make_roll_out(["owner-3"], 0, ["10%", "25"], None, 2.0, None).waves[0].fraction
        0.1
        >>> make_roll_out([], 0, [], None, None, None) is None
        True
    """
    roll_out = RollOut(
        canaries=canaries,
        canary_count=canary_count,
        waves=[_wave(size) for size in waves],
        min_success=min_success,
        max_retain_drop=max_retain_drop,
        max_error_rate=max_error_rate,
    )
    return roll_out if roll_out.ListFields() else None


def _wave(size: str) -> Wave:
    match = _WAVE.fullmatch(size)
    if match is None:
        raise RequestError(f"Expected a wave such as 10% or 25, but got {size!r}.")
    return Wave(count=int(match[1])) if match[1] else Wave(fraction=float(match[2]) / 100)


def _by_model(tokens: Sequence[str]) -> dict[str, list[str]]:
    """Return model -> names, of `NAME@MODEL` each."""
    named: dict[str, list[str]] = {}
    for token in tokens:
        name, _, model = token.rpartition("@")
        if not name or not model:
            raise RequestError(
                f"Expected a class and a model as CLASS@MODEL, such as cat@r1, but got {token!r}."
            )
        named.setdefault(model, []).append(name)
    return named


def seconds(duration: str) -> int:
    """Return a duration in seconds.

    Raises:
        InputError: if it is none.

    Example:
        >>> seconds("12h")
        43200
    """
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise InputError(f"Expected a duration such as 90s, 45m, 12h or 30d, but got {duration!r}.")
    return int(match[1]) * _SECONDS[match[2]]
