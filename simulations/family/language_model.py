"""The language model of a family: a small decoder of transformers, and how it is trained."""

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from disinherit.simulations.family.corpus import IGNORED, PAD, pad

Weights = dict[str, Tensor]

CPU = torch.device("cpu")

BATCH = 32
_POOL = 8 * BATCH  # sequences among which those of like length are put together


def make_network(vocabulary: int, width: int, layers: int, device: torch.device = CPU) -> nn.Module:
    """Return a decoder with Llama's architecture and tied embeddings, the same each time.

    Args:
        vocabulary: number of tokens.
        width: of the hidden states, a multiple of 4.
        layers: number of blocks.
        device: where it computes; its weights are drawn on the CPU.
    """
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: nn.Module = LlamaForCausalLM(config)
    return network.to(device)


def on_device(
    network: nn.Module, rows: Sequence[Sequence[int]], places: Sequence[Collection[int]] = ()
) -> tuple[Tensor, Tensor]:
    """Return tokens and targets as `pad` does, on the device of a network."""
    device = next(network.parameters()).device
    tokens, targets = pad(rows, places)
    return tokens.to(device), targets.to(device)


def token_losses(network: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of each token after the first, `[n, length - 1]`, in nats.

    Tokens without a loss have 0.
    """
    logits = network(input_ids=tokens, attention_mask=(tokens != PAD).long()).logits
    return nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), targets[:, 1:], ignore_index=IGNORED, reduction="none"
    )


def sequence_losses(network: nn.Module, rows: Sequence[Sequence[int]]) -> Tensor:
    """Return the mean loss per token of each sequence, `[n]`."""
    groups = like_lengths(rows, 2 * BATCH)
    with torch.no_grad():
        found = torch.cat([each_loss(network, [rows[at] for at in group]) for group in groups])
    return in_order(found, groups)


def like_lengths(rows: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """Return places of sequences in batches of like length, so that little is padded.

    Args:
        rows: the sequences.
        size: most of a batch.
    """
    order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
    return [order[at : at + size] for at in range(0, len(order), size)]


def in_order(found: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """Return what was found for each sequence, batch after batch, in their own order, `[n]`."""
    places = torch.tensor([at for group in groups for at in group], device=found.device)
    return torch.empty_like(found).index_copy_(0, places, found)


def each_loss(network: nn.Module, rows: Sequence[Sequence[int]]) -> Tensor:
    """Return the mean loss per token of each sequence of a batch, `[n]`, with its graph."""
    tokens, targets = on_device(network, rows)
    losses = token_losses(network, tokens, targets)
    return losses.sum(1) / (targets[:, 1:] != IGNORED).sum(1)


def batches(
    sequences: Mapping[str, Sequence[int]], epochs: int, seed: int, without: Collection[str] = ()
) -> Iterable[list[str]]:
    """Yield the ids of each batch of a training, with sequences of like length together.

    The order is the same with and without left out sequences, so that training again differs from
    training in these alone.

    Args:
        sequences: all sequences, by id.
        epochs: passes over them.
        seed: of the order.
        without: ids that are left out of the batches.
    """
    chance = random.Random(seed)
    for _ in range(epochs):
        order = list(sequences)
        chance.shuffle(order)
        for at in range(0, len(order), _POOL):
            pool = sorted(order[at : at + _POOL], key=lambda id: len(sequences[id]))
            groups = [pool[first : first + BATCH] for first in range(0, len(pool), BATCH)]
            chance.shuffle(groups)
            for group in groups:
                if kept := [id for id in group if id not in without]:
                    yield kept


def train(
    network: nn.Module,
    sequences: Mapping[str, Sequence[int]],
    *,
    epochs: int,
    rate: float,
    seed: int = 0,
    without: Collection[str] = (),
    loss: Callable[[nn.Module, list[str]], Tensor] | None = None,
    steps: int | None = None,
    warm: bool = True,
    halfway: Callable[[], None] | None = None,
) -> None:
    """Train the parameters of a network that require gradients, in place.

    AdamW with a learning rate that rises over a tenth of the steps and falls to zero, or a constant
    one.

    Args:
        network: the network.
        sequences: token sequences, by id.
        epochs: passes over them.
        rate: highest learning rate.
        seed: of the order.
        without: ids that are left out.
        loss: loss of a batch of ids; the mean loss per token without one.
        steps: number of steps, at which it ends early.
        warm: whether the learning rate rises and falls.
        halfway: is called in the middle.
    """
    parameters = [one for one in network.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    most = steps or sum(1 for _ in batches(sequences, epochs, seed))
    network.train()
    for step, ids in enumerate(batches(sequences, epochs, seed, without)):
        if step >= most:
            break
        if step == most // 2 and halfway is not None:
            halfway()
        at = (step + 1) / most
        for group in optimiser.param_groups:
            group["lr"] = rate * (min(10 * at, 1.0, (1.001 - at) / 0.9) if warm else 1.0)
        optimiser.zero_grad()
        value = loss(network, ids) if loss else mean_loss(network, sequences, ids)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
    network.eval()


def mean_loss(
    network: nn.Module, sequences: Mapping[str, Sequence[int]], ids: Sequence[str]
) -> Tensor:
    """Return the mean loss per token of some sequences."""
    tokens, targets = on_device(network, [sequences[id] for id in ids])
    return token_losses(network, tokens, targets).sum() / (targets[:, 1:] != IGNORED).sum()


def state(network: nn.Module) -> Weights:
    """Return a copy of the weights, tied ones once."""
    seen: set[int] = set()
    found: Weights = {}
    for name, value in network.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            found[name] = value.detach().clone()
    return found


def moved(weights: Mapping[str, Tensor], device: torch.device) -> Weights:
    """Return weights on a device; those that are there are not copied."""
    return {name: value.to(device) for name, value in weights.items()}


def load(network: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """Put weights into a network, in place, and return it, ready to evaluate."""
    network.load_state_dict(dict(weights), strict=False)
    return network.eval()
