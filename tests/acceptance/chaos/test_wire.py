"""A network of our own on loopback: what is carried, cut, held up, slowed, damaged, and healed."""

import socket
import threading
from collections.abc import Iterator
from random import Random

import pytest

from disinherit.deploy.files import HOST
from tests.acceptance.chaos.wire import Wire

SAID = b"what was said"
SECONDS = 30.0


@pytest.fixture
def echo() -> Iterator[int]:
    """A port where everything is said once more."""
    with socket.create_server((HOST, 0)) as listener:

        def answer(peer: socket.socket) -> None:
            with peer:
                while data := peer.recv(4096):
                    peer.sendall(data)

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(peer,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def wire(echo: int) -> Iterator[Wire]:
    with Wire(echo, Random(1)) as wire:
        yield wire


def connect(wire: Wire) -> socket.socket:
    return socket.create_connection((HOST, wire.port), timeout=SECONDS)


def hear(peer: socket.socket, length: int = len(SAID)) -> bytes:
    heard = b""
    while len(heard) < length and (data := peer.recv(4096)):
        heard += data
    return heard


def test_it_carries_everything_as_it_is(wire: Wire) -> None:
    said = Random(2).randbytes(100_000)
    with connect(wire) as peer:
        threading.Thread(target=peer.sendall, args=(said,), daemon=True).start()
        assert hear(peer, len(said)) == said


def test_a_cut_ends_connections_and_lets_in_no_others_until_it_is_healed(wire: Wire) -> None:
    with connect(wire) as peer:
        peer.sendall(SAID)
        assert hear(peer) == SAID
        wire.cut()
        assert hear(peer) == b""
    with connect(wire) as peer:
        assert hear(peer) == b""
    wire.heal()
    with connect(wire) as peer:
        peer.sendall(SAID)
        assert hear(peer) == SAID


def test_what_was_held_up_arrives_once_it_is_healed(wire: Wire) -> None:
    with connect(wire) as peer:
        wire.stall()
        peer.sendall(SAID)
        peer.settimeout(0.2)
        with pytest.raises(TimeoutError):
            hear(peer)
        peer.settimeout(SECONDS)
        wire.heal()
        assert hear(peer) == SAID


def test_slow_is_not_lost(wire: Wire) -> None:
    wire.slow_down()
    with connect(wire) as peer:
        peer.sendall(SAID)
        assert hear(peer) == SAID


def test_one_bit_is_another_one_and_then_none(wire: Wire) -> None:
    with connect(wire) as peer:
        wire.damage()
        peer.sendall(SAID)
        heard = hear(peer)
        assert sum((a ^ b).bit_count() for a, b in zip(heard, SAID, strict=True)) == 1
        peer.sendall(SAID)
        assert hear(peer) == SAID
