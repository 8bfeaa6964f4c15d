"""What kind of copy a version is: a model, an adapter, a quantised file, a merge."""

from collections import Counter
from collections.abc import Iterable

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import ModelStatus
from disinherit.documents.words import count, joined

_QUANTISED = ("int8", "nf4")
_NOUNS = {
    "model": ("model", ""),
    "adapter": ("adapter", ""),
    "quantised": ("quantised file", ""),
    "folded": ("model with an adapter folded in", "models with an adapter folded in"),
    "merge": ("merge of models", "merges of models"),
}


def copy_kind(graph: InheritanceGraph, model: str) -> str:
    """Return what a version is, by the edges that lead to it and from it.

    Args:
        graph: the inheritance graph.
        model: id of a version in it.

    Returns:
        `model`, `adapter`, `quantised`, `folded` or `merge`.
    """
    parents, children = graph.parents(model), graph.children(model)
    names = {edge.recipe.name for edge in parents if edge.recipe is not None}
    if names & {*_QUANTISED} or any(edge.source == "gguf" for edge in parents):
        return "quantised"
    if "fold" in names:
        return "folded"
    folds = any(e.recipe is not None and e.recipe.name == "fold" and e.place > 1 for e in children)
    if folds or any(edge.source == "adapter config" for edge in parents):
        return "adapter"
    return "merge" if names else "model"


def kind_words(kind: str) -> str:
    """Return a kind in words.

    Example:
        >>> kind_words("quantised")
        'quantised file'
    """
    return _NOUNS[kind][0]


def copies_in_words(kinds: Iterable[str]) -> str:
    """Return how many copies there are of each kind.

    Example:
        >>> copies_in_words(["model", "adapter", "model"])
        '2 models and 1 adapter'
    """
    found = Counter(kinds)
    words = [count(found[kind], *nouns) for kind, nouns in _NOUNS.items() if found[kind]]
    return joined(words) if words else "no copies"


def superseded(graph: InheritanceGraph, models: Iterable[str]) -> list[str]:
    """Return those of some versions whose weights another version took the place of."""
    return [one for one in models if graph.model(one).status is ModelStatus.SUPERSEDED]
