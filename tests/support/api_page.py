"""The API reference, made from the public names: `python -m tests.support.api_page` writes it."""

import ast
import inspect
import re
from collections.abc import Iterable
from enum import Enum
from textwrap import dedent, indent

import disinherit
from tests import ROOT

PAGE = ROOT / "docs" / "api.md"
_HEAD = """# API

The names of `import disinherit`. Everything else may move between releases, but for the messages of
`disinherit.v1`, which are those of `protos/`. A name is loaded when it is first used: the import
itself takes some hundredths of a second and loads no PyTorch.

Below a name are its arguments (`name`), then its attributes and methods (`.name`).

This page is made from the code by `make reference`.
"""


_ONLY = {
    "Coordinator": ("register", "check_held", "preview", "submit", "run", "drive", "evaluate"),
    "CoordinatorStore": ("add_model", "graph", "close"),
    "ModelStore": (
        "add",
        "set_fishers",
        "record",
        "records",
        "weights",
        "fishers",
        "apply",
        "applied",
        "made_by",
        "standing_in",
        "close",
    ),
}
"""Classes of which only some methods are for other code than coordinator and handlers."""

_HEADING = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Example):\n", re.MULTILINE)
_ENTRY = re.compile(r"^([\w.]+): ", re.MULTILINE)


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
    prose, bullets, example = _parts(value)
    lines.append(f"{prose}\n")
    if isinstance(value, type) and issubclass(value, Enum):
        lines.append("\nOne of " + ", ".join(f"`{one.value}`" for one in value) + ".\n")
    elif isinstance(value, type) and not plain:
        bullets += [_member(value, one) for one in public_members(value)]
    if bullets:
        lines += ["\n", *bullets]
    return "".join([*lines, f"\n{example}" if example else ""])


def public_members(value: type) -> Iterable[str]:
    """Names of the methods and properties of a class that are for its users."""
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
    signature = ""
    if not isinstance(value, property):
        bound = isinstance(value, classmethod)
        value = getattr(owner, name)
        signature = _signature(value, drop_self=not bound)
    prose, bullets, example = _parts(value)
    text = "".join([f"{prose}\n", *bullets, f"\n{example}" if example else ""])
    return f"- `.{name}{signature}`: {indent(text, '  ').lstrip()}"


def _parts(value: object) -> tuple[str, list[str], str]:
    """Prose, bullets and example of a docstring."""
    prose, *rest = _HEADING.split(inspect.getdoc(value) or "")
    bullets, example = [], ""
    for heading, body in zip(rest[::2], rest[1::2], strict=True):
        text = dedent(body).strip()
        if heading == "Example":
            example = f"```pycon\n{text}\n```\n"
        elif heading in ("Returns", "Yields"):
            bullets.append(f"- {heading}: {_flowing(text)}\n")
        else:
            shown = {"Args": "`{}`", "Attributes": "`.{}`", "Raises": "Raises `{}`"}[heading]
            _, *entries = _ENTRY.split(text)
            for name, said in zip(entries[::2], entries[1::2], strict=True):
                bullets.append(f"- {shown.format(name)}: {_flowing(said)}\n")
    return prose.strip(), bullets, example


def _flowing(text: str) -> str:
    return " ".join(text.split())


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
    hidden = ("factory", " at 0x", "tensor(")
    return ... if any(part in repr(value) for part in hidden) else value


if __name__ == "__main__":
    PAGE.write_text(page())
