"""The agent as a whole: link, downloads and runner, started and stopped together."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Self

from disinherit.client.agent.activity import ActivityFile
from disinherit.client.agent.config import AgentConfig
from disinherit.client.agent.download import Downloads
from disinherit.client.agent.identity import Identity
from disinherit.client.agent.link import Link
from disinherit.client.agent.runner import OpenOwner, Runner, TaskAnswer, check_owner
from disinherit.client.owner.factory import load_function
from disinherit.client.owner.failures import explain

_log = logging.getLogger(__name__)

TASK_SECONDS = 60.0
"""Time for the current task to end when the agent is stopped."""

_LINK_SECONDS = 5.0


class Agent:
    """A running agent: it serves an owner's models until it is stopped.

    Args:
        config: the agent's configuration.
        identity: the agent's key and certificate.
        open_owner: opens the owner for one task.

    Raises:
        StoreError: if the state folder cannot be used.
    """

    def __init__(self, config: AgentConfig, identity: Identity, open_owner: OpenOwner) -> None:
        self._stop = threading.Event()
        self._activity = ActivityFile(config.state)
        self._link = Link(config, identity, self._stop, self._activity)
        downloads = Downloads(config.state / "downloads", self._link.fetch)
        self._runner = Runner(
            config.owner,
            open_owner,
            downloads,
            self._answer,
            config.release,
            config.acceptance,
        )
        self._thread = threading.Thread(
            target=self._link.run, args=(self._runner.submit,), name="link", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, seconds: float = TASK_SECONDS) -> None:
        """Stop; the current task is answered if it ends within some seconds."""
        self._stop.set()
        self._runner.stop(seconds)
        self._link.close(self._ended, _LINK_SECONDS)
        self._activity.close()

    def _answer(self, answer: TaskAnswer) -> None:
        self._link.answer(answer)
        self._activity.answered(answer.error)

    def _ended(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()


def load_factory(config: AgentConfig) -> OpenOwner:
    """Return the owner factory of the configuration.

    Raises:
        InputError: if the module or function does not exist.
    """
    return partial(load_function(config.factory), config)


def _warm_up(config: AgentConfig, open_owner: OpenOwner) -> None:
    """Open the owner once, so that no task waits for a slow first start.

    Raises:
        InputError: if the factory opens another owner's models.
    """
    try:
        with open_owner() as owner:
            found = owner.store.owner
    except Exception as error:  # includes errors of the owner's loaders; they may recover
        _log.warning("%s", explain(error, "open the models"))
    else:
        check_owner(found, config.owner)


def run_until_signal(config: AgentConfig, identity: Identity, open_owner: OpenOwner) -> None:
    """Serve until SIGTERM or SIGINT, then stop cleanly.

    Args:
        config: the agent's configuration.
        identity: the agent's key and certificate.
        open_owner: opens the owner for one task.

    Raises:
        InputError: if the factory opens another owner's models.
        StoreError: if the state folder cannot be used.
    """
    wait = expect_signal()
    _warm_up(config, open_owner)
    with Agent(config, identity, open_owner):
        wait()


def expect_signal() -> Callable[[], object]:
    """Take SIGTERM and SIGINT from now on; return the function that waits until one has come."""
    # Written to by the interpreter at once, in whichever thread: a handler in Python runs in the
    # main thread only, which a signal to another thread does not wake.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return lambda: os.read(reading, 1)
