"""Distribution of training samples over clients."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from disinherit.common.errors import DataError
from disinherit.simulations.data.splits import seeded_generator

PARTITION_KINDS = ("iid", "dirichlet", "pathological")
"""The kinds of `partition`."""

NATURAL = "natural"
"""The partition by who contributed a sample; see `deal_contributors`."""

_LARGEST_CONCENTRATION = 1e6

_Indices = npt.NDArray[np.int64]


def partition(
    targets: Tensor,
    clients: int,
    kind: str,
    seed: int,
    concentration: float = 0.5,
    classes_per_client: int = 2,
    minimum: int = 1,
) -> list[Tensor]:
    """Distribute samples over clients.

    Args:
        targets: class indices `[n]` of the samples, such as `dataset.targets[splits.train]`.
        clients: number of clients.
        kind: `iid` (even shares of a shuffle), `dirichlet` (each class in shares drawn from a
            symmetric Dirichlet distribution) or `pathological` (each client holds samples of
            `classes_per_client` classes only).
        seed: same seed, same partition.
        concentration: of the Dirichlet distribution; the smaller, the more unequal.
        classes_per_client: classes a client holds with `pathological`.
        minimum: fewest samples of a client.

    Returns:
        One tensor of positions *in `targets`* per client; together they hold each position once.

    Raises:
        DataError: if a value is out of range, or if no such partition exists.

    Example:
        >>> parts = partition(torch.tensor([0, 1, 0, 1]), 2, "iid", seed=0)
        >>> torch.cat(parts).sort().values.tolist()
        [0, 1, 2, 3]
    """
    if clients < 1:
        raise DataError(f"Expected at least 1 client, but got {clients}.")
    if minimum < 1:
        raise DataError(f"Expected a minimum of at least 1 sample per client, but got {minimum}.")
    if clients * minimum > len(targets):
        raise DataError(
            f"Expected at least {minimum} samples for each of {clients} clients, but got "
            f"{len(targets)} samples in all. Use fewer clients."
        )
    generator = seeded_generator(seed)
    labels = targets.cpu().numpy()
    if kind == "iid":
        parts = np.array_split(generator.permutation(len(labels)), clients)
    elif kind == "dirichlet":
        parts = _dirichlet(labels, clients, generator, concentration, minimum)
    elif kind == "pathological":
        parts = _pathological(labels, clients, generator, classes_per_client)
    else:
        raise DataError(
            f"Expected a partition kind out of {list(PARTITION_KINDS)}, but got {kind!r}."
        )
    smallest = min(len(part) for part in parts)
    if smallest < minimum:
        raise DataError(
            f"Expected at least {minimum} samples for each of {clients} clients, but got a client "
            f"with {smallest} from the {kind} partition. Use fewer clients."
        )
    return [torch.from_numpy(part) for part in parts]


def deal_contributors(counts: Sequence[int], clients: int) -> list[int]:
    """Return the client of each contributor, so that no contributor is shared.

    The contributor with the most samples that is left goes to the client with the fewest.

    Args:
        counts: samples of each contributor; of those without any, the client does not matter.
        clients: number of clients.

    Raises:
        DataError: if there are fewer contributors with samples than clients.

    Example:
        >>> deal_contributors([5, 1, 3, 2], 2)
        [0, 0, 1, 1]
    """
    present = sum(count > 0 for count in counts)
    if not 1 <= clients <= present:
        raise DataError(
            f"Expected from 1 to {present} clients for the natural partition, as many as there are "
            f"contributors with training samples at most, but got {clients}. Use fewer owners."
        )
    held = [0] * clients
    dealt = [0] * len(counts)
    for one in sorted(range(len(counts)), key=lambda one: (-counts[one], one)):
        dealt[one] = held.index(min(held))
        held[dealt[one]] += counts[one]
    return dealt


def _dirichlet(
    labels: _Indices,
    clients: int,
    generator: np.random.Generator,
    concentration: float,
    minimum: int,
) -> list[_Indices]:
    if not 0 < concentration <= _LARGEST_CONCENTRATION:
        raise DataError(
            f"Expected a concentration above 0 and up to {_LARGEST_CONCENTRATION:g}, but got "
            f"{concentration}."
        )
    parts: list[list[int]] = [[] for _ in range(clients)]
    for target in np.unique(labels):
        samples = generator.permutation(np.flatnonzero(labels == target))
        shares = generator.dirichlet([concentration] * clients)
        cuts = np.rint(shares.cumsum()[:-1] * len(samples)).astype(np.int64)
        for part, piece in zip(parts, np.split(samples, cuts), strict=True):
            part.extend(piece.tolist())
    # Drawing again until every client has enough may never end when the shares are very unequal.
    for part in parts:
        while len(part) < minimum:
            part.append(max(parts, key=len).pop())
    return [generator.permutation(np.array(part, dtype=np.int64)) for part in parts]


def _pathological(
    labels: _Indices, clients: int, generator: np.random.Generator, classes_per_client: int
) -> list[_Indices]:
    classes = generator.permutation(np.unique(labels))
    fewest = math.ceil(len(classes) / clients)
    if not fewest <= classes_per_client <= len(classes):
        raise DataError(
            f"Expected from {fewest} to {len(classes)} classes per client, so that {clients} "
            f"clients hold all {len(classes)} classes, but got {classes_per_client}."
        )
    pieces: list[list[_Indices]] = [[] for _ in range(clients)]
    # Dealt in a round, so that classes have equally many holders, give or take one.
    holders: list[list[int]] = [[] for _ in classes]
    for deal in range(clients * classes_per_client):
        holders[deal % len(classes)].append(deal // classes_per_client)
    for target, owners in zip(classes, holders, strict=True):
        samples = generator.permutation(np.flatnonzero(labels == target))
        for owner, piece in zip(owners, np.array_split(samples, len(owners)), strict=True):
            pieces[owner].append(piece)
    return [generator.permutation(np.concatenate(piece)) for piece in pieces]
