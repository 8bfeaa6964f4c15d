"""Causes of failed connections, in words for people instead of those of gRPC."""

_CAUSES = (
    (("refused",), "the connection was refused: nothing listens there"),
    (("resolution", "resolve", "not known", "DNS"), "its name is unknown"),
    (("CERTIFICATE", "certificate"), "its certificate is not signed by the authority to trust"),
    (("SSL", "handshake", "TLS"), "one side speaks TLS and the other does not"),
    (("Timeout", "timed out"), "it did not answer in time"),
)


def find_cause(details: str) -> str:
    """Return why a connection failed, in words for people.

    Args:
        details: of gRPC's error.

    Example:
        >>> find_cause("failed to connect to all addresses; last error: Connection refused")
        'the connection was refused: nothing listens there'
    """
    for marks, cause in _CAUSES:
        if any(mark in details for mark in marks):
            return cause
    return "the connection was lost"
