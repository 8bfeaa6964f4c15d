"""Calls of Flower's command line, the public interface of its Control API."""

import json
import os
import subprocess
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from disinherit.common.errors import CampaignError
from disinherit.deploy.programs import BINARIES

_SECONDS = 120.0


def flwr(*arguments: str, environment: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """Call `flwr` and return the JSON that it printed.

    Args:
        arguments: arguments of the call.
        environment: added to this process's environment.

    Raises:
        CampaignError: if it fails, or takes longer than two minutes.
    """
    words = flwr_command(*arguments, "--format", "json")
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )
    except subprocess.TimeoutExpired:
        raise CampaignError(
            f"Expected an answer to `flwr {arguments[0]}` within {_SECONDS:g} s, but got none."
        ) from None
    try:
        # Text for people precedes the JSON.
        answer: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    except ValueError:
        answer = {}
    if done.returncode != 0 or not answer.get("success"):
        output = " ".join((done.stdout + done.stderr).split())
        raise CampaignError(f"Expected `flwr {arguments[0]}` to succeed, but got: {output}")
    return answer


def flwr_command(*arguments: str) -> list[str]:
    """Return the words of a call of this environment's `flwr`."""
    return [str(BINARIES / "flwr"), *arguments]
