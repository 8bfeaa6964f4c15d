"""Handlers for who a caller is, and how the coordinator is set up; no secret is in either."""

import importlib.metadata
from collections.abc import Callable

from disinherit.server.now import now_us
from disinherit.server.service.principals import Principal, TokenFile
from disinherit.server.service.settings import ServeSettings
from disinherit.server.store.schema import find_revision
from disinherit.server.store.signed_log import SignedLog
from disinherit.server.store.signing import find_keys
from disinherit.server.store.store import CoordinatorStore
from disinherit.v1 import coordinator_pb2 as pb


class Setup:
    """Handlers of calls about callers and settings.

    Args:
        settings: of the service.
        tokens: the accepted tokens.
        store: the coordinator's store.
        seal: signs exports and attestations; `None` to sign nothing.
        agents: returns the number of connected agents.
        metrics: returns where metrics are served; `""` if they are not.
    """

    def __init__(
        self,
        settings: ServeSettings,
        tokens: TokenFile,
        store: CoordinatorStore,
        seal: SignedLog | None,
        agents: Callable[[], int],
        metrics: Callable[[], str],
    ) -> None:
        self._settings = settings
        self._tokens = tokens
        self._store = store
        self._seal = seal
        self._agents = agents
        self._metrics = metrics
        self._started_us = now_us()
        self._release = importlib.metadata.version("disinherit")

    def who(self, caller: Principal) -> pb.WhoAmIResponse:
        """Return a caller's name, role and the expiry of its token."""
        expires = {one.principal.name: one.expires_us for one in self._tokens.tokens()}
        return pb.WhoAmIResponse(
            name=caller.name,
            role=caller.role,
            owner=caller.owner,
            expires_us=expires.get(caller.name, 0),
            release=self._release,
            approval=self._settings.approval,
        )

    def system(self) -> pb.System:
        """Return settings, the state of the database, and the tokens without their secrets.

        Raises:
            StoreError: if the store cannot be used.
        """
        tls = self._settings.tls
        with self._store.reading() as db:
            kind, revision = db.dialect.name, find_revision(db)
            keys = [key for key in find_keys(db) if not key.until_us]
        return pb.System(
            release=self._release,
            started_us=self._started_us,
            database=kind,
            revision=revision or "",
            tls=tls is not None,
            client_certificates=tls is not None and tls.client_ca is not None,
            approval=self._settings.approval,
            serves_agents=self._settings.agents is not None,
            agents_online=self._agents(),
            metrics_url=self._metrics(),
            key_id=keys[-1].key_id if keys and self._seal is not None else "",
            tokens=[
                pb.AcceptedToken(
                    name=one.principal.name,
                    role=one.principal.written_role,
                    expires_us=one.expires_us,
                )
                for one in sorted(self._tokens.tokens(), key=lambda one: one.principal.name)
            ],
        )
