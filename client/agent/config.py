"""The agent's configuration: one TOML file, of which every key is known."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disinherit.client.agent.hours import Hours, parse_hours
from disinherit.client.factory import FUNCTION
from disinherit.client.release import OPEN, ReleasePolicy, read_policy
from disinherit.common.errors import InputError
from disinherit.common.parsing import load_toml
from disinherit.common.records import check_owner

_ADDRESS = re.compile(r"[^\s/]+:\d{1,5}")
_TEXTS = ("owner", "server", "ca", "state", "factory")
_OPTIONAL = ("enrol_server", "bytes_per_second", "hours", "release")


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """What an agent is told by the person who sets it up.

    Attributes:
        owner: whose models are on this device.
        server: the coordinator's port for agents, as `host:port`.
        ca: PEM file with the certificate of the fleet's authority.
        state: folder for key, certificate and downloads; also for the models, if the factory wants.
        factory: `module:function`; called with this configuration, it returns a context manager
            that opens the `disinherit.client.owner.Owner` for the time of one task.
        enrol_server: the coordinator's port for those without a certificate; needed to enrol.
        bytes_per_second: up and down, each; 0 for no limit.
        hours: when to take part, in the device's time zone; `None` for always.
        release: conditions on the Fisher information that leaves the device, beside those that the
            owner of the factory sets itself.
    """

    owner: str
    server: str
    ca: Path
    state: Path
    factory: str
    enrol_server: str = ""
    bytes_per_second: int = 0
    hours: Hours | None = None
    release: ReleasePolicy = OPEN


def read_config(path: Path) -> AgentConfig:
    """Read a configuration; relative paths in it start at its own folder.

    Raises:
        InputError: if it cannot be read, a key is missing or unknown, or a value is wrong.
    """
    try:
        values = load_toml(path.read_text())
    except OSError as error:
        raise InputError(
            f"Expected an agent's configuration at {path}, but: {error.strerror}."
        ) from error
    except ValueError as error:  # of TOML, and of UTF-8
        raise InputError(f"Expected TOML in {path}, but: {error}.") from error
    return _config(values, path)


def _config(values: Mapping[str, Any], path: Path) -> AgentConfig:
    unknown = sorted(values.keys() - {*_TEXTS, *_OPTIONAL})
    if unknown:
        raise InputError(
            f"Expected the keys {', '.join((*_TEXTS, *_OPTIONAL))} in {path}, but got {unknown}."
        )
    texts = {key: _text(values, key, path) for key in _TEXTS}
    for key in ("server", "enrol_server"):
        address = _text(values, key, path, default="")
        if (address or key in values) and not _ADDRESS.fullmatch(address):
            raise InputError(f"Expected host:port as {key} in {path}, but got {address!r}.")
    if not FUNCTION.fullmatch(texts["factory"]):
        raise InputError(
            f"Expected module:function as factory in {path}, but got {texts['factory']!r}."
        )
    rate = values.get("bytes_per_second", 0)
    if type(rate) is not int or rate < 0:
        raise InputError(
            f"Expected a whole number of at least 0 as bytes_per_second in {path}, but got "
            f"{rate!r}."
        )
    hours = _text(values, "hours", path, default="")
    return AgentConfig(
        owner=check_owner(texts["owner"]),
        server=texts["server"],
        ca=path.parent / texts["ca"],
        state=path.parent / texts["state"],
        factory=texts["factory"],
        enrol_server=_text(values, "enrol_server", path, default=""),
        bytes_per_second=rate,
        hours=parse_hours(hours) if hours else None,
        release=read_policy(values.get("release", {}), f"[release] of {path}"),
    )


def _text(values: Mapping[str, Any], key: str, path: Path, default: str | None = None) -> str:
    value = values.get(key, default)
    if not isinstance(value, str) or (not value and default is None):
        raise InputError(f"Expected text for the key {key} in {path}, but got {value!r}.")
    return value
