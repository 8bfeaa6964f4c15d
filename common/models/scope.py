"""Scope: the parameters that unlearning may change, and the fingerprint of an architecture."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import Tensor, nn

from disinherit.common.errors import ScopeError
from disinherit.common.models.heads import Head, check_differentiable
from disinherit.common.models.scope_text import is_head_scope, split_scope
from disinherit.common.tensors.identity import structure_digest


def resolve_scope(
    model: nn.Module, scope: str | Sequence[str], head: Head | None = None
) -> tuple[str, ...]:
    """List the parameters of a scope.

    Frozen parameters (`requires_grad` is False) belong to a scope like any other: their Fisher
    information is well-defined, and they may hold what is to be forgotten.

    Args:
        model: the model.
        scope: `"head"` (weights and biases of the layers that make the logits), `"all"` (every
            floating-point parameter), or globs over parameter names, separated by commas; or a
            sequence of any number of literal names.
        head: result of `find_head`; needed only for scope `"head"`.

    Returns:
        Full parameter names in the order of `named_parameters()`, each once.  A tied parameter
        is listed under its first name, whichever of its names was given.

    Raises:
        ScopeError: if the scope is empty, a glob matches no parameter, the model's parameters have
            no shape yet, or the head is needed and not given.

    Example:
        >>> from disinherit.common.models.heads import HeadLayer
        >>> model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 3))
        >>> resolve_scope(model, "head", Head((HeadLayer("2", "2.weight", "2.bias"),)))
        ('2.weight', '2.bias')
        >>> resolve_scope(model, "0.*, *.bias")
        ('0.weight', '2.bias')
    """
    check_differentiable(model)
    first = {id(p): name for name, p in model.named_parameters() if p.is_floating_point()}
    if is_head_scope(scope):
        if head is None:
            raise ScopeError(
                "Expected the head that a forward pass found with scope 'head', but got none for "
                f"{type(model).__name__}."
            )
        return tuple(name for name in first.values() if name in head.parameters)
    if isinstance(scope, str) and scope.strip() == "all":
        if not first:
            raise ScopeError(
                f"Expected a model with floating-point parameters, but got "
                f"{type(model).__name__} without any."
            )
        return tuple(first.values())
    aliases = {
        name: first[id(p)]
        for name, p in model.named_parameters(remove_duplicate=False)
        if id(p) in first
    }
    if not isinstance(scope, str):
        unknown = [name for name in scope if name not in aliases]
        if unknown:
            raise ScopeError(
                f"Expected floating-point parameters of {type(model).__name__}, but got unknown "
                f"{unknown[:8]}."
            )
        named = {aliases[name] for name in scope}
        return tuple(name for name in first.values() if name in named)
    chosen: set[str] = set()
    for glob in split_scope(scope):
        matched = {name for alias, name in aliases.items() if fnmatchcase(alias, glob)}
        if not matched:
            raise ScopeError(_no_match(glob, scope, list(aliases)))
        chosen |= matched
    return tuple(name for name in first.values() if name in chosen)


def architecture_fingerprint(state: Mapping[str, Tensor]) -> str:
    """Hash the names, shapes and dtypes, which two models must share to exchange weights.

    Entries are sorted by name, so the order in a file format does not matter.

    Args:
        state: name -> tensor, such as a `state_dict()`; the values are ignored.

    Returns:
        SHA-256 in hexadecimal.

    Example:
        >>> layer = nn.Linear(4, 3)
        >>> same, other = nn.Linear(4, 3), nn.Linear(4, 2)
        >>> fingerprint = architecture_fingerprint(layer.state_dict())
        >>> fingerprint == architecture_fingerprint(same.state_dict())
        True
        >>> fingerprint == architecture_fingerprint(other.state_dict())
        False
    """
    return structure_digest(
        (name, tensor.shape, str(tensor.dtype).removeprefix("torch."))
        for name, tensor in state.items()
    )


def _no_match(glob: str, scope: str, names: list[str]) -> str:
    near = get_close_matches(glob, names, n=3, cutoff=0.5)
    hint = f"close names: {near}" if near else f"the model has {names[:8]}"
    more = "" if near or len(names) <= 8 else f" and {len(names) - 8} more"
    return (
        f"Expected every glob of scope {scope!r} to match a floating-point parameter, but "
        f"{glob!r} matches none; {hint}{more}."
    )
