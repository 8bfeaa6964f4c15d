"""Ports on loopback: which are free, and whether somebody listens."""

import socket

HOST = "127.0.0.1"


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


def listens(port: int) -> bool:
    """Return whether somebody listens at a port on loopback."""
    try:
        with socket.create_connection((HOST, port), timeout=1.0):
            return True
    except OSError:
        return False
