"""Names of the versions that requests make of models: the same for owner and coordinator."""

import hashlib

_LENGTH = 128
"""Of a model id, at most."""


def successor_id(model_id: str, request_id: str) -> str:
    """Return the id of the version that a request makes of a model.

    It names both.  Where that is too long for an id, as after many requests, its beginning stands
    with a digest of the whole.

    Example:
        >>> successor_id("r6", "forget-cats")
        'r6~forget-cats'
        >>> len(successor_id("m" * 128, "forget-cats"))
        128
    """
    full = f"{model_id}~{request_id}"
    if len(full) <= _LENGTH:
        return full
    digest = hashlib.sha256(full.encode()).hexdigest()[:32]
    return f"{full[: _LENGTH - len(digest) - 1]}~{digest}"
