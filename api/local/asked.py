"""A person's request to a network to forget: roots, classes and samples by their names."""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from disinherit.client.privacy.sample_keys import sample_key
from disinherit.common.errors import GraphError, LabelError, RequestError
from disinherit.common.wire.requests import Request
from disinherit.common.wire.samples import SALT_BYTES, SampleDigests, digest_samples
from disinherit.local.arguments import listed, shown
from disinherit.local.loaders import named_samples
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


def find_roots(members: Mapping[str, Member], root: str | Sequence[str] | None) -> list[str] | None:
    """Return the models that a person names as roots; `None` if nobody does.

    Raises:
        GraphError: if one is unknown.
    """
    if root is None:
        return None
    roots = listed(root, "roots")
    for name in roots:
        find_member(members, name, "a root")
    return roots


def find_classes(
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


def find_samples(
    members: Mapping[str, Member], folder: Path, samples: object, roots: list[str] | None
) -> dict[str, SampleDigests]:
    """Return root -> the samples to forget there.

    Args:
        members: name -> model.
        folder: of the store, which has the key of the digests.
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
    ids = named_samples(samples, members[roots[0]].loader, roots[0])
    key = sample_key(folder)
    return {roots[0]: digest_samples(key, secrets.token_hex(SALT_BYTES), ids)}


def describe(request: Request) -> str:
    """Return what a request is to forget, and where, in a few words."""
    parts = [f"{', '.join(names)} at {root}" for root, names in request.forget.items()]
    for root, named in request.samples.items():
        count = len(named.digests)
        parts.append(f"{count} {'sample' if count == 1 else 'samples'} at {root}")
    return "; ".join(parts)
