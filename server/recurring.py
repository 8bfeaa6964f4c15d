"""Recurring work of the coordinator, in threads of its own."""

import threading
from collections.abc import Callable


class Recurring:
    """A thread that does something at intervals, until it is stopped.

    Args:
        work: what it does; it raises nothing.
        name: name of the thread.
        seconds: interval, also before the first time.
    """

    def __init__(self, work: Callable[[], object], name: str, seconds: float) -> None:
        self._work = work
        self._seconds = seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, after the work that it does now."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            self._work()
