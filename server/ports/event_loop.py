"""The event loop of all asynchronous servers of this process, in a thread of its own.

A waiting call of such a server takes no thread.  Sleeping threads are not free: Linux keeps those
of a process in a few lists, and each wake, of whatever thread, walks through one of them.
"""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")
_starting = threading.Lock()
_loops: list[asyncio.AbstractEventLoop] = []


def event_loop() -> asyncio.AbstractEventLoop:
    """Return the loop, which runs from the first call on; gRPC serves all servers best in one."""
    with _starting:
        if not _loops:
            _loops.append(asyncio.new_event_loop())
            threading.Thread(target=_loops[0].run_forever, name="event loop", daemon=True).start()
        return _loops[0]


def waited(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine in the loop, and wait for its result in another thread.

    Args:
        work: the coroutine.
    """
    return asyncio.run_coroutine_threadsafe(work, event_loop()).result()
