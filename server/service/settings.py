"""Settings of `disinherit serve`, from a file and options.

::

    database = "coordinator.db"   # a file, or an SQLAlchemy URL
    packets = "packets"           # folder of Fisher packets; beside an SQLite file by default
    listen = "0.0.0.0:50051"
    tokens = "tokens.toml"        # see disinherit.server.service.principals
    approval = true               # campaigns wait for an approver

    [tls]
    certificate = "server.pem"
    key = "server.key"
    client_ca = "ca.pem"          # optional: clients must present a certificate

    [signing]                     # optional: sign exports and attestations
    key = "signing.pem"           # created on first use; beside an SQLite file by default

    [agents]                      # optional: serve agents on ports of their own
    authority = "authority"       # folder of the fleet's certificate authority
    hosts = ["fleet.example.org"] # host names of this machine for agents
    listen = "0.0.0.0:50052"
    enrol_listen = "0.0.0.0:50053"

    [metrics]                     # optional: serve figures for Prometheus, over HTTP
    listen = "127.0.0.1:9464"     # the default

    [ui]                          # optional: the web dashboard
    listen = "127.0.0.1:8787"     # the default

    [[webhooks]]                  # optional: tell another program, as often as needed
    url = "https://chat.example.org/hook"
    secret = "webhook.secret"     # signs the messages
    events = ["awaiting_approval", "halted", "done", "deadline_near"]  # the default
    deadline_near = "24h"         # the default
    details = false               # whether to send reasons and names of models

Paths in a file are relative to its folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from msgspec import Meta
from msgspec.structs import asdict

from disinherit.common.connecting import is_loopback
from disinherit.common.durations import seconds
from disinherit.common.errors import InputError
from disinherit.common.settings import Filled, Secret, Table, located, read
from disinherit.server.agents.fleet import FleetSettings
from disinherit.server.service.listening import TlsFiles, UiSettings, check_address
from disinherit.server.service.webhook_messages import EVENTS
from disinherit.server.service.webhooks import WebhookSettings


class _Tls(Table):
    """TLS for operators; without it, `--plaintext` serves this machine only.

    Attributes:
        certificate: file of the service's certificate with its chain, PEM.
        key: file of its private key, PEM.
        client_ca: file of the authority whose certificates callers must present (mTLS), PEM;
            without it, tokens alone say who calls.
    """

    certificate: Filled | None = None  # may come from an option
    key: Filled | None = None
    client_ca: Filled | None = None


class _Signing(Table):
    """The signature of exports and attestations.

    Attributes:
        key: file of the Ed25519 key, PEM, created on first use. Without this table it is beside an
            SQLite file; with another database nothing is signed.
    """

    key: Filled


class _Agents(Table):
    """Agents, on ports of their own; without this table none are served.

    Attributes:
        authority: folder of the fleet's certificate authority, created if missing. Every agent
            needs the file `ca.pem` in it.
        hosts: names under which agents reach this machine.
        listen: address for connections of agents, `host:port`.
        enrol_listen: address for agents that enrol, `host:port`.
        agents: most agents that are connected at a time.
    """

    authority: Filled
    hosts: Annotated[list[Filled], Meta(min_length=1)]
    listen: str
    enrol_listen: str
    agents: Annotated[int, Meta(ge=1)] | None = None


class _Metrics(Table):
    """Figures for Prometheus, over HTTP; without this table there are none.

    Attributes:
        listen: address, `host:port`. Anybody who reaches it may read them.
    """

    listen: str = "127.0.0.1:9464"


class _Ui(Table):
    """The web dashboard, in the coordinator's process; without this table there is none.

    Attributes:
        listen: address for browsers, `host:port`.
        certificate: file of the certificate that browsers see, with its chain, PEM; that of `[tls]`
            by default, and none on this machine. Where `[tls]` has a `client_ca`, browsers must
            present a certificate, too.
        key: file of its private key, PEM.
        host_names: further names under which browsers reach it.
    """

    listen: str = "127.0.0.1:8787"
    certificate: Filled | None = None
    key: Filled | None = None
    host_names: tuple[Filled, ...] = ()


class _Webhook(Table):
    """A program that is told of campaigns; as many tables as there are programs.

    Attributes:
        url: where messages are sent, by `https`, or by `http` on this machine.
        secret: file of the secret that signs them.
        events: what it is told.
        deadline_near: how long before its deadline an open campaign is reported: a whole number
            with `s`, `m`, `h` or `d` for seconds, minutes, hours or days.
        details: whether messages have the reason, why a campaign was halted, and its roots.
    """

    url: Secret  # may contain a password
    secret: Filled
    events: list[Literal["awaiting_approval", "halted", "done", "deadline_near"]] | None = None
    deadline_near: str = "24h"
    details: bool = False


class _ServiceFile(Table):
    """The coordinator; `disinherit serve --config serve.toml`.

    Attributes:
        database: the store: an SQLite file, or an SQLAlchemy URL such as
            `postgresql+psycopg://host/fleet`.
        packets: folder of Fisher packets, or an fsspec URL; beside an SQLite file by default.
        listen: address for operators, `host:port`.
        tokens: file of the accepted tokens.
        approval: whether requests wait for an approver.
        tls: certificates; below.
        signing: signatures; below.
        agents: ports for agents; below.
        metrics: figures for Prometheus; below.
        ui: the web dashboard; below.
        webhooks: programs that are told; below.
    """

    database: Secret | None = None  # a URL may contain a password
    packets: Secret | None = None
    listen: str | None = None
    tokens: Filled | None = None
    approval: bool | None = None
    tls: _Tls | None = None
    signing: _Signing | None = None
    agents: _Agents | None = None
    metrics: _Metrics | None = None
    ui: _Ui | None = None
    webhooks: tuple[_Webhook, ...] = ()


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Settings of a service.

    Attributes:
        database: the coordinator's store: an SQLite file, or an SQLAlchemy URL.
        packets: folder of Fisher packets, or an fsspec URL; `None` for the store's default.
        listen: `host:port`.
        tokens: the token file.
        tls: secures the channel; `None` for plaintext.
        approval: whether campaigns wait for an approval.
        agents: settings of the agent side; `None` to serve no agents.
        signing_key: file of the signing key; `None` for the default, which is beside an SQLite
            file. With another database, the default is not to sign.
        metrics: `host:port` where it serves metrics; `None` for nowhere.
        webhooks: who is told when a campaign needs somebody, or is over.
        ui: the dashboard beside it; `None` for none.
    """

    database: str | Path
    tokens: Path
    listen: str = "127.0.0.1:50051"
    packets: str | Path | None = None
    tls: TlsFiles | None = None
    approval: bool = True
    agents: FleetSettings | None = None
    signing_key: Path | None = None
    metrics: str | None = None
    webhooks: Sequence[WebhookSettings] = ()
    ui: UiSettings | None = None


def read_settings(
    config: Path | None, options: Mapping[str, Any], tls_options: Mapping[str, Path | None]
) -> ServeSettings:
    """Merge a file and options; options win.

    Args:
        config: the file, or `None`.
        options: values by key, `None` where not given.
        tls_options: the same for the table `tls`.

    Raises:
        InputError: if the file is malformed, or a setting is missing.
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
    files = TlsFiles(**tls) if tls else None
    if isinstance(ui := values.pop("ui", None), _Ui):
        values["ui"] = _dashboard(ui, files, cast("Path", config))
    settings = ServeSettings(**values, tls=files)
    check_address(settings.listen)
    return settings


def as_place(text: str) -> str | Path:
    """Return a URL unchanged, and other text as a path.

    Example:
        >>> as_place("postgresql+psycopg://host/fleet")
        'postgresql+psycopg://host/fleet'
        >>> as_place("coordinator.db")
        PosixPath('coordinator.db')
    """
    return text if "://" in text else Path(text)


def shows_password(database: str, arguments: Sequence[str]) -> bool:
    """Return whether a program's arguments reveal the password of a URL to other users.

    Args:
        database: a file or a URL.
        arguments: the program's arguments.

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
    """Return the values in a file by the names of `ServeSettings`; those of `tls` as a table."""
    found = read(_ServiceFile, config, "a file")
    folder = config.parent
    values: dict[str, Any] = {"listen": found.listen, "approval": found.approval}
    for key, place in (("database", found.database), ("packets", found.packets)):
        if place is not None:
            at = as_place(place)
            values[key] = folder / at if isinstance(at, Path) else at
    values["tokens"] = None if found.tokens is None else folder / found.tokens
    values["signing_key"] = None if found.signing is None else folder / found.signing.key
    if found.agents is not None:
        values["agents"] = _fleet(found.agents, config)
    values["webhooks"] = tuple(
        _webhook(one, number, config) for number, one in enumerate(found.webhooks, start=1)
    )
    values["ui"] = found.ui
    if found.metrics is not None:
        values["metrics"] = found.metrics.listen
        with located(f"metrics.listen in {str(config)!r}"):
            check_address(found.metrics.listen)
    if found.listen is not None:
        with located(f"listen in {str(config)!r}"):
            check_address(found.listen)
    tls = {
        key: folder / path for key, path in asdict(found.tls or _Tls()).items() if path is not None
    }
    return {key: value for key, value in values.items() if value is not None} | {"tls": tls}


def _webhook(found: _Webhook, number: int, config: Path) -> WebhookSettings:
    with located(f"webhooks[{number}] in {str(config)!r}"):
        return WebhookSettings(
            url=found.url,
            secret=config.parent / found.secret,
            events=EVENTS if found.events is None else tuple(found.events),
            near_seconds=seconds(found.deadline_near),
            details=found.details,
        )


def _dashboard(found: _Ui, tls: TlsFiles | None, config: Path) -> UiSettings:
    folder = config.parent
    certificate, key = (folder / one if one else None for one in (found.certificate, found.key))
    with located(f"ui in {str(config)!r}"):
        clients = None if tls is None else tls.client_ca
        apart = is_loopback(check_address(found.listen)) and clients is None
        if certificate is key is None and tls is not None and not apart:
            certificate, key = tls.certificate, tls.key
        return UiSettings(found.listen, certificate, key, clients, found.host_names)


def _fleet(found: _Agents, config: Path) -> FleetSettings:
    for key, address in (("listen", found.listen), ("enrol_listen", found.enrol_listen)):
        with located(f"agents.{key} in {str(config)!r}"):
            check_address(address)
    most = {} if found.agents is None else {"agents": found.agents}
    return FleetSettings(
        authority=config.parent / found.authority,
        hosts=found.hosts,
        listen=found.listen,
        enrol_listen=found.enrol_listen,
        **most,
    )
