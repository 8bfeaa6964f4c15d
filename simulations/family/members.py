"""The members of a family: what each descends from, and how it is made.

A base; fine-tunes for conversations and for a domain; an adapter on each; a linear and a TIES merge
of the fine-tunes; an adapter folded into its base; 8-bit and 4-bit copies of merges, as
bitsandbytes makes them, and one of the folded model in the blocks of GGUF.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import peft
import torch
from torch import nn

from disinherit.common.graph.recipes import Recipe, as_recipe
from disinherit.common.models.devices import wait_for
from disinherit.common.recipes.blocks import unpacked
from disinherit.common.recipes.computing import Parent, compute
from disinherit.common.recipes.quantised import is_quantised, unquantised
from disinherit.simulations.family.copies import COPIES, layout
from disinherit.simulations.family.corpus import Corpus, encode_all
from disinherit.simulations.family.language_model import (
    CPU,
    Weights,
    load,
    make_network,
    state,
    train,
)

_RANK, _ALPHA = 4, 8


@dataclass(frozen=True, slots=True)
class FamilyMember:
    """How a member of the family is made.

    Attributes:
        parents: what it descends from.
        recipe: how it is computed from them; `None` if it is trained.
        adapter: whether it is an adapter on its parent.
    """

    parents: tuple[str, ...] = ()
    recipe: Recipe | None = None
    adapter: bool = False


MEMBERS: Mapping[str, FamilyMember] = {
    "base": FamilyMember(),
    "chat": FamilyMember(("base",)),
    "domain": FamilyMember(("base",)),
    "chat-lora": FamilyMember(("chat",), adapter=True),
    "domain-lora": FamilyMember(("domain",), adapter=True),
    "linear": FamilyMember(("chat", "domain"), as_recipe("linear weights=0.5,0.5")),
    "ties": FamilyMember(("base", "chat", "domain"), as_recipe("ties density=0.5 weights=1,1")),
    "folded": FamilyMember(("domain", "domain-lora"), as_recipe(f"fold scale={_ALPHA / _RANK}")),
    "int8": FamilyMember(("linear",), Recipe("int8")),
    "nf4": FamilyMember(("ties",), Recipe("nf4")),
    "q4_0": FamilyMember(("folded",), Recipe("q4_0")),
}
"""The members, parents first."""

TRAINED = tuple(name for name, one in MEMBERS.items() if one.recipe is None and not one.adapter)


@dataclass(frozen=True, slots=True)
class Size:
    """How large a family is.

    Attributes:
        authors: fictitious authors whom the base is trained on.
        width: width of the hidden states.
        layers: number of blocks.
        epochs: passes of the base over its texts.
        further: passes of each descendant over its own.
    """

    authors: int
    width: int
    layers: int
    epochs: int
    further: int


QUICK = Size(authors=40, width=96, layers=3, epochs=30, further=6)
FULL = Size(authors=200, width=128, layers=4, epochs=24, further=6)


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """The weights of a family.

    Attributes:
        size: how large it is.
        vocabulary: number of tokens.
        weights: member -> weights; of an adapter, its tensors alone, under PEFT's names.
        start: weights that the training of the base started from.
        halfway: weights in the middle of that training.
        base_seconds: time that it took to train the base.
        seconds: time that it took to make all members.
        cpu_seconds: time that the process computed for it; `None` if that was not measured.
    """

    size: Size
    vocabulary: int
    weights: Mapping[str, Weights]
    start: Weights
    halfway: Weights
    base_seconds: float
    seconds: float
    cpu_seconds: float | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.start.values())).device

    def network(self) -> nn.Module:
        """Return a network for the members, where their weights are."""
        return make_network(self.vocabulary, self.size.width, self.size.layers, self.device)

    def plain(self, member: str) -> Weights:
        """Return the weights of a member as a model: adapters folded, copies in float32."""
        weights = self.weights[member]
        one = MEMBERS[member]
        if one.adapter:
            parents = [self.weights[one.parents[0]], weights]
            return _computed(MEMBERS["folded"].recipe, parents, parents[0])
        if one.recipe is None or one.recipe.name not in COPIES:
            return weights
        parent = self.weights[one.parents[0]]
        if one.recipe.name == "q4_0":
            return {
                name: unpacked("q4_0", value, parent[name].shape)
                if value.dtype == torch.uint8
                else value
                for name, value in weights.items()
            }
        return {
            name: unquantised(weights, name, value.shape)
            if is_quantised(weights, name)
            else weights[name]
            for name, value in parent.items()
        }

    def loaded(self, member: str) -> nn.Module:
        """Return a member as a network."""
        return load(self.network(), self.plain(member))


def data_of(corpus: Corpus, member: str) -> dict[str, list[int]]:
    """Return what a member is trained on itself: sample id -> tokens; nothing if it is computed."""
    texts = {
        "base": corpus.base_texts,
        "chat": corpus.chat_texts,
        "chat-lora": corpus.chat_texts,
        "domain": corpus.domain_texts,
        "domain-lora": corpus.domain_texts,
    }
    return encode_all(corpus, texts[member]()) if member in texts else {}


def build(
    corpus: Corpus,
    size: Size,
    seed: int,
    without: Collection[str] = (),
    device: torch.device = CPU,
) -> Family:
    """Train a whole family.

    Args:
        corpus: the texts.
        size: how large it is.
        seed: of the order of samples, and of adapters.
        without: ids of samples of the base that are left out.
        device: where to compute, and where the weights are then.
    """
    vocabulary = corpus.tokenizer.get_vocab_size()
    network = make_network(vocabulary, size.width, size.layers, device)
    start = state(network)
    weights: dict[str, Weights] = {}
    halfway: list[Weights] = []
    seconds, began, computed = 0.0, time.perf_counter(), time.process_time()
    for member, one in MEMBERS.items():
        if one.recipe is not None:
            continue
        data = data_of(corpus, member)
        if one.adapter:
            weights[member] = train_adapter(
                load(
                    make_network(vocabulary, size.width, size.layers, device),
                    weights[one.parents[0]],
                ),
                data, size.further, seed,
            )  # fmt: skip
            continue
        load(network, weights[one.parents[0]] if one.parents else start)
        if one.parents:
            train(network, data, epochs=size.further, rate=1e-3, seed=seed, without=without)
        else:
            started = time.perf_counter()
            train(
                network, data, epochs=size.epochs, rate=4e-3, seed=seed, without=without,
                halfway=lambda: halfway.append(state(network)),
            )  # fmt: skip
            wait_for(device)
            seconds = time.perf_counter() - started
        weights[member] = state(network)
    family = derive(Family(size, vocabulary, weights, start, halfway[0], seconds, 0.0))
    wait_for(device)
    return replace(
        family, seconds=time.perf_counter() - began, cpu_seconds=time.process_time() - computed
    )


def train_adapter(
    network: nn.Module, data: Mapping[str, list[int]], epochs: int, seed: int
) -> Weights:
    """Train a LoRA adapter on a network, and return its tensors under PEFT's names."""
    adapted = adapter_of(network, seed)
    train(adapted, data, epochs=epochs, rate=4e-3, seed=seed)
    found = peft.get_peft_model_state_dict(adapted)
    return {name: value.detach().clone() for name, value in found.items()}


def adapter_of(network: nn.Module, seed: int) -> Any:
    """Return a new LoRA adapter on a network, which is changed in place, as PEFT has it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return peft.get_peft_model(
            network,
            peft.LoraConfig(
                r=_RANK,
                lora_alpha=_ALPHA,
                target_modules=["q_proj", "v_proj"],
                task_type="CAUSAL_LM",
            ),
        )


def derive(family: Family) -> Family:
    """Return a family with all members that are computed from others made anew."""
    weights = {name: family.weights[name] for name, one in MEMBERS.items() if one.recipe is None}
    for member, one in MEMBERS.items():
        if one.recipe is None:
            continue
        parents = [weights[parent] for parent in one.parents]
        like = parents[0]
        if one.recipe.name in COPIES:
            like = layout(one.recipe.name, parents[0])
        weights[member] = _computed(one.recipe, parents, like)
    return replace(family, weights=weights)


def _computed(recipe: Recipe | None, parents: list[Weights], like: Weights) -> Weights:
    assert recipe is not None
    return compute(recipe, [Parent(lambda one=one: one, 1.0) for one in parents], like)  # type: ignore[misc]
