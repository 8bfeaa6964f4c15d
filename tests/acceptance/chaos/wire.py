"""A network between two processes on loopback that can be cut, slowed, stalled and damaged."""

import socket
import threading
import time
from contextlib import suppress
from random import Random
from typing import Self

from disinherit.deploy.files import HOST
from tests.acceptance.chaos.messages import flip

_CHUNK = 2**14
_SLOW_SECONDS = 0.1
_SLOW_CHUNK = 512


class Wire:
    """Carries connections to a port, and whatever goes over them.

    Args:
        target: port on loopback.
        random: chooses the bits that are flipped.

    Attributes:
        port: where it listens.
    """

    def __init__(self, target: int, random: Random) -> None:
        self._target = target
        self._random = random
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._down = threading.Event()
        self._passing = threading.Event()
        self._passing.set()
        self._slow = False
        self._to_flip = 0
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """End all connections, and take no others."""
        self._down.set()
        with self._lock:
            ended, self._open = self._open, set()
        for one in ended:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        """Let nothing through; connections stay."""
        self._passing.clear()

    def slow_down(self) -> None:
        """Let 5 kB a second through, each way of each connection."""
        self._slow = True

    def damage(self) -> None:
        """Flip a bit of what is carried next."""
        self._to_flip += 1

    def heal(self) -> None:
        """Carry everything as it is."""
        self._down.clear()
        self._passing.set()
        self._slow = False
        self._to_flip = 0

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        with near, suppress(OSError):
            if self._down.is_set():
                return
            with socket.create_connection((HOST, self._target)) as far:
                with self._lock:
                    self._open |= {near, far}
                back = threading.Thread(target=self._carry, args=(far, near), daemon=True)
                back.start()
                self._carry(near, far)
                back.join()
                with self._lock:
                    self._open -= {near, far}

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(_SLOW_CHUNK if self._slow else _CHUNK):
                self._passing.wait()
                if self._slow:
                    time.sleep(_SLOW_SECONDS)
                if self._to_flip:
                    self._to_flip -= 1
                    data = flip(self._random, data)
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
