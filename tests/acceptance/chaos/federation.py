"""The federation that faults are injected into: small real models on real owners, in a folder.

The folder is that of a simulated run, so that a fleet of real processes can serve it, too.
"""

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path

from disinherit.client.owner.owner import Owner
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import CampaignError, DisinheritError
from disinherit.common.method import Method
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.wire.requests import Request
from disinherit.direct import DirectTransport
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.campaign.result import CampaignResult
from disinherit.server.store.database import Database
from disinherit.server.store.log_mark import mark_file
from disinherit.server.store.signed_log import accept_log
from disinherit.server.store.signing import open_signer
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.transport.base import Transport
from disinherit.simulations.run.folder import DATABASE, open_store, prepare_folder
from disinherit.simulations.run.owners import SimulatedOwner
from disinherit.simulations.run.replaying import fit_of, start_of
from disinherit.simulations.run.training import fit_model
from disinherit.simulations.scenario.forgetting import Forgetting
from disinherit.simulations.scenario.inheriting import Weights
from disinherit.simulations.scenario.label_spaces import label_spaces
from disinherit.simulations.scenario.settings import Settings
from disinherit.simulations.scenario.shares import owner_name, share_out
from tests.support.owner import named
from tests.support.runs import copy_run

SETTINGS = Settings(
    dataset="digits",
    forget={"r1": ("3",), "r2": ("5",)},
    network="mlp",
    clients=4,
    limit=12,
    epochs=1,
    device="cpu",
    method=Method(alpha=1.0, lam=0.5, gauge=0.5),
)
"""Seven models of four owners: d and r3, s and r4, r1 and r6, r2."""

RETENTION_SECONDS = 30 * 24 * 3600
"""How long what was superseded is kept: longer than any run, so that nothing may be destroyed."""

LEASE_SECONDS = 0.2
"""How long a campaign stays with a coordinator that was killed: nobody wants to wait."""

_PASSES = 12
_PATIENCE_SECONDS = 30.0

Opener = Callable[[], AbstractContextManager[Owner]]


def make_request(request_id: str, root: str, label: str) -> Request:
    """Return a request to forget a class at a root."""
    return Request(
        id=request_id,
        reason="chaos",
        forget={root: [label]},
        method=SETTINGS.method,
        retention_seconds=RETENTION_SECONDS,
    )


REQUESTS = (make_request("first", "r1", "3"), make_request("second", "r2", "5"))
"""Classes that rounds in this process forget, one after the other."""


def make_delta_request(built: Path, request_id: str, root: str) -> Request:
    """Return a request to forget some samples of a root, and what changes by it in all others.

    Args:
        built: the federation; the key for digests of samples is made in its owner's folder.
        request_id: the request's id.
        root: the root.
    """
    index = SETTINGS.scenario.owner_of(root, SETTINGS.clients)
    with SimulatedOwner(SETTINGS, index, built) as owner:
        ids = owner.sample_ids(owner.store.record(root))[::4]
        listed = named(owner.store.root, ids)
    return Request(
        id=request_id,
        reason="chaos",
        samples={root: listed},
        method=Method(mechanism="delta", root_method="replay", repair_steps=0),
        retention_seconds=RETENTION_SECONDS,
    )


def delta_requests(built: Path) -> tuple[Request, Request]:
    """Return samples that rounds in this process forget, and then a class above them.

    The samples' root is the only model of its owner: nobody else can measure so few of them.

    Args:
        built: the federation.
    """
    return make_delta_request(built, "first", "r2"), make_request("second", "r1", "3")


def build(folder: Path) -> None:
    """Train the models and register them.

    Args:
        folder: an empty one.

    Raises:
        CampaignError: if a model is not accepted.
    """
    prepare_folder(folder, SETTINGS)
    forgetting = Forgetting(SETTINGS, label_spaces(SETTINGS.scenario, share_out(SETTINGS).dataset))
    weights: dict[str, Weights] = {}
    with open_store(folder) as store:
        for age, derivation in enumerate(SETTINGS.scenario.derivations, start=1):
            index = SETTINGS.scenario.owner_of(derivation.id, SETTINGS.clients)
            fit = fit_of(derivation, forgetting, replay=False, created_us=age, keep=True)
            start = start_of(derivation, forgetting, weights)
            with SimulatedOwner(SETTINGS, index, folder) as owner:
                fitted = fit_model(owner, SETTINGS, fit, start)
            weights[derivation.id] = fitted.weights
            store.add_model(fitted.record, forgetting.spaces.edges(derivation))
        owners = openers(folder)
        errors = Coordinator(store, DirectTransport(owners)).register(list(owners), "head")
    if errors:
        raise CampaignError(f"Expected all models to be registered, but: {errors}")


def openers(folder: Path) -> dict[str, Opener]:
    """Return owner -> how to open it."""
    return {
        owner_name(index): functools.partial(SimulatedOwner, SETTINGS, index, folder)
        for index in range(SETTINGS.clients)
    }


def owner_folder(folder: Path, owner: str) -> Path:
    """Return where an owner keeps its models."""
    return folder / "owners" / owner


class World:
    """A copy of the federation, and the coordinator's lives over it.

    Args:
        built: what `build` made.
        folder: of the copy; made.
        database: URL of the coordinator's; `None` for the SQLite file in the copy.
        requests: what it is asked to forget, one after the other.

    Attributes:
        built: what it is a copy of.
        folder: of the copy.
        database: the same.
        requests: the same.
        owners: owner -> how to open it.
        key: file of the key that signs the coordinator's log.
        confirms: whether a person says that the coordinator may go on when it has lost history.
        confirmed: how often one has said so.
    """

    def __init__(
        self,
        built: Path,
        folder: Path,
        database: str | None = None,
        requests: Sequence[Request] = REQUESTS,
    ) -> None:
        copy_run(built, folder, database)
        self.built = built
        self.folder = folder
        self.database = database
        self.requests = requests
        self.owners = openers(folder)
        self.key = folder / "keys" / "signing.pem"
        self.key.parent.mkdir(exist_ok=True)
        open_signer(self.key)
        self.confirms = False
        self.confirmed = 0

    @property
    def transport(self) -> DirectTransport:
        """The way to the owners on which nothing goes wrong."""
        return DirectTransport(self.owners)

    def open_store(self) -> AbstractContextManager[CoordinatorStore]:
        """Open the coordinator's store, with the key that signs its log."""
        return open_store(self.folder, self.database, self.key)

    def submit(self, request: Request) -> None:
        """Submit a request, whatever becomes of it."""
        with self.open_store() as store:
            Coordinator(store, self.transport).submit(request)

    def live(self, request_id: str, transport: Transport) -> CampaignResult:
        """Make one pass over a campaign, with a coordinator that has just been started.

        Args:
            request_id: the campaign's request.
            transport: the way to the owners.

        Raises:
            DisinheritError: if something goes wrong that is no owner's fault.
        """
        with self.open_store() as store:
            return Coordinator(
                store, transport, lease_seconds=LEASE_SECONDS, patience=_PATIENCE_SECONDS
            ).run(request_id)

    def recover(self, request_id: str) -> None:
        """Make passes without faults until the campaign is complete, or it is clear that it stays.

        Args:
            request_id: the campaign's request.

        Raises:
            CampaignError: if it does not come to its end.
        """
        result = CampaignResult(request_id, {})
        for _ in range(_PASSES):
            if self.confirms:
                self.confirm_history()
            try:
                result = self.live(request_id, self.transport)
            except DisinheritError:
                if not (self.confirms and self.confirm_history()):
                    raise
                continue
            if result.tasks and all(task.state.settled for task in result.tasks.values()):
                return
        states = {model: f"{task.state}: {task.reason}" for model, task in result.tasks.items()}
        raise CampaignError(f"Expected campaign {request_id!r} to be complete, but got {states}.")

    def look_again(self, owner: str) -> None:
        """Ask an owner what it holds, as is done when it connects."""
        with self.open_store() as store:
            Coordinator(store, self.transport).check_held({owner})

    def confirm_history(self) -> bool:
        """Say that the coordinator may go on, and return whether it asks for that."""
        with self.open_store() as store:
            lost = store.history_lost()
        if lost:
            with closing(Database(self.database or self.folder / DATABASE)) as opened:
                accept_log(opened, mark_file(self.key), "administrator")
            self.confirmed += 1
        return bool(lost)


def held_by(folder: Path, owner: str) -> dict[str, str]:
    """Return every version that an owner holds, with the digest of its weights as they are read.

    Args:
        folder: of the federation.
        owner: the owner.

    Raises:
        StoreError: if its store is damaged.
        CheckpointError: if weights are not what their digest says.
    """
    with ModelStore(owner_folder(folder, owner), owner) as store:
        return {one.id: weights_digest(store.weights(one.id)) for one in store.records()}


def held_versions(folder: Path) -> dict[str, str]:
    """Return the same of all owners; the errors are those of `held_by`."""
    return {id: digest for name in openers(folder) for id, digest in held_by(folder, name).items()}
