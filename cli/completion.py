"""Completion of ids in the shell: asked of the coordinator, and kept for a minute.

If that fails, nothing is completed and nothing is said.
"""

import hashlib
import importlib.resources
import json
import os
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from disinherit.cli.connection import Connection
from disinherit.v1 import coordinator_pb2 as pb

_WAIT_SECONDS = 1.0
_KEPT_SECONDS = 60.0
_MOST = 2000

Completion = list[str]


def names_in(package: str, folder: str) -> Completion:
    """Return the names of the TOML files in a folder of a package, and import none of its code."""
    found = importlib.resources.files(package).joinpath(folder).iterdir()
    return sorted(one.name.removesuffix(".toml") for one in found if one.name.endswith(".toml"))


def complete_requests(ctx: click.Context) -> Completion:
    """Return the ids of all requests."""
    return _kept(
        ctx,
        "requests",
        lambda one: [
            status.request.id
            for page in one.pages(lambda stub: stub.ListRequests, pb.ListRequestsRequest())
            for status in page.requests
        ],
    )


def complete_models(ctx: click.Context) -> Completion:
    """Return the ids of all versions."""
    return _kept(
        ctx,
        "models",
        lambda one: [
            record.id
            for page in one.pages(lambda stub: stub.ListModels, pb.ListModelsRequest())
            for record in page.models
        ],
    )


def complete_owners(ctx: click.Context) -> Completion:
    """Return the names of all owners."""
    return _kept(
        ctx,
        "owners",
        lambda one: [
            owner.name
            for page in one.pages(lambda stub: stub.ListOwners, pb.ListOwnersRequest())
            for owner in page.owners
        ],
    )


def _kept(ctx: click.Context, what: str, ask: Callable[[Connection], Completion]) -> Completion:
    """Return what was asked within the last minute, or is asked now; nothing if that fails."""
    try:
        connection = _connection(ctx)
        key = hashlib.sha256(f"{connection.server} {connection.token} {what}".encode())
        path = _folder() / f"completion-{key.hexdigest()[:32]}.json"
        if path.exists() and time.time() - path.stat().st_mtime < _KEPT_SECONDS:
            return [str(one) for one in json.loads(path.read_text())]
        found = ask(connection)[:_MOST]
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(json.dumps(found))
        return found
    except Exception:  # a shell waits for words, and has no place for an error
        return []


def _connection(ctx: click.Context) -> Connection:
    """Return the connection of the options so far and of the environment."""
    given: dict[str, Any] = {}
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if name in {one.name for one in fields(Connection)}:
            value = ctx.params.get(name)
            if value is None and isinstance(parameter.envvar, str):
                value = os.environ.get(parameter.envvar)
            if value is not None:
                path = name in ("ca", "cert", "key")
                given[name] = Path(value) if path else value
    return Connection(**given | {"timeout": _WAIT_SECONDS, "verbose": False})


def _folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "disinherit"
