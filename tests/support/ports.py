"""Ports that follow each other, as a deployment wants them."""

import socket


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
