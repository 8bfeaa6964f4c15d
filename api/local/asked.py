"""A person's request to a network to forget: roots, classes and samples by their names."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from disinherit.client.privacy.sample_keys import sample_key
from disinherit.common.errors import GraphError, LabelError, RequestError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.method import Method
from disinherit.common.wire.requests import Request
from disinherit.common.wire.samples import SALT_BYTES, digest_samples
from disinherit.local.arguments import listed, shown
from disinherit.local.loaders import named_samples, samples_among
from disinherit.local.members import Member


def find_member(members: Mapping[str, Member], name: str, what: str) -> Member:
    """Return the model of a name.

    Args:
        members: name -> model.
        name: the name.
        what: what it names, for an error.

    Raises:
        GraphError: if there is none.
    """
    if not isinstance(name, str) or name not in members:
        known = ", ".join(members) or "none yet"
        raise GraphError(
            f"Expected the name of {what} that was added before ({known}), but got {shown(name)}."
        )
    return members[name]


def check_method(method: object, scope: str) -> None:
    """Check the method of a request.

    Args:
        method: the method, as a person gives it.
        scope: scope of the network's Fisher information.

    Raises:
        RequestError: if it is no method, or for another scope.
    """
    if not isinstance(method, Method):
        raise RequestError(f"Expected a Method as method, but got {shown(method)}.")
    if method.scope != scope:
        raise RequestError(
            f"Expected a method for scope {scope!r}, of which Fisher information was kept, but got "
            f"{method.scope!r}. Make the network with that scope."
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person asks for.

    Attributes:
        request: the request.
        notes: what else has to do with it, for people to read.
    """

    request: Request
    notes: tuple[str, ...] = ()


def make_request(
    members: Mapping[str, Member],
    graph: InheritanceGraph,
    folder: Path,
    classes: str | Sequence[str] | None,
    samples: object,
    root: str | Sequence[str] | None,
    method: Method,
    id: str,
) -> Asked:
    """Return the request of a person.

    Args:
        members: name -> model.
        graph: all versions of all models.
        folder: of the store, which has the key of the digests of samples.
        classes: names of the classes to forget; `None` for samples.
        samples: samples to forget, as a person names them; `None` for classes.
        root: models that were trained directly on it; `None` for all that were.
        method: how to unlearn.
        id: id of the request.

    Raises:
        RequestError: if there is nothing to forget, or both; or a root was not trained on it.
        LabelError: if no model was trained on a class.
        GraphError: if a root is unknown.
        DataError: if samples are not among the root's data.
    """
    if (classes is None) == (samples is None):
        got = "none" if classes is None else "both"
        raise RequestError(f"Expected either classes or samples to forget, but got {got}.")
    named = _find_roots(members, root)
    if classes is not None:
        found = _find_classes(members, classes, named)
        return Asked(Request(forget=found, method=method, id=id))
    of_roots, notes = _find_samples(members, graph, samples, named)
    key = sample_key(folder)
    digests = {
        name: digest_samples(key, secrets.token_hex(SALT_BYTES), ids)
        for name, ids in of_roots.items()
    }
    return Asked(Request(samples=digests, method=method, id=id), notes)


def _find_roots(
    members: Mapping[str, Member], root: str | Sequence[str] | None
) -> list[str] | None:
    """Return the models that a person names as roots; `None` if none are named.

    Raises:
        GraphError: if one is unknown.
    """
    if root is None:
        return None
    roots = listed(root, "roots")
    for name in roots:
        find_member(members, name, "a root")
    return roots


def _find_classes(
    members: Mapping[str, Member], classes: str | Sequence[str], roots: list[str] | None
) -> dict[str, list[str]]:
    """Return root -> the classes that it was trained on directly.

    Args:
        members: name -> model.
        classes: names of the classes to forget.
        roots: where to forget them; `None` for all models that were trained on them.

    Raises:
        LabelError: if no model was trained on a class.
        RequestError: if a root was not.
    """
    forget: dict[str, list[str]] = {}
    for label in listed(classes, "classes to forget"):
        trained = [name for name, one in members.items() if label in one.trained]
        if not trained:
            known = dict.fromkeys(n for one in members.values() for n in one.trained)
            raise LabelError(
                f"Expected a class that a model was trained on ({', '.join(known) or 'none'}), "
                f"but got {label!r}."
            )
        for name in trained if roots is None else roots:
            if name not in trained:
                raise RequestError(
                    f"Expected a root that was trained on {label!r} directly "
                    f"({', '.join(trained)}), but got {name!r}."
                )
            forget.setdefault(name, []).append(label)
    return forget


def _find_samples(
    members: Mapping[str, Member],
    graph: InheritanceGraph,
    samples: object,
    roots: list[str] | None,
) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Return root -> ids of the samples to forget there, and notes on other models with them.

    A model that inherits from the named root, and was trained on some of the samples itself, is a
    root of these.

    Args:
        members: name -> model.
        graph: all versions of all models.
        samples: as a person names them.
        roots: the one model that was trained on them; `None` for the only one that there is.

    Raises:
        RequestError: if there is not one root.
        DataError: if samples are not among its data.
    """
    if roots is None and len(members) == 1:
        roots = list(members)
    if roots is None or len(roots) != 1:
        raise RequestError(
            "Expected one root with samples=, the model that was trained on them, but got "
            f"{'none' if not roots else ', '.join(roots)}."
        )
    (root,) = roots
    ids = named_samples(samples, members[root].loader, root)
    found, notes = {root: ids}, []
    heirs = graph.affected([root])
    for name, member in members.items():
        if name == root or not (own := samples_among(ids, member.loader)):
            continue
        trained = f"{name}: it was trained on {len(own)} of these samples itself"
        if name in heirs:
            found[name] = own
            notes.append(f"{trained}, so it is a root of them, too.")
        else:
            notes.append(
                f"{trained}, and does not inherit from {root}: this request does not reach it. "
                f"Ask with root={name!r} as well."
            )
    return found, tuple(notes)


def describe(request: Request) -> str:
    """Return what a request is to forget, and where, in a few words."""
    parts = [f"{', '.join(names)} at {root}" for root, names in request.forget.items()]
    for root, named in request.samples.items():
        count = len(named.digests)
        parts.append(f"{count} {'sample' if count == 1 else 'samples'} at {root}")
    return "; ".join(parts)
