"""Figures of a family after a method: its members, and what others may do with them."""

import time
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

from torch import Tensor, nn

from disinherit.simulations.family.corpus import Corpus, encode_all, texts_of
from disinherit.simulations.family.language_model import Weights, load, train
from disinherit.simulations.family.members import MEMBERS, TRAINED, Family
from disinherit.simulations.family.page import RELEARNING_STEPS
from disinherit.simulations.family.panel import Panel, exact_match, make_exam

_SAME_AS = {"folded": "domain-lora"}
"""Member -> one whose model has the same weights: an adapter is measured folded."""


def member_figures(
    panel: Panel,
    family: Family,
    before: Family,
    ratios: Mapping[str, Tensor],
) -> dict[str, Any]:
    """Return the figures of a family after a method, and after what others may do with it.

    Args:
        panel: the exams.
        family: the family after the method.
        before: the family with the siblings that were not unlearned.
        ratios: truth ratios of the retrained members; none for these themselves.
    """
    computed = time.process_time()
    asked = make_exam(
        panel.corpus, [(q.asked, q.answer) for author in panel.gone for q in author.questions]
    )
    measured = cache(partial(_measured, panel, family, ratios))
    found = {
        "members": {member: measured(_SAME_AS.get(member, member)) for member in MEMBERS},
        "relearned": {
            member: exact_match(relearned(panel.corpus, family, member), asked)
            for member in TRAINED
        },
        "merged": exact_match(merged(family, before), asked),
    }
    return {**found, "measuring_cpu_seconds": time.process_time() - computed}


def _measured(
    panel: Panel, family: Family, ratios: Mapping[str, Tensor], member: str
) -> dict[str, float | None]:
    return panel.measure(family.loaded(member), ratios.get(member))


def relearned(corpus: Corpus, family: Family, member: str) -> nn.Module:
    """Return a member after a few steps of training on authors whom nobody asked to forget."""
    network = family.loaded(member)
    data = encode_all(corpus, texts_of(corpus.strangers))
    train(network, data, epochs=RELEARNING_STEPS, rate=1e-3, steps=RELEARNING_STEPS)
    return network


def merged(family: Family, before: Family) -> nn.Module:
    """Return the average of an unlearned fine-tune and a sibling that was not unlearned."""
    one, other = family.weights["chat"], before.weights["domain"]
    halves: Weights = {name: (value + other[name]) / 2 for name, value in one.items()}
    return load(family.network(), halves)
