"""Merges by mergekit: `mergekit_config.yml`.

Shares are to first order: how a small change of a parent changes the merge.  In a merge of task
vectors, `base + Σ w (model − base)`, a model has w and the base the rest, `1 − Σ w`.  TIES and
breadcrumbs keep a part of each vector, its density d, so a model has about `w · d`.  A base without
a share of its own is a parent all the same, with `LEAST_SHARE`, and so is a model of weight 0.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from disinherit.common.errors import DataError, GraphError
from disinherit.common.graph.recipes import Recipe
from disinherit.common.limits import PARENTS
from disinherit.families.evidence import Claim, FamilyFinding, Kind, Relation, Said, Source
from disinherit.families.model_cards import parent_name
from disinherit.families.reading import table_of

MERGE_CONFIG = "mergekit_config.yml"
_CLOSE = 1e-6  # as the graph takes the sum of the shares of a merge
LEAST_SHARE = 1e-9
"""Share of a parent that a merge needs, and whose change it inherits from other parents only."""

_NORMALISED = {"linear": True, "ties": True, "della": True}
_VECTORS = {
    *("task_arithmetic", "ties", "dare_ties", "dare_linear", "della", "della_linear"),
    *("breadcrumbs", "breadcrumbs_ties"),
}
_TRIMMED = {"ties", "breadcrumbs", "breadcrumbs_ties"}
"""Methods that keep a part of each vector as it is; DARE and DELLA scale up what they keep."""

_TOLD = {"linear", "task_arithmetic", "ties"}
"""Methods that are deterministic, and that their config tells fully."""

_TOLD_KEYS = {"merge_method", "models", "base_model", "parameters", "dtype", "out_dtype"}
_TOLD_PARAMETERS = {"weight", "density", "normalize", "int8_mask", "lambda", "rescale"}


@dataclass(frozen=True, slots=True)
class _Part:
    """A model of a merge: its name, revision and adapter, and its parameters."""

    name: str
    revision: str
    adapter: str
    parameters: Mapping[str, Any]


def claims_of_merge(key: str, config: Mapping[str, Any]) -> Said:
    """Return what a merge config says of the parents of its result.

    Args:
        key: key of the merged model.
        config: content of its `mergekit_config.yml`.

    Raises:
        DataError: if it is malformed.
    """
    method = str(config.get("merge_method") or "")
    if config.get("experts"):
        experts = [_part(one, "source_model") for one in _listed(config["experts"], "experts")]
        return _composition(key, experts, config, "a mixture of experts")
    nested = config.get("modules") or config.get("slices")
    if nested or method == "passthrough":
        parts = [_part(one, "model") for one in _with_models(nested or config.get("models"))]
        return _composition(key, parts, config, "layers of models, stacked or merged in slices")
    if not method:
        raise DataError(f"Expected a merge_method in {MERGE_CONFIG}, but got none.")
    parts = [_part(one, "model") for one in _listed(config.get("models"), "models")]
    if any(part.adapter for part in parts):
        return _composition(key, parts, config, "models with adapters, merged")
    base = None if config.get("base_model") is None else _part(config["base_model"], "model")
    if base is not None and not any(part.name == base.name for part in parts):
        parts.append(base)  # as mergekit does
    named = [(part.name, part.revision) for part in parts]
    if len(set(named)) < len(named):
        return _doubled(key, named)
    place = 0 if base is None else [part.name for part in parts].index(base.name) + 1
    if place and method in _VECTORS:  # the base comes first, as recipes have it
        parts.insert(0, parts.pop(place - 1))
        place = 1
    return _merge(key, config, method, parts, place)


def _doubled(key: str, named: Sequence[tuple[str, str]]) -> Said:
    """Return claims without shares: of a model that is listed twice, one entry is not read."""
    names = ", ".join(name for name, _ in named)
    text = (
        f"Expected each model once in {MERGE_CONFIG}, but got {names}: its parents are recorded, "
        "without shares."
    )
    claims = [
        Claim(key, name, Source.MERGE_CONFIG, Relation.MERGE, revision)
        for name, revision in dict.fromkeys(named)
    ]
    return claims, [FamilyFinding(Kind.CONFLICT, key, text)]


def _merge(
    key: str, config: Mapping[str, Any], method: str, parts: Sequence[_Part], base: int
) -> Said:
    """Return claims and findings of a merge of whole models; `base` is a place from 1, or 0."""
    findings = []
    shares = _shares(method, config, parts, base)
    if shares is None:
        text = (
            f"The config of the merge by {method!r} gives no shares between 0 and 1: equal shares "
            "are recorded. They scale the change that is handed down; every parent is recorded."
        )
        findings.append(FamilyFinding(Kind.SHARES, key, text))
        shares = [1 / len(parts)] * len(parts)
    recipe = _recipe(method, config, parts, base)
    source, relation = Source.MERGE_CONFIG, Relation.MERGE
    claims = [
        Claim(key, part.name, source, relation, part.revision, share, recipe)
        for part, share in zip(parts, shares, strict=True)
    ]
    return claims, findings


def _shares(
    method: str, config: Mapping[str, Any], parts: Sequence[_Part], base: int
) -> list[float] | None:
    """Return the share of each parent; `None` if the config gives none in [0, 1]."""
    if method == "slerp":
        t = _number(_parameter(config, None, "t", None))
        if t is None or len(parts) != 2 or not base:
            return None
        shares = [1 - t if place == base else t for place in (1, 2)]
    elif method == "linear" or (method in _VECTORS and base):
        vectors = method in _VECTORS
        weights = [
            0.0 if vectors and place == base else _number(_parameter(config, part, "weight", None))
            for place, part in enumerate(parts, 1)
        ]
        densities = [
            _number(_parameter(config, part, "density", 1.0)) if method in _TRIMMED else 1.0
            for part in parts
        ]
        normalise = _parameter(config, None, "normalize", _NORMALISED.get(method, False))
        scale = _number(_parameter(config, None, "lambda", 1.0)) if vectors else 1.0
        if None in (*weights, *densities, scale) or not isinstance(normalise, bool):
            return None
        known = [weight or 0.0 for weight in weights]
        total = math.fsum(known) if normalise else 1.0
        if not total:
            return None
        shares = [
            w / total * (d or 0.0) * (scale or 0.0) for w, d in zip(known, densities, strict=True)
        ]
        if vectors:
            shares[base - 1] = 1 - math.fsum(shares)
    else:
        return None
    # A weight of nothing, too: the merge is computed from that parent all the same.
    shares = [LEAST_SHARE if abs(share) < LEAST_SHARE else share for share in shares]
    fit = all(0 < share <= 1 for share in shares) and abs(math.fsum(shares) - 1) < _CLOSE
    return shares if fit else None


def _recipe(
    method: str, config: Mapping[str, Any], parts: Sequence[_Part], base: int
) -> Recipe | None:
    """Return how to compute the merge from its parents, a base first; `None` if not told fully."""
    whole = table_of(config.get("parameters"))
    given = {name for one in (whole, *(part.parameters for part in parts)) for name in one}
    vectors = method in _VECTORS
    models = [part for place, part in enumerate(parts, 1) if not vectors or place != base]
    if method not in _TOLD or config.keys() - _TOLD_KEYS or given - _TOLD_PARAMETERS:
        return None
    if vectors != bool(base) or _parameter(config, None, "rescale", False):
        return None
    told: dict[str, tuple[str, float | None]] = {"weights": ("weight", None)}
    if method == "ties" and "density" in given:
        told["density"] = ("density", 1.0)
    parameters = {
        of: [_number(_parameter(config, part, name, default)) for part in models]
        for of, (name, default) in told.items()
    }
    if vectors and "lambda" in given:
        parameters["lambda"] = [_number(_parameter(config, None, "lambda", 1.0))]
    if any(None in values for values in parameters.values()):
        return None
    texts = {of: ",".join(map(repr, values)) for of, values in parameters.items()}
    if "normalize" in given:
        texts["normalize"] = str(_parameter(config, None, "normalize", "")).lower()
    if vectors and config.get("dtype") is not None:
        texts["dtype"] = str(config["dtype"])
    try:
        return Recipe(method, texts)
    except GraphError:  # too many models
        return None


def _composition(key: str, parts: Sequence[_Part], config: Mapping[str, Any], what: str) -> Said:
    if config.get("base_model") is not None:
        parts = [*parts, _part(config["base_model"], "model")]
    named = [(part.name, part.revision) for part in parts]
    named += [(part.adapter, "") for part in parts if part.adapter]
    claims = [
        Claim(key, name, Source.MERGE_CONFIG, Relation.COMPOSITION, revision)
        for name, revision in dict.fromkeys(named)
    ]
    names = ", ".join(dict.fromkeys(name for name, _ in named))
    text = f"It is no average but a composition ({what}) of {names}: no share is recorded."
    return claims, [FamilyFinding(Kind.COMPOSITION, key, text)]


def _with_models(value: object) -> list[object]:
    """Return all tables with a model inside slices, modules or a list of models."""
    found: list[object] = []
    pending = [value]
    for one in pending:  # grows during the loop
        if isinstance(one, dict) and "model" in one:
            found.append(one)
        elif isinstance(one, (dict, list)):
            pending += one.values() if isinstance(one, dict) else one
    return _listed(found, "models")


def _part(value: object, of: str) -> _Part:
    """Return a model of a merge, `path@revision+adapter` or a table."""
    table = table_of(value)
    reference: object = table.get(of) if of in table else value
    parameters = table_of(table.get("parameters"))
    if isinstance(reference, dict):
        inner, lora = table_of(reference.get("model") or reference), reference.get("lora")
        path, revision = inner.get("path"), inner.get("revision")
        adapter = table_of(lora).get("path", lora)
    else:
        chunks = str(reference).split("+")
        # What has more than one plus is a path: mergekit writes a model and one adapter at most.
        text, adapter = chunks if len(chunks) == 2 else (str(reference), "")
        path, _, revision = text.partition("@")
    if not isinstance(path, str) or not path.strip() or reference is None:
        raise DataError(f"Expected a model in {MERGE_CONFIG}, but got {str(value)[:80]!r}.")
    name = parent_name(path)
    return _Part(name, str(revision or ""), parent_name(str(adapter or "")), parameters)


def _listed(value: object, what: str) -> list[object]:
    if not isinstance(value, list) or not 0 < len(value) <= PARENTS.most:
        raise DataError(f"Expected a list of models as {what} in {MERGE_CONFIG}, but got none.")
    return value


def _parameter(config: Mapping[str, Any], part: _Part | None, name: str, default: object) -> object:
    """Return a parameter of a model, else that of the whole merge, else the default."""
    whole = table_of(config.get("parameters"))
    own = {} if part is None else part.parameters
    return own.get(name, whole.get(name, default))


def _number(value: object) -> float | None:
    """Return a finite number; `None` for gradients, filters and all else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < 1e6 else None
