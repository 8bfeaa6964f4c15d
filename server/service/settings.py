"""What `disinherit serve` is told, by a file and by options.

::

    database = "coordinator.db"   # a file, or an SQLAlchemy URL
    packets = "packets"           # folder of Fisher packets; beside an SQLite file by default
    listen = "0.0.0.0:50051"
    tokens = "tokens.toml"        # see disinherit.server.service.principals
    approval = true               # campaigns wait for an approver

    [tls]
    certificate = "server.pem"
    key = "server.key"
    client_ca = "ca.pem"          # optional: clients must show a certificate

    [signing]                     # optional: what is handed out is signed
    key = "signing.pem"           # made on first use; beside an SQLite file by default

    [agents]                      # optional: serve agents on ports of their own
    authority = "authority"       # folder of the fleet's certificate authority
    hosts = ["fleet.example.org"] # under which agents reach this machine
    listen = "0.0.0.0:50052"
    enrol_listen = "0.0.0.0:50053"

Paths in a file are relative to its folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from disinherit.common.errors import InputError
from disinherit.common.parsing import load_toml
from disinherit.server.agents.fleet import FleetSettings
from disinherit.server.service.listening import TlsFiles, check_address

_KEYS: Mapping[str, type] = {
    "database": str,
    "packets": str,
    "listen": str,
    "tokens": str,
    "approval": bool,
    "tls": dict,
    "signing": dict,
    "agents": dict,
}
_TLS_KEYS = dict.fromkeys(("certificate", "key", "client_ca"), str)
_SIGNING_KEYS: Mapping[str, type] = {"key": str}
_AGENTS_KEYS: Mapping[str, type] = {
    "authority": str,
    "hosts": list,
    "listen": str,
    "enrol_listen": str,
    "agents": int,
}


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What a service needs to know.

    Attributes:
        database: the coordinator's store: an SQLite file, or an SQLAlchemy URL.
        packets: folder of Fisher packets, or an fsspec URL; `None` for the store's default.
        listen: `host:port`.
        tokens: file of the tokens accepted.
        tls: secures the channel; `None` for plaintext, which must be asked for.
        approval: whether campaigns wait for an approval.
        agents: the agents' side; `None` to serve none.
        signing_key: file of the key that signs what is handed out; `None` for one beside an SQLite
            file, and to sign nothing with any other database.
    """

    database: str | Path
    tokens: Path
    listen: str = "127.0.0.1:50051"
    packets: str | Path | None = None
    tls: TlsFiles | None = None
    approval: bool = True
    agents: FleetSettings | None = None
    signing_key: Path | None = None


def read_settings(
    config: Path | None, options: Mapping[str, Any], tls_options: Mapping[str, Path | None]
) -> ServeSettings:
    """Put a file and options together; options win.

    Args:
        config: the file, if there is one.
        options: values by key, `None` where not given.
        tls_options: the same for the table `tls`.

    Raises:
        InputError: if the file is not such a file, or something is missing.
    """
    values: dict[str, Any] = {} if config is None else _read(config)
    given = {key: value for key, value in options.items() if value is not None}
    tls = {**values.pop("tls", {}), **{k: v for k, v in tls_options.items() if v is not None}}
    values |= given
    for key, example in (("database", "coordinator.db"), ("tokens", "tokens.toml")):
        if key not in values:
            raise InputError(f"Expected --{key}, such as --{key} {example}, but got none.")
    if tls and not {"certificate", "key"} <= set(tls):
        raise InputError(f"Expected certificate and key for TLS, but got {', '.join(sorted(tls))}.")
    settings = ServeSettings(**values, tls=TlsFiles(**tls) if tls else None)
    check_address(settings.listen)
    return settings


def as_place(text: str) -> str | Path:
    """Return a URL as it is, and anything else as a path.

    Example:
        >>> as_place("postgresql+psycopg://host/fleet")
        'postgresql+psycopg://host/fleet'
        >>> as_place("coordinator.db")
        PosixPath('coordinator.db')
    """
    return text if "://" in text else Path(text)


def shows_password(database: str, arguments: Sequence[str]) -> bool:
    """Return whether a program was told a URL with a password where all users can see it.

    Args:
        database: a file or a URL.
        arguments: of the program.

    Example:
        >>> shows_password("postgresql://me:secret@host/fleet", ["--database=postgresql://me:..."])
        False
        >>> url = "postgresql://me:secret@host/fleet"
        >>> shows_password(url, ["serve", "--database", url])
        True
    """
    secret = "://" in database and urlsplit(database).password
    return bool(secret) and any(database in one for one in arguments)


def _read(config: Path) -> dict[str, Any]:
    try:
        values = load_toml(config.read_text())
    except OSError as error:
        raise InputError(f"Expected a file {str(config)!r}, but: {error.strerror}.") from None
    except ValueError as error:
        raise InputError(f"Expected TOML in {str(config)!r}, but: {error}.") from None
    _check(config, "", values, _KEYS)
    tls = values.get("tls", {})
    _check(config, "tls.", tls, _TLS_KEYS)
    folder = config.parent
    if "tokens" in values:
        values["tokens"] = folder / values["tokens"]
    for key in ("database", "packets"):
        if key in values:
            place = as_place(values[key])
            values[key] = folder / place if isinstance(place, Path) else place
    signing = values.pop("signing", {})
    _check(config, "signing.", signing, _SIGNING_KEYS)
    if "key" in signing:
        values["signing_key"] = folder / signing["key"]
    if tls:
        values["tls"] = {key: folder / path for key, path in tls.items()}
    if "agents" in values:
        values["agents"] = _read_agents(config, values["agents"])
    return values


def _read_agents(config: Path, values: dict[str, Any]) -> FleetSettings:
    _check(config, "agents.", values, _AGENTS_KEYS)
    missing = {"authority", "hosts", "listen", "enrol_listen"} - set(values)
    if missing:
        raise InputError(f"Expected agents.{min(missing)} in {str(config)!r}, but got none.")
    for key in ("listen", "enrol_listen"):
        check_address(values[key])
    hosts = values["hosts"]
    if not hosts or not all(isinstance(host, str) for host in hosts):
        raise InputError(
            f"Expected agents.hosts in {str(config)!r} to be names and addresses of this machine, "
            f"but got {hosts}."
        )
    return FleetSettings(**{**values, "authority": config.parent / values["authority"]})


def _check(config: Path, prefix: str, values: Mapping[str, Any], known: Mapping[str, type]) -> None:
    for key, value in values.items():
        if key not in known:
            raise InputError(
                f"Expected one of {', '.join(known)} in {str(config)!r}, but got {prefix}{key}."
            )
        if type(value) is not known[key]:
            raise InputError(
                f"Expected {prefix}{key} in {str(config)!r} to be a {known[key].__name__}, but got "
                f"{value!r}."
            )
