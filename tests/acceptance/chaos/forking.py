"""A copy of this process that does some work and ends."""

import os
import signal
import traceback
import warnings
from collections.abc import Callable

import torch


def fork(work: Callable[[], None]) -> int:
    """Do some work in a child, within a minute, and return its id; exit code 1 if it raises."""
    with warnings.catch_warnings():
        # From 3.12 on, forking beside another thread warns; the child needs none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if process:
        return process
    try:
        signal.alarm(60)
        # The parent's threads for OpenMP do not exist here, and torch would wait for them.
        torch.set_num_threads(1)
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def exit_code(process: int) -> int:
    """Wait for a child and return its exit code; of one that was killed, minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
