"""Training with and without what is to be forgotten, for each model of a run.

Classes and samples *enter* at a root: that model and its descendants are trained on them, no other
model is.  A client's whole contribution is what all of its models were trained on.
"""

from dataclasses import dataclass, field

from disinherit.simulations.scenario.label_spaces import LabelSpaces
from disinherit.simulations.scenario.settings import Settings


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """Samples of one owner that are to be forgotten.

    Attributes:
        owner: index of the owner.
        entry: the model at which they enter; `""` for a client's whole contribution.
        indices: the samples, in the data set's pool.
    """

    owner: int
    entry: str
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Forgetting:
    """What is to be forgotten where: classes, as in the settings, or samples.

    Attributes:
        settings: of the run; their `forget` is empty where samples are to be forgotten.
        spaces: label spaces of the models.
        request: the samples, if it is samples.
        roots: models that are trained directly on what is to be forgotten, parents first.
        affected: the roots and their descendants, parents first.
    """

    settings: Settings
    spaces: LabelSpaces
    request: SampleRequest | None = None
    roots: tuple[str, ...] = field(init=False)
    affected: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        topology = self.settings.scenario
        request = self.request
        if request is None:
            roots = set(self.settings.forget)
        else:
            below = topology.descendants(request.entry) if request.entry else set(topology.ids)
            roots = {m for m in below if self._owner(m) == request.owner}
        affected = {model for root in roots for model in topology.descendants(root)}
        object.__setattr__(self, "roots", tuple(m for m in topology.ids if m in roots))
        object.__setattr__(self, "affected", tuple(m for m in topology.ids if m in affected))

    def classes_left_out(self, model: str, *, replay: bool) -> tuple[str, ...]:
        """Return the data set's classes that a model's training, or its replay, leaves out."""
        ask = self.spaces.left_out if replay else self.spaces.never_trained
        return ask(model, self.settings.forget)

    def samples_left_out(self, model: str, *, replay: bool) -> tuple[int, ...]:
        """Return the samples that a model's training, or its replay, leaves out."""
        if self.request is None or self._owner(model) != self.request.owner:
            return ()
        return self.request.indices if replay or model not in self.roots else ()

    def has_left(self, model: str) -> bool:
        """Whether a model's owner has left: its replay is then what its training started from."""
        request = self.request
        return request is not None and not request.entry and self._owner(model) == request.owner

    def _owner(self, model: str) -> int:
        return self.settings.scenario.owner_of(model, self.settings.clients)
