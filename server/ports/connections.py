"""Bounds of the TCP connections to a port: how many, how long they may be silent, calls on each."""

import resource

from disinherit.common import limits


def use_descriptors() -> int:
    """Let this process have as many open files and connections as it may, and return how many.

    A service starts with 1,024 where nobody asks for more, and each connection takes one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def connection_options(part: int) -> tuple[tuple[str, int], ...]:
    """Return gRPC's options for a port.

    Args:
        part: connections to it may take one of so many parts of the process's descriptors, so that
            those who fill one port leave some to the others.

    Example:
        >>> dict(connection_options(4))["grpc.server_handshake_timeout_ms"]
        5000
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = limits.CONNECTIONS.most
    if descriptors != resource.RLIM_INFINITY:
        most = min(most, descriptors // part)
    return (
        ("grpc.max_allowed_incoming_connections", most),
        ("grpc.max_concurrent_streams", limits.CONNECTION_CALLS.most),
        ("grpc.server_handshake_timeout_ms", 1000 * limits.HANDSHAKE.most),
        ("grpc.max_connection_idle_ms", 1000 * limits.IDLE.most),
        # Two coordinators on one port would each know half of those who connect.
        ("grpc.so_reuseport", 0),
    )
