"""Ray, started before Flower would: once more where it does not come up in its own short time.

Ray gives its first process 15 s.  On a machine that has just been started, or is busy, reading the
program from a slow disk takes longer.
"""

import logging
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from disinherit.common.errors import CampaignError

_LOG = logging.getLogger(__name__)
_STARTS = 3


def start_ray(arguments: Mapping[str, Any]) -> None:
    """Start Ray, as Flower's simulation engine does, which then uses it as it is.

    Args:
        arguments: of `ray.init`.

    Raises:
        CampaignError: if it does not come up; no process is left then.
    """
    import ray

    # As Flower does it: clients import what this process can import.
    path = os.pathsep.join([*sys.path, *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ["PYTHONPATH"] = path
    environment = {"env_vars": {"PYTHONPATH": path}}
    for attempt in range(1, _STARTS + 1):
        try:
            ray.init(runtime_env=environment, **arguments)
        except Exception as error:  # Ray has no class of its own for it
            _kill_started(error)
            ray.shutdown()
            if attempt == _STARTS:
                raise CampaignError(
                    f"Expected the simulation engine to start, but Ray did not in {_STARTS} "
                    f"attempts: {type(error).__name__}: {error}"
                ) from error
            _LOG.warning("Ray did not start (%s): attempt %d of %d", error, attempt + 1, _STARTS)
        else:
            return


def _kill_started(error: Exception) -> None:
    """Kill the processes of a node that was not completed, which nobody but its methods know."""
    from ray._private.node import Node

    for frame, _ in traceback.walk_tb(error.__traceback__):
        if isinstance(found := frame.f_locals.get("self"), Node):
            node: Any = found  # whose methods have no types
            node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
            return
