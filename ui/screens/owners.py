"""Owners: who is connected, how, since when, and what still waits for them."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from disinherit.documents.words import as_time, bandwidth
from disinherit.ui.screens.screen import Page
from disinherit.ui.words import now
from disinherit.v1 import coordinator_pb2 as pb

AWAY = timedelta(days=1)
"""After how long an owner counts as away; with work left, as missing."""


def load(page: Page) -> Mapping[str, Any]:
    """Return the owners that fit the filter: those with work left that are away come first."""
    owners = read_owners(page)
    text, show = page.text("q").lower(), page.text("show")
    shown = [one for one in owners if _fits(one, show) and text in one["name"].lower()]
    return {
        "owners": shown,
        "total": len(owners),
        "online": sum(one["online"] for one in owners),
        "q": page.text("q"),
        "show": show,
    }


def command(page: Page) -> Sequence[str]:
    """Return the command that lists owners."""
    return ("owner", "list")


def read_owners(page: Page) -> list[dict[str, Any]]:
    """Return all owners as values, those that somebody should look after first.

    Raises:
        DisinheritError: if a call fails.
    """
    pages = page.visitor.pages(lambda stub: stub.ListOwners, pb.ListOwnersRequest())
    owners = [_values(one) for part in pages for one in part.owners]
    owners.sort(key=lambda one: (not one["missing"], one["online"], one["name"]))
    return owners


def _fits(owner: Mapping[str, Any], show: str) -> bool:
    if show == "pending":
        return bool(owner["pending_tasks"])
    return show not in ("online", "offline") or owner["online"] == (show == "online")


def _values(owner: pb.Owner) -> dict[str, Any]:
    gone = now().timestamp() - owner.last_seen_us / 1e6 > AWAY.total_seconds()
    return {
        "name": owner.name,
        "online": owner.online,
        "last_seen": as_time(owner.last_seen_us),
        "way": owner.way or None,
        "release": owner.release or None,
        "models": owner.models,
        "active_models": owner.active_models,
        "pending_tasks": owner.pending_tasks,
        "hours": owner.hours or None,
        "bytes_per_second": owner.bytes_per_second or None,
        "downloaded_bytes": owner.downloaded_bytes or None,
        "download_seconds": owner.download_us / 1e6 if owner.download_us else None,
        "bandwidth": bandwidth(owner.downloaded_bytes, owner.download_us, owner.bytes_per_second),
        "access": owner.access or None,
        "access_since": as_time(owner.access_us),
        "missing": bool(owner.pending_tasks) and not owner.online and gone,
        "away": bool(owner.active_models and owner.last_seen_us) and not owner.online and gone,
    }
