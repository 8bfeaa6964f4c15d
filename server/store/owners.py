"""Owners that the coordinator knows: by a version, a task, their access or a connection."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, select, union

from disinherit.server.now import now_us
from disinherit.server.states import CampaignState, TaskState
from disinherit.server.store.presence import Presence, find_presence
from disinherit.server.store.tables import (
    AGENT_KEYS,
    CAMPAIGNS,
    ENROLMENT_TOKENS,
    MODELS,
    PRESENCE,
    REVOCATIONS,
    TASKS,
    parse,
)
from disinherit.v1.graph_pb2 import MODEL_STATUS_ACTIVE, ModelRecord

_OPEN_TASKS = [state.value for state in TaskState if not state.settled]
_OPEN_CAMPAIGNS = [
    state.value
    for state in CampaignState
    if not state.ended or state is CampaignState.HALTED  # which a person may resume
]


@dataclass(frozen=True, slots=True)
class Access:
    """The access of an owner's agent.

    Attributes:
        state: `invited`, `enrolled` or `revoked`.
        at_us: since when, in microseconds since the epoch; of an invitation, until when.
    """

    state: str
    at_us: int


@dataclass(frozen=True, slots=True)
class KnownOwner:
    """An owner.

    Attributes:
        name: its name.
        presence: its connection; `None` if it never was connected.
        models: the number of its registered versions.
        active_models: how many of them are in use.
        pending_tasks: its models that campaigns still have to reach.
        access: of its agent; `None` if none was ever invited.
    """

    name: str
    presence: Presence | None
    models: int
    active_models: int
    pending_tasks: int
    access: Access | None


def page_owners(db: Connection, after: str, count: int, only: str = "") -> list[KnownOwner]:
    """Return a page of the owners, by name.

    Args:
        db: a transaction.
        after: the last owner of the page before; `""` for the first page.
        count: the largest number of owners.
        only: only the owner of this name; `""` for all.
    """
    columns = (
        MODELS.c.owner,
        TASKS.c.owner,
        PRESENCE.c.owner,
        ENROLMENT_TOKENS.c.owner,
        AGENT_KEYS.c.owner,
    )
    names: set[str] = set()
    for column in columns:  # each uses its own index, and the fewest names are sorted
        query = select(column).distinct().where(column > after)
        if only:
            query = query.where(column == only)
        names.update(db.scalars(query))
    page = sorted(names)[:count]
    present = find_presence(db, page)
    models, active = _count_models(db, page)
    pending = _count_pending(db, page)
    access = _find_access(db, page)
    return [
        KnownOwner(
            name, present.get(name), models[name], active[name], pending[name], access.get(name)
        )
        for name in page
    ]


def count_owners(db: Connection) -> int:
    """Return the number of owners with a version, or that were ever connected."""
    known = union(select(MODELS.c.owner), select(PRESENCE.c.owner)).subquery()
    return db.scalar(select(func.count()).select_from(known)) or 0


def _count_models(db: Connection, owners: Collection[str]) -> tuple[Counter[str], Counter[str]]:
    """Return the numbers of versions by owner: of all, and of those in use."""
    models: Counter[str] = Counter()
    active: Counter[str] = Counter()
    query = select(MODELS.c.owner, MODELS.c.record).where(MODELS.c.owner.in_(owners))
    for row in db.execute(query):
        models[row.owner] += 1
        active[row.owner] += parse(ModelRecord, row.record).status == MODEL_STATUS_ACTIVE
    return models, active


def _count_pending(db: Connection, owners: Collection[str]) -> Counter[str]:
    query: Select[Any] = (
        select(TASKS.c.owner, func.count())
        .join(CAMPAIGNS, CAMPAIGNS.c.request_id == TASKS.c.request_id)
        .where(
            TASKS.c.owner.in_(owners),
            TASKS.c.state.in_(_OPEN_TASKS),
            CAMPAIGNS.c.state.in_(_OPEN_CAMPAIGNS),
        )
        .group_by(TASKS.c.owner)
    )
    return Counter(_by_owner(db, query))


def _by_owner(db: Connection, query: Select[Any]) -> dict[str, int]:
    """Return owner -> number, of a query with both columns."""
    return {row[0]: row[1] for row in db.execute(query)}


def _find_access(db: Connection, owners: Collection[str]) -> dict[str, Access]:
    """Return owner -> its agent's access; the latest word counts."""
    keys = select(AGENT_KEYS.c.owner, func.max(AGENT_KEYS.c.enrolled_us))
    keys = keys.where(AGENT_KEYS.c.owner.in_(owners)).group_by(AGENT_KEYS.c.owner)
    enrolled = _by_owner(db, keys)
    query = select(REVOCATIONS).where(REVOCATIONS.c.owner.in_(owners))
    revoked = {row.owner: row.revoked_us for row in db.execute(query)}
    tokens = select(ENROLMENT_TOKENS.c.owner, func.max(ENROLMENT_TOKENS.c.expires_us))
    unspent = ENROLMENT_TOKENS.c.owner.in_(owners), ENROLMENT_TOKENS.c.key_sha256 == ""
    tokens = tokens.where(*unspent).group_by(ENROLMENT_TOKENS.c.owner)
    invited = _by_owner(db, tokens)
    found: dict[str, Access] = {}
    now = now_us()
    for owner in owners:
        if enrolled.get(owner, -1) > revoked.get(owner, -1):
            found[owner] = Access("enrolled", enrolled[owner])
        elif invited.get(owner, 0) > now or (owner in invited and owner not in revoked):
            found[owner] = Access("invited", invited[owner])
        elif owner in revoked:
            found[owner] = Access("revoked", revoked[owner])
    return found
