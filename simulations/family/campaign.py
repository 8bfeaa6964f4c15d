"""A family as models of an owner, and a request to it as a campaign, in one process.

The methods of the benchmark compute what a campaign does, without stores and messages; here it is
done with them.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor

from disinherit.client.huggingface.owner import HuggingFaceOwner
from disinherit.client.owner.owner import load_network
from disinherit.client.privacy.sample_keys import sample_key
from disinherit.client.roots.ekfac import EkfacStep
from disinherit.client.roots.problems import root_problem
from disinherit.client.store.store import ModelStore
from disinherit.common.curvature.ekfac import Curvature, measure
from disinherit.common.errors import CampaignError
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.common.method import Method
from disinherit.common.wire.requests import Request
from disinherit.common.wire.roll_out import RollOut
from disinherit.common.wire.samples import SALT_BYTES, digest_samples
from disinherit.direct import DirectTransport
from disinherit.families.merges import LEAST_SHARE
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.store.store import CoordinatorStore
from disinherit.simulations.family.copies import COPIES
from disinherit.simulations.family.language_model import CPU, Weights, load, moved
from disinherit.simulations.family.members import MEMBERS, Family, adapter_of, data_of
from disinherit.simulations.family.problem import FamilyProblem

_LAB = "lab"
_REQUEST = "family"


def measure_curvature(family: Family, data: Mapping[str, Sequence[int]]) -> Curvature:
    """Return the curvature that is registered with the base, over all that it was trained on."""
    alike = dict(sorted(data.items(), key=lambda one: len(one[1])))  # so that little is padded
    with _lab(family.device) as lab:
        record = _add_base(lab, family, alike, None)
        batches = lab.training_data(record)
        assert batches is not None
        network = load_network(lab, record, lab.store.weights(record.id))
        names = [name for name, _ in network.named_parameters()]
        return measure(network, names, batches, lab.device)


def step_root(problem: FamilyProblem) -> Weights:
    """Return the base after root method `ekfac`, as far as its registered curvature allows.

    There is no tuning split: a model that forgets some authors is more surprised by unseen ones,
    too, by more than what that method lets a split bear.
    """
    family = problem.family
    with _lab(family.device) as lab:
        data = {**problem.forget, **problem.retain}
        record = _add_base(lab, family, data, problem.replayed)
        lab.store.set_curvature(record.id, problem.curvature())
        found = root_problem(lab, record, Method(scope="all"), _REQUEST, list(problem.forget))
        return moved(EkfacStep().unlearn(found).weights, family.device)


def run_campaign(problem: FamilyProblem, method: Method) -> dict[str, Weights]:
    """Forget the samples in the whole family with one campaign over temporary stores.

    Quantised copies are left out: they are models of a folder, which their library writes.

    Args:
        problem: what is to be forgotten.
        method: how, with a root method.

    Returns:
        Member -> weights of its successor; those of an adapter with its base.

    Raises:
        CampaignError: if a member was not changed.
    """
    with _lab(problem.family.device) as lab:
        store = CoordinatorStore(lab.store.root / "coordinator.db")
        coordinator = Coordinator(store, DirectTransport({_LAB: lambda: nullcontext(lab)}))
        try:
            for record, edges in _members(lab, problem):
                store.add_model(record, edges)
            if method.root_method == "ekfac":
                lab.store.set_curvature("base", problem.curvature())
            key = sample_key(lab.store.root)
            listed = digest_samples(key, "00" * SALT_BYTES, list(problem.forget))
            # What a method costs is measured, whatever it is.
            bounds = RollOut(max_retain_drop=100)
            coordinator.submit(
                Request(id=_REQUEST, samples={"base": listed}, method=method, roll_out=bounds)
            )
            result = coordinator.run(_REQUEST)
        finally:
            store.close()
        made: dict[str, Weights] = {}
        for member, task in result.tasks.items():
            successor = task.result.successor.id if task.result else ""
            if not successor:
                raise CampaignError(f"Expected {member!r} to be unlearned in, but: {task.reason}.")
            made[member] = dict(lab.store.weights(successor))
        return made


@contextmanager
def _lab(device: torch.device) -> Iterator[HuggingFaceOwner]:
    with (
        tempfile.TemporaryDirectory() as name,
        HuggingFaceOwner(ModelStore(Path(name), _LAB), device) as lab,
    ):
        yield lab


def _add_base(
    lab: HuggingFaceOwner,
    family: Family,
    data: Mapping[str, Sequence[int]],
    replayed: Weights | None,
) -> ModelRecord:
    def again(rows: Any) -> Mapping[str, Tensor]:
        """Return what each training gave."""
        if rows is None:
            return moved(family.start, CPU)
        assert replayed is not None
        return moved(family.weights["base"] if len(rows) == len(data) else replayed, CPU)

    return lab.add(
        "base",
        family.loaded("base").cpu(),
        _rows(data),
        ids="id",
        retrain=again,
        curvature=True,
    )


def _members(
    lab: HuggingFaceOwner, problem: FamilyProblem
) -> Iterator[tuple[ModelRecord, list[Inheritance]]]:
    """Add the members to the owner; yield each with its edges."""
    family = problem.family
    base = {**problem.forget, **problem.retain}
    unseen = _rows({str(at): row for at, row in enumerate(problem.strangers)})
    yield _add_base(lab, family, base, problem.replayed), []
    for member, one in MEMBERS.items():
        if not one.parents or (one.recipe is not None and one.recipe.name in COPIES):
            continue
        network: Any = load(family.network().cpu(), family.weights[one.parents[0]])
        if one.adapter:
            network = adapter_of(network, 0)
            peft.set_peft_model_state_dict(network, dict(family.weights[member]))
        else:
            load(network, family.weights[member])
        data = data_of(problem.corpus, member)
        own = _rows(data) if data else None
        record = lab.add(member, network, own, evaluation=unseen, ids="id")
        weights = _shares(member)
        yield (
            record,
            [
                Inheritance(
                    parent,
                    member,
                    InheritanceKind.DISTRIBUTED if one.recipe else InheritanceKind.TRANSFER,
                    weight=weights[place],
                    recipe=one.recipe,
                    place=place + 1 if one.recipe else 0,
                )
                for place, parent in enumerate(one.parents)
            ],
        )


def _shares(member: str) -> Sequence[float]:
    """Return the shares of a member's parents, to first order, as an import records them."""
    return {
        "linear": (0.5, 0.5),
        "ties": (LEAST_SHARE, 0.5, 0.5 - LEAST_SHARE),
        "folded": (LEAST_SHARE, 1 - LEAST_SHARE),
    }.get(member, (1.0,))


def _rows(data: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    return [{"id": id, "input_ids": list(tokens)} for id, tokens in data.items()]
