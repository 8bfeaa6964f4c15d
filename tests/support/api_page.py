"""The API reference, made from the public names: `python -m tests.support.api_page` writes it."""

import ast
import inspect
from collections.abc import Iterable
from enum import Enum

import disinherit
from tests import ROOT

PAGE = ROOT / "docs" / "api.md"
_HEAD = """# API

The names of `import disinherit`. Everything else may move between releases. A name is loaded when
it is first used: the import itself takes some hundredths of a second and loads no PyTorch.

This page is made from the code by `make reference`.
"""


_ONLY = {"CoordinatorStore": ("add_model", "graph", "close")}
"""Classes of which only some methods are for other code than the coordinator's."""


def groups() -> dict[str, list[str]]:
    """Group -> names, as the comments in `__all__` have them."""
    source = (ROOT / "api" / "__init__.py").read_text()
    listed = next(
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    found: dict[str, list[str]] = {}
    names: list[str] = []
    for line in source.splitlines()[listed.lineno : (listed.end_lineno or 0) - 1]:
        text = line.strip()
        if text.startswith("#"):
            names = found.setdefault(text.removeprefix("# "), [])
        else:
            names.append(text.strip('",'))
    return found


def page() -> str:
    """The page as it should be."""
    parts = [_HEAD]
    for group, names in groups().items():
        parts.append(f"\n## {group}\n")
        parts += [_section(name) for name in names if name != "__version__"]
    parts.append("\n`__version__`: the installed version.\n")
    return "".join(parts)


def _section(name: str) -> str:
    value = getattr(disinherit, name)
    lines = [f"\n### `{name}`\n\n"]
    plain = isinstance(value, type) and issubclass(value, (Exception, Enum))
    protocol = getattr(value, "_is_protocol", False)
    if not plain and not protocol:
        lines.append(f"```python\n{name}{_signature(value)}\n```\n\n")
    lines.append(f"{_summary(value)}\n")
    if isinstance(value, type) and issubclass(value, Enum):
        lines.append("\nOne of " + ", ".join(f"`{one.value}`" for one in value) + ".\n")
    elif isinstance(value, type) and not plain:
        members = [_member(value, one) for one in _public(value)]
        lines += ["\n", *members] if members else []
    return "".join(lines)


def _public(value: type) -> Iterable[str]:
    if value.__name__ in _ONLY:
        return _ONLY[value.__name__]
    fields = getattr(value, "__dataclass_fields__", {})
    return [
        name
        for base in reversed(value.__mro__)
        if base.__module__.startswith("disinherit")
        for name in vars(base)
        if not name.startswith("_") and name not in fields
    ]


def _member(owner: type, name: str) -> str:
    value = inspect.getattr_static(owner, name)
    if isinstance(value, property):
        return f"- `.{name}`: {_summary(value)}\n"
    signature = _signature(getattr(owner, name), drop_self=not isinstance(value, classmethod))
    return f"- `.{name}{signature}`: {_summary(getattr(owner, name))}\n"


def _signature(value: object, drop_self: bool = False) -> str:
    """The parameters and their defaults, without types."""
    signature = inspect.signature(value)  # type: ignore[arg-type]
    parameters = list(signature.parameters.values())[drop_self:]
    bare = [
        one.replace(annotation=inspect.Parameter.empty, default=_default(one.default))
        for one in parameters
    ]
    text = str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    return text.replace("=Ellipsis", "=...")


def _default(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    return ... if "factory" in repr(value) or " at 0x" in repr(value) else value


def _summary(value: object) -> str:
    return (inspect.getdoc(value) or "").partition("\n\n")[0].replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(page())
