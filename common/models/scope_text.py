"""A scope as text: `head`, `all`, or globs separated by commas."""

from collections.abc import Sequence

from disinherit.common.errors import ScopeError
from disinherit.common.limits import GLOB, GLOBS, SCOPE


def is_head_scope(scope: str | Sequence[str]) -> bool:
    """Whether a scope is the head, which needs a forward pass to resolve."""
    return isinstance(scope, str) and scope.strip() == "head"


def split_scope(scope: str) -> tuple[str, ...]:
    """Return the parts of a scope, each once.

    Raises:
        ScopeError: if there are too many, or one is too long.

    Example:
        >>> split_scope("0.*, *.bias, 0.*")
        ('0.*', '*.bias')
    """
    SCOPE.check_text(scope, "a scope", ScopeError)
    globs = tuple(dict.fromkeys(part.strip() for part in scope.split(",")))
    GLOBS.check_items(globs, "a scope", ScopeError)
    for glob in globs:
        GLOB.check_text(glob, "a glob of a scope", ScopeError)
    return globs
