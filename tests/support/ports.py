"""Ports on loopback that are free, and blocks of them, as a deployment wants them."""

import socket

from disinherit.deploy.files import HOST


def free_ports(count: int) -> list[int]:
    """Return ports on loopback that nobody uses now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def free_block(length: int) -> int:
    """The first of so many ports on loopback that follow each other and are free now."""
    for first in range(21000, 32000, length):
        try:
            for port in range(first, first + length):
                with socket.socket() as one:
                    one.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")
