"""Dampening: the root's own Fisher information selects and shrinks parameters, as FIUn does.

Its change is a change like any other, so descendants may inherit it in the place of the Fisher
information.
"""

from dataclasses import dataclass, replace

from disinherit.client.dampening.known_heads import find_structure
from disinherit.client.dampening.one import dampen_model
from disinherit.client.dampening.summaries import class_fishers
from disinherit.client.owner.owner import load_network
from disinherit.client.roots.root_method import RootProblem, UnlearnedRoot
from disinherit.common.wire.packets import PackedFisher


@dataclass(frozen=True, slots=True)
class RootDampening:
    """Selective dampening of the root."""

    name: str = "dampening"

    def refusal(self, problem: RootProblem) -> str:
        """Refuse roots whose samples to forget are gone."""
        if problem.forget is None:
            return f"The samples that model {problem.record.id!r} has to forget are gone."
        return ""

    def unlearn(self, problem: RootProblem) -> UnlearnedRoot:
        """Return the dampened root.

        Raises:
            DisinheritError: as `dampen_model` does.
        """
        owner, record = problem.owner, problem.record
        assert problem.forget is not None
        network = load_network(owner, record, problem.weights)
        head = find_structure(owner, record, network).head
        fisher = class_fishers(owner, record, network, problem.names, problem.forget).total()
        first, *others = head.layers if head else (None,)
        packet = PackedFisher(
            values={name: fisher.values[name] for name in problem.names},
            labels=record.labels,
            head_weight=first.weight if first else "",
            head_bias=(first.bias or "") if first else "",
            sources=(record.id,),
            classes=(),
            samples=fisher.count,
            further_heads=tuple(name for layer in others if layer for name in layer.parameters),
        )
        del network
        method = replace(problem.method, mechanism="fisher")
        args = owner, record, packet, method, problem.samples, problem.request_id
        with dampen_model(*args) as dampened:
            weights = dict(dampened.weights)
        chosen = sum(sum(one.rows) for one in dampened.result.selections)
        total = sum(one.total for one in dampened.result.selections)
        return UnlearnedRoot(
            weights,
            steps=dampened.result.repair_steps,
            note=f"{chosen} of {total} values dampened",
        )
