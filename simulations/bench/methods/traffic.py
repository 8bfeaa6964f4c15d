"""Bytes to and from each owner, for methods whose messages are not counted but known.

A message that only says what to forget is not counted: it is the same for every method, and small
beside weights.
"""

from collections.abc import Iterable

from torch import Tensor

from disinherit.simulations.bench.cases.subjects import MethodCase, Weights


def size(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors."""
    return sum(value.numel() * value.element_size() for value in tensors)


def replayed(case: MethodCase) -> dict[str, int]:
    """Return the traffic of deriving all affected models again.

    Every owner receives the weights of a model's parents and sends what it made of them to the
    owners of its children, through the coordinator: parents that it holds itself cost nothing.
    """
    sent = {subject.owner: 0 for subject in case.subjects.values()}
    for subject in case.subjects.values():
        for parent in subject.parents:
            known = case.subjects.get(parent)
            if known is None or known.owner != subject.owner:
                weights = case.unaffected[parent] if known is None else known.original
                sent[subject.owner] += size(weights.values())
                if known is not None:
                    sent[known.owner] += size(weights.values())
    return sent


def broadcast(case: MethodCase, packets: dict[str, Weights]) -> dict[str, int]:
    """Return the traffic of sending what each root found to the coordinator, and on to the owners.

    An owner receives one packet for each of the roots upstream of its models, its own not.
    """
    sent = {subject.owner: 0 for subject in case.subjects.values()}
    for root, packet in packets.items():
        home = case.subjects[root].owner
        sent[home] += size(packet.values())
        owners = {
            subject.owner for name, subject in case.subjects.items() if root in case.upstream(name)
        }
        for owner in owners - {home}:
            sent[owner] += size(packet.values())
    return sent
