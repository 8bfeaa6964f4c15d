"""Assembly of a running coordinator: store, driver, health and gRPC server."""

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import HealthServicer
from grpc_reflection.v1alpha import reflection

from disinherit.server.agents.fleet import Fleet
from disinherit.server.campaign.contact import Contacts
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.campaign.driver import Driver, OpenCampaigns
from disinherit.server.ports.interceptors import RefusalLog
from disinherit.server.ports.metering import CallMeter
from disinherit.server.recurring import Recurring
from disinherit.server.service.authentication import Authentication
from disinherit.server.service.documents import Records
from disinherit.server.service.feed import Feed
from disinherit.server.service.health import SERVICES, HealthMonitor, check_store
from disinherit.server.service.life_lines import log_events
from disinherit.server.service.listening import InnerPort, listen
from disinherit.server.service.metrics import ServiceMetrics
from disinherit.server.service.metrics_page import MetricsPage
from disinherit.server.service.models import Models
from disinherit.server.service.owners import Owners
from disinherit.server.service.plans import Plans
from disinherit.server.service.principals import TokenFile
from disinherit.server.service.renewal import keep_valid, renew
from disinherit.server.service.requests import Requests
from disinherit.server.service.servicer import CoordinatorServicer, add_to_server
from disinherit.server.service.settings import ServeSettings
from disinherit.server.service.setup import Setup
from disinherit.server.service.webhooks import Webhooks
from disinherit.server.store.database import Database
from disinherit.server.store.log_mark import mark_file
from disinherit.server.store.signed_log import SignedLog
from disinherit.server.store.signing import key_file, open_signer
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.transport.mailbox import Mailbox
from disinherit.server.transport.routing import Route, RoutedTransport

_LOOK_SECONDS = 1.0
"""Interval of polling the store for changes by other coordinators; a few short queries."""

_AGENTS_SECONDS = 1.0
"""How long a pass waits for agents: most answer within it, and slow ones do not block others."""

_PATIENCE_SECONDS = 2.0
"""Longer than a pass of another coordinator that does not wait for its owners."""


class Service:
    """A running coordinator.

    Args:
        settings: its settings.
        routes: routes to the owners.
        health_seconds: seconds between checks of the store.

    Attributes:
        port: its port.
        place: the database, without its password.
        fleet: the agent side; `None` if it serves no agents.
        setup: says how it is set up.
        inner: port for the dashboard beside it; `None` without one.
        metrics_page: serves metrics once it has started; `None` if none are to be served.

    Raises:
        InputError: if a setting cannot be used.
        StoreError: if the store cannot be used.
    """

    def __init__(
        self, settings: ServeSettings, routes: Sequence[Route] = (), health_seconds: float = 2.0
    ) -> None:
        self._settings = settings
        self.metrics_page: MetricsPage | None = None
        tokens = TokenFile(settings.tokens)
        self._authentication = Authentication(tokens)
        self._database = Database(settings.database)
        self.place = self._database.name
        self._metrics: ServiceMetrics | None = None
        interceptors: list[grpc.ServerInterceptor] = [RefusalLog(), self._authentication]
        if settings.metrics is not None:
            self._metrics = ServiceMetrics(self._database, self._queues())
            interceptors.insert(0, CallMeter(self._metrics.call_ended))
        self._server, self.port = listen(settings.listen, settings.tls, interceptors)
        self.inner = None if settings.ui is None else InnerPort(self._server)
        self._store = CoordinatorStore(self._database, settings.packets)
        self._store.signed_log = self._open_log(settings.signing_key)
        self._store.watch_history()
        self._mailboxes = [
            route.transport for route in routes if isinstance(route.transport, Mailbox)
        ]
        # The driver first: an agent may connect as soon as the fleet listens.
        self._driver = Driver(self._look, lambda id: coordinator.drive(id), _LOOK_SECONDS)
        self._contacts = Contacts(lambda owners: coordinator.check_held(owners))
        self.fleet: Fleet | None = None
        self._renewal: Recurring | None = None
        if settings.agents is not None:
            self.fleet = Fleet(settings.agents, self._database, self._connected)
            if settings.tls is not None:
                renew(self.fleet.authority, settings.tls)
                self._renewal = keep_valid(self.fleet.authority, settings.tls)
            transport = Mailbox(self.fleet.transport, self._driver.poke, _AGENTS_SECONDS)
            self._mailboxes.append(transport)
            routes = [*routes, Route(transport, self.fleet.reaches)]
        coordinator = Coordinator(self._store, RoutedTransport(routes), patience=_PATIENCE_SECONDS)
        self._open_campaigns = OpenCampaigns(coordinator)
        self._feed = Feed(self._store, log_events)
        self._webhooks = Webhooks(self._store, settings.webhooks)
        self.setup = Setup(
            settings,
            tokens,
            self._store,
            self._store.signed_log,
            self._count_agents,
            self._metrics_url,
        )
        servicer = CoordinatorServicer(
            Models(self._store, self._heard_of),
            Requests(
                coordinator,
                self._steered,
                self._feed,
                settings.approval,
                release=self._release,
            ),
            Records(self._store, self._store.signed_log),
            self.setup,
            Owners(self._store),
            Plans(coordinator),
            self._feed,
        )
        add_to_server(servicer, self._server)
        health = HealthServicer(experimental_non_blocking=False)
        health_pb2_grpc.add_HealthServicer_to_server(health, self._server)
        check = functools.partial(check_store, settings.database)
        self._monitor = HealthMonitor(health, check, health_seconds, self._store.history_lost)
        shown = (*SERVICES[1:], "grpc.health.v1.Health", reflection.SERVICE_NAME)
        reflection.enable_server_reflection(shown, self._server)

    def _look(self) -> Mapping[str, Hashable]:
        """Return the campaigns to drive, and check the models of newly connected owners."""
        campaigns = self._open_campaigns()
        if not self._store.history_lost():
            self._contacts.look()
        return campaigns

    def _open_log(self, named: Path | None) -> SignedLog | None:
        key = key_file(self._database, named)
        if key is None:
            return None
        return SignedLog(self._database, open_signer(key), mark_file(key))

    def _count_agents(self) -> int:
        return 0 if self.fleet is None else len(self.fleet.hub.sessions())

    def _metrics_url(self) -> str:
        if self._settings.metrics is None or self.metrics_page is None:
            return ""
        host = self._settings.metrics.rpartition(":")[0]
        return f"http://{host}:{self.metrics_page.port}/metrics"

    def _connected(self, owner: str) -> None:
        """Schedule new asks to a connected owner, and a check of its models."""
        self._contacts.arrived(owner)
        self._heard_of(owner)

    def _heard_of(self, owner: str) -> None:
        """Schedule new asks to an owner with news, of the campaigns that concern it."""
        for mailbox in self._mailboxes:
            mailbox.hear(owner)
        self._open_campaigns.hear(owner)
        self._driver.wake()

    def _steered(self, request_id: str) -> None:
        """Schedule a pass over a campaign that a person has changed."""
        self._open_campaigns.steered(request_id)
        self._driver.wake()

    def _release(self, request_id: str) -> None:
        """Schedule new asks to all owners for a resumed request."""
        for mailbox in self._mailboxes:
            mailbox.release(request_id)

    def _queues(self) -> dict[str, Callable[[], int]]:
        """Return what waits or is open, by name."""
        return {
            "agent_tasks": lambda: self.fleet.hub.open_tasks() if self.fleet is not None else 0,
            "writers": lambda: self._database.writers_waiting,
            "watches": lambda: self._feed.listeners,
        }

    def start(self) -> None:
        """Start to serve and to drive campaigns.

        Raises:
            InputError: if the metrics cannot be served at their address.
            StoreError: if the store cannot be used.
        """
        if self._metrics is not None and self._settings.metrics is not None:
            self.metrics_page = MetricsPage(self._settings.metrics, self._metrics.page)
        self._monitor.start()
        self._feed.start()
        self._webhooks.start()
        self._server.start()
        self._driver.start()

    def stop(self, grace: float = 5.0) -> None:
        """Refuse new calls, wait for open ones, and stop.

        Args:
            grace: seconds for open calls, and again for the current pass.
        """
        self._monitor.stop()
        stopped = self._server.stop(grace)
        self._feed.stop()  # ends watches, which would take all of that time
        self._webhooks.stop()
        stopped.wait()
        if self.inner is not None:
            self.inner.close()
        self._authentication.close()
        if self.metrics_page is not None:
            self.metrics_page.stop()
        if self._renewal is not None:
            self._renewal.stop()
        if self.fleet is not None:
            self.fleet.stop()
        self._driver.stop(grace)
        self._store.close()
