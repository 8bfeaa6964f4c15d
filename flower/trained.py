"""What an app has trained, by the records of the server, and which requests it can forget by."""

from collections.abc import Collection, Sequence
from pathlib import Path

from disinherit.common.errors import RequestError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.text import did_you_mean
from disinherit.flower.asked_for import AskedFor
from disinherit.flower.places import (
    HOME,
    SERVER,
    check_name,
    folder_of,
    home,
    known_apps,
    records_of,
)
from disinherit.flower.trainings import Trainings
from disinherit.server.store.store import CoordinatorStore


class TrainedUpdates:
    """The updates that nodes trained.

    Args:
        graph: the recorded lineage.

    Attributes:
        updates: those that their nodes kept.
        owners: all owners that trained, in alphabetical order.
        lost: versions of the updates that were not kept.
    """

    def __init__(self, graph: InheritanceGraph) -> None:
        others = (one for one in graph.models() if one.owner != SERVER)
        updates = [one for one in others if not graph.origins(one.id)]
        self.updates = [one for one in updates if one.provenance is not None]
        self.owners = sorted({one.owner for one in updates})
        self.lost = [one.id for one in updates if one.provenance is None]

    def of_classes(self, classes: Sequence[str]) -> dict[str, list[str]]:
        """Return update -> the classes among some that it was trained on.

        Raises:
            RequestError: if no update was trained on one of them.
        """
        found: dict[str, list[str]] = {}
        for update in self.updates:
            counts = update.provenance.samples_per_class if update.provenance else {}
            if trained := [name for name in classes if counts.get(name)]:
                found[update.id] = trained
        missing = [name for name in classes if not any(name in one for one in found.values())]
        if missing:
            known = sorted({label for update in self.updates for label in update.labels})
            raise RequestError(
                f"Expected classes that a kept update was trained on ({', '.join(known)}), but got "
                f"{missing[0]!r}.{did_you_mean(missing[0], known)}"
            )
        return found

    def check_owners(self, names: Collection[str]) -> None:
        """Refuse owners that trained nothing.

        Raises:
            RequestError: if there is one.
        """
        for name in names:
            if name not in self.owners:
                raise RequestError(
                    f"Expected an owner that trained ({', '.join(self.owners)}), but got {name!r}."
                    f"{did_you_mean(name, self.owners)}"
                )


def check_trained(app: str, packages: Collection[str]) -> None:
    """Refuse to forget where this machine has no records of an app; none are made.

    Args:
        app: name of the app.
        packages: names of packages that are the app's.

    Raises:
        InputError: if there are only models of release 0.1.0 that may be the app's.
        RequestError: if there are none.
    """
    check_name(app, packages)
    if not records_of(app).is_file():
        raise nothing_trained(app)


def nothing_trained(app: str) -> RequestError:
    """Return the error for an app that has no models in the records of this machine."""
    known = [one for one in known_apps() if one != app]
    return RequestError(
        f"Expected models of {app!r} in {home()}, which has apps {', '.join(known) or 'none'}. "
        f"Train first, with a strategy of disinherit.flower; {HOME} names another folder."
    )


def check_request(app: str, packages: Collection[str], asked: AskedFor) -> None:
    """Refuse a request that this machine's records of an app show to be in vain.

    Args:
        app: name of the app.
        packages: names of packages that are the app's.
        asked: what is to be forgotten.

    Raises:
        RequestError: if nothing was trained, or not by these owners or on these classes, or there
            is no such sample.
    """
    check_trained(app, packages)
    store = CoordinatorStore(records_of(app))
    try:
        trained = TrainedUpdates(store.graph())
    finally:
        store.close()
    if not trained.owners:
        raise nothing_trained(app)
    trained.of_classes(asked.classes)
    trained.check_owners([*asked.samples, *([asked.client] if asked.client else [])])
    for owner, ids in asked.samples.items():
        _check_positions(folder_of(app, owner), owner, ids)


def _check_positions(folder: Path, owner: str, ids: Sequence[str]) -> None:
    """Refuse samples at impossible positions, if the node is on this machine, and has no ids."""
    size = Trainings(folder).positions()
    if size is None:
        return
    for id in ids:
        if not (id.isascii() and id.isdecimal() and str(int(id)) == id and int(id) < size):
            raise RequestError(
                f"Expected positions of samples in the data of {owner!r}, numbers from 0 to "
                f"{size - 1}, but got {id!r}."
            )
