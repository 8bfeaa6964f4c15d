"""What a person types, as a request."""

import hashlib
import re
from collections.abc import Sequence

from disinherit.common.errors import InputError, RequestError
from disinherit.v1.unlearning_pb2 import Method, Root, UnlearningRequest

_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def make_request(
    forget: Sequence[str], method: Method, reason: str, request_id: str | None
) -> UnlearningRequest:
    """Return a request.

    Args:
        forget: `CLASS@MODEL` each.
        method: how to unlearn.
        reason: for people to read.
        request_id: `None` to make it from the rest, so that the same again is the same request.

    Raises:
        RequestError: if there is nothing to forget, or it is not said where.

    Example:
        >>> request = make_request(["cat@r1", "dog@r1"], Method(), "", None)
        >>> list(request.roots[0].classes), request.id[:7]
        (['cat', 'dog'], 'forget-')
    """
    roots: dict[str, list[str]] = {}
    for token in forget:
        name, _, model = token.rpartition("@")
        if not name or not model:
            raise RequestError(
                f"Expected a class and a model as CLASS@MODEL, such as cat@r1, but got {token!r}."
            )
        roots.setdefault(model, []).append(name)
    if not roots:
        raise RequestError(
            "Expected at least one class to forget, but got none. Say which and where it was "
            "learned, e.g. --forget cat@r1."
        )
    listed = [Root(model_id=model, classes=names) for model, names in roots.items()]
    request = UnlearningRequest(reason=reason, roots=listed, method=method)
    content = request.SerializeToString(deterministic=True)
    request.id = request_id or f"forget-{hashlib.sha256(content).hexdigest()[:12]}"
    return request


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
