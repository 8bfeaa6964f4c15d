"""Which parameters of a model unlearning may touch, and what makes two models comparable."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from disinherit.common.errors import ScopeError


@dataclass(frozen=True, slots=True)
class Head:
    """The last linear layer of a classifier; its rows are the classes.

    Attributes:
        module: dotted name of the layer, `""` if the model is nothing but this layer.
        weight: full name of its weight `[C, d]`, as `named_parameters()` gives it.
        bias: full name of its bias `[C]`, or `None` for a head without one.
    """

    module: str
    weight: str
    bias: str | None

    @property
    def parameters(self) -> tuple[str, ...]:
        """Full names of the weight and, where there is one, the bias."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)


def find_head(model: nn.Module) -> Head:
    """Find the head: the `nn.Linear` registered last.

    A weight that is tied to an earlier layer has the name of the earlier one, because that is
    the only name `named_parameters()` has for it.

    Returns:
        The head's names.

    Raises:
        ScopeError: if the model has no linear layer, or the last one computes its weight from
            other parameters (weight norm, a parametrization).

    Example:
        >>> find_head(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
        Head(module='2', weight='2.weight', bias='2.bias')
    """
    linears = [entry for entry in model.named_modules() if isinstance(entry[1], nn.Linear)]
    if not linears:
        raise ScopeError(
            f"Expected a model with at least one linear layer as its head, but got "
            f"{type(model).__name__} without any; give the scope as 'all' or as name globs."
        )
    path, module = linears[-1]
    own = dict(module.named_parameters(recurse=False))
    if "weight" not in own:
        raise ScopeError(
            f"Expected the head {path!r} to hold its weight as a parameter, but got a weight "
            f"computed from others ({sorted(dict(module.named_parameters()))}); remove the "
            f"parametrization, or give the scope as name globs."
        )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    bias = own.get("bias")
    return Head(path, names[id(own["weight"])], None if bias is None else names[id(bias)])


def resolve_scope(model: nn.Module, scope: str) -> tuple[str, ...]:
    """List the parameters a scope stands for.

    Frozen parameters (`requires_grad` is False) belong to a scope like any other: their Fisher
    information is well-defined, and what they know may have to be forgotten too.

    Args:
        model: the model.
        scope: `"head"` (weight and bias of the last linear layer), `"all"` (every floating-point
            parameter), or globs over parameter names, separated by commas.

    Returns:
        Full parameter names in the order of `named_parameters()`, each once.  A tied parameter
        has its first name, by whichever of its names it was asked for.

    Raises:
        ScopeError: if the scope is empty, a glob matches no parameter, or the model's parameters
            have no shape yet.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 3))
        >>> resolve_scope(model, "head")
        ('2.weight', '2.bias')
        >>> resolve_scope(model, "0.*, *.bias")
        ('0.weight', '2.bias')
    """
    lazy = [name for name, p in model.named_parameters() if is_lazy(p)]
    if lazy:
        raise ScopeError(
            f"Expected parameters with a shape, but got uninitialized {lazy}; run the model once "
            f"on an example first."
        )
    if scope.strip() == "head":
        return find_head(model).parameters
    first = {id(p): name for name, p in model.named_parameters() if p.is_floating_point()}
    if scope.strip() == "all":
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
    chosen: set[str] = set()
    for glob in (part.strip() for part in scope.split(",")):
        matched = {name for alias, name in aliases.items() if fnmatchcase(alias, glob)}
        if not matched:
            raise ScopeError(_no_match(glob, scope, list(aliases)))
        chosen |= matched
    return tuple(name for name in first.values() if name in chosen)


def architecture_fingerprint(state: Mapping[str, Tensor]) -> str:
    """Digest what must be equal for two models to exchange weights: names, shapes and dtypes.

    Entries are ordered by name, so that it does not matter in which order a file format keeps
    them.

    Args:
        state: name -> tensor, such as a `state_dict()`; the values play no part.

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
    entries = [
        [name, list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
        for name, tensor in sorted(state.items())
    ]
    return hashlib.sha256(json.dumps(entries, separators=(",", ":")).encode()).hexdigest()


def _no_match(glob: str, scope: str, names: list[str]) -> str:
    near = get_close_matches(glob, names, n=3, cutoff=0.5)
    hint = f"close names: {near}" if near else f"the model has {names[:8]}"
    more = "" if near or len(names) <= 8 else f" and {len(names) - 8} more"
    return (
        f"Expected every glob of scope {scope!r} to match a floating-point parameter, but "
        f"{glob!r} matches none; {hint}{more}."
    )
