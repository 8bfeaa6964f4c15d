"""Names of models in sources, and ids of versions: which model a name means.

A name means a model only if it is exactly its name.  A name with the same end is listed as perhaps
renamed, and a name of several models with different weights as ambiguous.
"""

import hashlib
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from disinherit.common.graph.records import ModelRecord
from disinherit.families.evidence import Claim, FamilyFinding, Found, Kind

_LONGEST = 128
_SHORT = 8
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
MAIN = "main"
"""The branch that is meant where no revision is named."""


def version_id(name: str) -> str:
    """Return an id for a model of this name; equal for names that differ in odd characters only.

    Example:
        >>> version_id("acme/base")
        'acme--base'
    """
    plain = _UNSAFE.sub("-", name.replace("/", "--")).lstrip("-._")
    if plain and len(plain) <= _LONGEST:
        return plain
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:_SHORT]
    return f"{plain[: _LONGEST - _SHORT - 1] or 'model'}.{digest}"


def further_id(name: str, digest: str) -> str:
    """Return an id for other weights of a name whose id is taken."""
    end = (digest or hashlib.sha256(name.encode("utf-8", "replace")).hexdigest())[:_SHORT]
    return f"{version_id(name)[: _LONGEST - _SHORT - 1]}.{end}"


def stem(model_id: str, plain: Container[str]) -> str:
    """Return the id of a model's first version, for an id that an import may have given.

    Args:
        model_id: the id.
        plain: ids of first versions.

    Example:
        >>> stem("acme--base.1f2e3d4c", {"acme--base"})
        'acme--base'
    """
    start, _, end = model_id.rpartition(".")
    return start if start in plain and len(end) == _SHORT else model_id


def assign_ids(
    models: Iterable[Found], known: Mapping[str, ModelRecord], registered: bool
) -> tuple[dict[str, str], list[FamilyFinding]]:
    """Return the id of the version that each model is.

    Models of one name with the same weights are one version.  A version that the graph has, by its
    weights, keeps its id.

    Args:
        models: the models, each with its own key.
        known: the records of the graph.
        registered: whether owners may have registered them, perhaps with more tensors than files
            have: tied ones, or those of the base of an adapter.

    Returns:
        Key -> id; and findings about models that the graph has under another name.
    """
    ordered = sorted(models, key=lambda one: (not one.current, one.name, one.revision, one.key))
    claimed = {version_id(one.name) for one in ordered}
    by_digest: dict[str, list[str]] = {}
    for record in known.values():
        if record.digest:
            by_digest.setdefault(record.digest, []).append(record.id)
    taken: dict[str, tuple[str, str]] = {}
    ids: dict[str, str] = {}
    findings = []
    for one in ordered:
        plain, digest = version_id(one.name), one.weights.digest
        further = further_id(one.name, digest)
        elsewhere = [id for id in by_digest.get(digest, ()) if id not in claimed]
        free = [
            id
            for id in (plain, further)
            if _fits(known.get(id), digest) and taken.get(id) in (None, (one.name, digest))
        ]
        if registered and _has_other_tensors(known.get(plain), one):
            free = [plain]
            text = "Its owner registered it with other tensors, such as tied ones or its base's."
            findings.append(FamilyFinding(Kind.UNCOMPARED, one.key, text))
        elif not digest and taken.get(plain, ("",))[0] == one.name:
            free = [plain]  # a card alone is about the version that has weights
        elif len(elsewhere) == 1 and plain not in known and further not in known:
            free = elsewhere
            text = (
                f"The graph has the weights of {one.name!r} as {elsewhere[0]!r}: they are taken as "
                "one version."
            )
            findings.append(FamilyFinding(Kind.SAME_WEIGHTS, one.key, text))
        chosen = free[0] if free else further_id(f"{one.name} {one.key}", "")
        taken.setdefault(chosen, (one.name, digest))
        ids[one.key] = chosen
    return ids, findings


def _has_other_tensors(record: ModelRecord | None, found: Found) -> bool:
    """Whether a record cannot be of the same files: then nothing says that it has other weights."""
    ours = found.weights.architecture
    return record is not None and ours != "" and record.architecture not in ("", ours)


def _fits(record: ModelRecord | None, digest: str) -> bool:
    """Whether a record of the graph may be that of these weights."""
    return record is None or not record.digest or not digest or record.digest == digest


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the name of a parent means.

    Attributes:
        id: the version; `""` if it is not known.
        finding: kind and text of what there is to say, or `None`.
    """

    id: str = ""
    finding: tuple[Kind, str] | None = None


class Names:
    """The names of all models of an import and a graph.

    Args:
        models: key -> model.
        ids: key -> id of its version.
        known: records of the graph, whose ids are names, too.
        aliases: further names, as a person gave them: name -> name of a model.
        roots: imported folders, which paths may be relative to.
    """

    def __init__(
        self,
        models: Mapping[str, Found],
        ids: Mapping[str, str],
        known: Mapping[str, ModelRecord],
        aliases: Mapping[str, str],
        roots: Iterable[Path] = (),
    ) -> None:
        self._ids, self._known, self._aliases = ids, known, aliases
        self._roots = tuple(root.resolve() for root in roots)
        self._by_name: dict[str, list[Found]] = {}
        self._by_id: dict[str, list[Found]] = {}
        self._by_path: dict[Path, Found] = {}
        self._by_end: dict[str, set[str]] = {}
        self._models = models
        # Who names what an odd name was shortened to means another model.
        self._shortened = {
            id
            for key, one in models.items()
            if (id := ids[key]) == version_id(one.name) != one.name.replace("/", "--")
        }
        self._further: dict[str, list[str]] = {}
        for id in known:
            if (plain := stem(id, known)) != id:
                self._further.setdefault(plain, []).append(id)
        for key, one in models.items():
            for name in (one.name, *one.aliases):
                self._by_name.setdefault(name, []).append(one)
            self._by_id.setdefault(ids[key], []).append(one)
            self._by_end.setdefault(_end(one.name), set()).add(one.name)
            if one.path is not None:
                self._by_path[one.path] = one

    def meaning(self, claim: Claim) -> Meaning:
        """Return which version a claim means by the name of the parent."""
        return self.version(claim.parent, claim.revision, self._models[claim.child].path)

    def version(self, text: str, revision: str = "", near: Path | None = None) -> Meaning:
        """Return which version a name means.

        Args:
            text: the name.
            revision: the revision that is named beside it, if any.
            near: folder or file of the model whose source names it; paths may be relative to it.
        """
        name = self._aliases.get(text, text)
        if name in self._models:  # a key
            return Meaning(self._ids[name])
        is_id = name not in self._shortened
        found = self._by_name.get(name) or (self._by_id.get(name, []) if is_id else [])
        if found := found or self._at_path(name, near):
            return self._chosen(found, revision, name)
        if recorded := self._in_graph(name) if is_id else []:
            return self._recorded(recorded, revision, name)
        similar = sorted(self._by_end.get(_end(name), ()))[:5]
        if similar:
            told = ", ".join(map(repr, similar))
            text = f"{name!r} is not here; {told} may be it. Say so by --alias."
            return Meaning(finding=(Kind.RENAMED_PARENT, text))
        return Meaning(finding=(Kind.UNKNOWN_PARENT, f"{name!r} is not here."))

    def _in_graph(self, name: str) -> list[str]:
        """Return the versions of the graph whose id a name is, or is made into."""
        if name in self._known:
            return [name]
        plain = version_id(name)
        if plain != name.replace("/", "--") or plain not in self._known:
            return []
        return [plain, *self._further.get(plain, ())]

    def _recorded(self, ids: list[str], revision: str, name: str) -> Meaning:
        if len(ids) > 1:
            return Meaning(finding=(Kind.AMBIGUOUS_PARENT, _several(name, ids)))
        return Meaning(ids[0], _unseen(name, revision) if revision else None)

    def is_alias(self, name: str) -> bool:
        """Whether a person gave a name to a model that has another one."""
        return name in self._aliases

    def keys_of(self, id: str) -> list[str]:
        """Return the keys of the models that are a version, those that are current first."""
        found = self._by_id.get(id, [])
        return [one.key for one in sorted(found, key=lambda one: (not one.current, one.key))]

    def _chosen(self, found: list[Found], revision: str, name: str) -> Meaning:
        note = None
        if revision:
            pinned = [one for one in found if _is_at(one, revision)]
            if not pinned and any(one.revision for one in found):
                text = f"{name!r} is here, but nothing here says that it is revision {revision!r}."
                return Meaning(finding=(Kind.UNKNOWN_PARENT, text))
            if not pinned and revision != MAIN:
                note = _unseen(name, revision)
            elif revision == MAIN and len({self._ids[one.key] for one in found}) > 1:
                text = f"{name!r} has several versions here; its branch main is taken as it is now."
                note = (Kind.DOUBTED, text)
            found = pinned or found
        ids = sorted({self._ids[one.key] for one in found})
        if len(ids) > 1:
            return Meaning(finding=(Kind.AMBIGUOUS_PARENT, _several(name, ids)))
        return Meaning(ids[0], note)

    def _at_path(self, name: str, near: Path | None) -> list[Found]:
        """Return the models at a path: one below an import, or one that says that it is a path.

        A plain name is no path to a neighbour of who names it: `gpt2` is not the `gpt2` beside it.
        """
        if "\0" in name:
            return []
        starts = list(self._roots)
        if near is not None and (name == ".." or name.startswith(("./", "../"))):
            starts += [near, near.parent]
        found = {}
        for start in starts:
            try:
                place = (start / name).resolve()
            except (OSError, RuntimeError, ValueError):
                continue
            if place in self._by_path and self._is_inside(place):
                found[place] = self._by_path[place]
        return list(found.values())

    def _is_inside(self, place: Path) -> bool:
        return any(place.is_relative_to(root) for root in self._roots)


def _several(name: str, ids: list[str]) -> str:
    return f"{name!r} may be several versions here ({', '.join(ids)}): name a revision."


def _unseen(name: str, revision: str) -> tuple[Kind, str]:
    return Kind.DOUBTED, f"Whether {name!r} is at revision {revision!r} cannot be seen here."


def _is_at(found: Found, revision: str) -> bool:
    """Whether a model is at a commit, or the start of one, or at a branch or a tag."""
    at = revision in found.refs or found.revision == revision
    return at or bool(_COMMIT.fullmatch(revision) and found.revision.startswith(revision))


def _end(name: str) -> str:
    """Return what a renamed model mostly keeps: the last part of its name, without case."""
    return name.rstrip("/").rpartition("/")[2].casefold()
