"""Cases from declarations: train a network of models, retrain it exactly, and keep both.

    CaseSpec       what a case is, in a few values
    build_cases    trains what is not there yet, all in one start of the simulation engine
    open_case      reads one that is there

The models are trained through Flower's engine with the app of a deployment; the exact retraining
can be done again in this process, which gives the same weights (`replaying`).
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self, get_args

import torch
from flwr.serverapp import Grid

from disinherit.common.errors import DataError, InputError
from disinherit.server.flower.owners import NamedOwners
from disinherit.simulations.bench.cases.making import build_case, least_predictable
from disinherit.simulations.bench.cases.store import Trained, is_stored, load_trained, save_trained
from disinherit.simulations.bench.cases.subjects import BY_CLASS, Case, Granularity
from disinherit.simulations.data.backdoors import Backdoor
from disinherit.simulations.data.splits import seeded_generator
from disinherit.simulations.run.engine import simulate
from disinherit.simulations.run.fitting import warm_up
from disinherit.simulations.run.replaying import replay
from disinherit.simulations.run.trainer import SimulatedFleet
from disinherit.simulations.run.training import build_simulation_app
from disinherit.simulations.scenario.forgetting import Forgetting, SampleRequest
from disinherit.simulations.scenario.label_spaces import label_spaces
from disinherit.simulations.scenario.settings import Settings, check_forget
from disinherit.simulations.scenario.shares import SharedData, check_shares, share_out
from disinherit.simulations.scenario.topology import Topology


@dataclass(frozen=True, slots=True)
class CaseSpec:
    """The declaration of a case; everything in it follows from these values.

    Attributes:
        settings: of the run; its `forget` is what to forget by class, and empty for samples.
        granularity: what is to be forgotten.
        samples: how many samples are to be forgotten where they are chosen: `samples`,
            `memorised` and `backdoor`; 0 otherwise.
        root: the model at which samples enter, or the one whose owner leaves; `""` for the
            scenario's first root, and for class requests.

    Raises:
        InputError: if the values do not fit together.
    """

    settings: Settings
    granularity: Granularity = "class"
    samples: int = 0
    root: str = ""

    def __post_init__(self) -> None:
        if self.granularity not in get_args(Granularity):
            raise InputError(
                f"Expected a granularity among {', '.join(get_args(Granularity))}, but got "
                f"{self.granularity!r}."
            )
        named = sum(map(len, self.settings.forget.values()))
        expected = {"class": "one class", "classes": "two or more classes"}
        fits = {"class": named == 1, "classes": named > 1}.get(self.granularity, named == 0)
        if not fits:
            raise InputError(
                f"Expected {expected.get(self.granularity, 'no class')} to forget with granularity "
                f"{self.granularity!r}, but got {named}."
            )
        chosen = self.granularity in ("samples", "memorised", "backdoor")
        if chosen != (self.samples > 0):
            raise InputError(
                f"Expected {'samples > 0' if chosen else 'samples = 0'} with granularity "
                f"{self.granularity!r}, but got {self.samples}."
            )
        if self.root and (self.granularity in BY_CLASS or self.root not in self._topology.ids):
            raise InputError(
                f"Expected no root for classes and one among {', '.join(self._topology.ids)} "
                f"otherwise, but got {self.root!r}."
            )
        if self.settings.backdoor is not None:
            raise InputError("Expected the backdoor of a case to follow from it, but got one.")

    @property
    def name(self) -> str:
        """What the case is in short, with a digest of all of it."""
        settings = self.settings
        values = json.dumps(self.to_dict(), sort_keys=True).encode()
        parts = (settings.scenario.name, Path(settings.dataset).stem, settings.network)
        digest = hashlib.sha256(values).hexdigest()[:8]
        return "-".join((*parts, self.granularity, f"s{settings.seed}", digest))

    @property
    def entry(self) -> str:
        """The model at which samples enter, or the one whose owner leaves."""
        return self.root or self._topology.roots[0]

    @property
    def owner(self) -> int:
        """Index of the owner of `entry`."""
        return self._topology.owner_of(self.entry, self.settings.clients)

    def run_settings(self, data: SharedData) -> Settings:
        """Return the settings to train with: those of the case, with the backdoor planted.

        Args:
            data: of the case's settings.
        """
        if self.granularity != "backdoor":
            return self.settings
        spaces = label_spaces(self._topology, data.dataset)
        source, target = spaces.held[self.entry][:2]
        backdoor = Backdoor(self.owner, source, target, self.samples)
        return replace(self.settings, backdoor=backdoor)

    def to_dict(self) -> dict[str, Any]:
        """Return the declaration as JSON values."""
        return {
            "settings": self.settings.to_dict(),
            "granularity": self.granularity,
            "samples": self.samples,
            "root": self.root,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the declaration that `to_dict` gave.

        Raises:
            InputError: if the values are no declaration of a case.
        """
        try:
            return cls(**{**values, "settings": Settings.from_dict(values["settings"])})
        except (TypeError, KeyError) as error:
            raise InputError(f"Expected the declaration of a case, but: {error}.") from None

    @property
    def _topology(self) -> Topology:
        return self.settings.scenario


def forgetting_of(spec: CaseSpec) -> Forgetting:
    """Return what is to be forgotten in a case, in detail.

    Raises:
        InputError: if the declaration does not fit the data, or an owner lacks what it needs.
    """
    data = share_out(spec.settings)
    settings = spec.run_settings(data)
    spaces = label_spaces(settings.scenario, data.dataset)
    if spec.granularity in BY_CLASS:
        check_forget(settings.forget, data.dataset, settings.scenario)
        check_shares(settings, data)
        return Forgetting(settings, spaces)
    check_shares(settings, data)
    own = data.chosen(data.train[spec.owner], spaces.held[spec.entry])
    if spec.granularity == "client":
        return Forgetting(settings, spaces, SampleRequest(spec.owner, "", tuple(own.tolist())))
    if spec.granularity == "backdoor":
        planted = share_out(settings).planted
        assert planted is not None
        chosen = tuple(planted.tolist())
    else:
        if 2 * spec.samples > len(own):
            raise DataError(
                f"Expected to forget at most half of the {len(own)} samples that {spec.entry!r} is "
                f"trained on, but got {spec.samples}."
            )
        if spec.granularity == "memorised":
            chosen = least_predictable(settings, data, own, spec.samples)
        else:
            order = torch.from_numpy(seeded_generator(settings.seed).permutation(len(own)))
            chosen = tuple(own[order[: spec.samples]].sort().values.tolist())
    return Forgetting(settings, spaces, SampleRequest(spec.owner, spec.entry, chosen))


def build_cases(
    specs: Sequence[CaseSpec], folder: Path, say: Callable[[str], None] = lambda _: None
) -> None:
    """Train the cases that are not stored yet, in one start of the simulation engine.

    Each is stored as soon as it is there, so that what was cut short goes on where it was.

    Args:
        specs: declarations.
        folder: where cases are kept, each in a folder of its name.
        say: told what is happening.

    Raises:
        InputError: if a declaration does not fit its data; nothing is trained then.
        CampaignError: if a model could not be trained.
        CheckpointError: if a case cannot be stored.
    """
    missing = [spec for spec in specs if not is_stored(folder / spec.name)]
    if not missing:
        return
    asked = {spec.name: forgetting_of(spec) for spec in missing}
    runs = {name: forgetting.settings for name, forgetting in asked.items()}
    first = next(iter(runs.values()))
    clients = max(settings.clients for settings in runs.values())

    def main(grid: Grid) -> None:
        owners = NamedOwners(grid, expected=clients)
        for spec in missing:
            forgetting = asked[spec.name]
            say(f"training {spec.name}")
            fleet = SimulatedFleet(
                forgetting.settings, grid, owners, forgetting, run=spec.name, keep=False
            )
            train_seconds = fleet.train(lambda *_: None, lambda _: None)
            retrained, retrain_seconds = fleet.replay(forgetting.affected, lambda _: None)
            trained = Trained(
                fleet.weights,
                retrained,
                forgetting.request,
                share_out(forgetting.settings).digest,
                train_seconds,
                retrain_seconds,
            )
            save_trained(folder / spec.name, spec.to_dict(), trained)

    with tempfile.TemporaryDirectory(prefix="disinherit-") as scratch:
        app = build_simulation_app(first, Path(scratch), runs)
        simulate(main, app, clients, first.device)


def open_case(spec: CaseSpec, folder: Path) -> Case:
    """Read a case that `build_cases` stored, with the data it is about.

    Its `replay` trains in this process, with as many threads as an owner in the engine has, and
    with the data in memory already, so that it can be timed.

    Args:
        spec: its declaration.
        folder: where cases are kept.

    Raises:
        CheckpointError: if it is not there, damaged, or of other data.
        DataError: if the data set cannot be loaded.
    """
    warm_up()
    settings = spec.run_settings(share_out(spec.settings))
    data = share_out(settings)
    trained = load_trained(folder / spec.name, spec.to_dict(), data.digest)
    spaces = label_spaces(settings.scenario, data.dataset)
    forgetting = Forgetting(settings, spaces, trained.request)
    return build_case(spec.name, spec.granularity, forgetting, trained, partial(replay, forgetting))
