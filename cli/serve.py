"""`disinherit serve`: the coordinator as a service."""

import enum
import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from disinherit.cli.output import warn_line

if TYPE_CHECKING:
    from disinherit.server.service.listening import UiSettings
    from disinherit.ui.beside import Beside

EXAMPLES = (
    "Examples:\n\n"
    "disinherit serve --config serve.toml\n\n"
    "disinherit serve --database coordinator.db --tokens tokens.toml --plaintext\n\n"
    "disinherit serve --database postgresql+psycopg://host/fleet --tokens tokens.toml "
    "--listen 0.0.0.0:50051 --tls-cert server.pem --tls-key server.key --tls-client-ca ca.pem"
)

_AWAKE_SECONDS = 0.5


class LogFormat(enum.StrEnum):
    """Form of the lines of a log."""

    TEXT = "text"
    JSON = "json"


def serve(
    config: Annotated[
        Path | None, typer.Option(help="TOML with all these options and the port for agents.")
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            envvar="DISINHERIT_DATABASE",
            help="An SQLite file, or an SQLAlchemy URL. Put a URL with a password into the "
            "environment or the configuration.",
        ),
    ] = None,
    packets: Annotated[
        str | None,
        typer.Option(
            help="Folder of Fisher packets, or an fsspec URL; beside an SQLite file by default."
        ),
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="host:port; by default 127.0.0.1:50051.")
    ] = None,
    tokens: Annotated[
        Path | None, typer.Option(help="TOML with digests and roles of accepted tokens.")
    ] = None,
    approval: Annotated[
        bool | None,
        typer.Option(help="Whether requests wait for an approver; yes by default."),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="The service's certificate with its chain, PEM.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="mTLS: authority of the clients' certificates, PEM.")
    ] = None,
    signing_key: Annotated[
        Path | None,
        typer.Option(
            help="Ed25519 key that signs records, PEM, created if missing; beside an SQLite "
            "file by default."
        ),
    ] = None,
    log_format: Annotated[
        LogFormat, typer.Option(help="Lines of the log: text, or JSON with fields.")
    ] = LogFormat.TEXT,
    plaintext: Annotated[
        bool, typer.Option("--plaintext", help="Without TLS, on this machine only.")
    ] = False,
) -> int:
    """Serve the coordinator until SIGTERM or Ctrl-C, and drive its campaigns."""
    # Imported here because torch takes seconds, which --help should not.
    import logging
    import signal
    import threading

    from disinherit.common.errors import InputError
    from disinherit.common.files import keep_private
    from disinherit.server.ports.doors import use_descriptors
    from disinherit.server.service.banner import describe
    from disinherit.server.service.hosting import Service
    from disinherit.server.service.life_lines import JsonLines
    from disinherit.server.service.settings import as_place, read_settings, shows_password

    if database is not None and shows_password(database, sys.argv):
        warn_line(
            "The password in --database can be seen by all users of this machine: put the URL into "
            "DISINHERIT_DATABASE or the configuration, or the password into ~/.pgpass"
        )
    settings = read_settings(
        config,
        {
            "database": None if database is None else as_place(database),
            "packets": None if packets is None else as_place(packets),
            "listen": listen,
            "tokens": tokens,
            "approval": approval,
            "signing_key": signing_key,
        },
        {"certificate": tls_cert, "key": tls_key, "client_ca": tls_client_ca},
    )
    if settings.tls is None and not plaintext:
        raise InputError(
            "Expected TLS files (--tls-cert, --tls-key), but got none. To do without on this "
            "machine only, give --plaintext."
        )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)  # the store says what it upgraded
    if log_format is LogFormat.JSON:
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonLines())
    keep_private()
    use_descriptors()
    dashboard = None if settings.ui is None else _listen(settings.ui)
    service = Service(settings)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    service.start()
    if dashboard is not None and service.inner is not None:
        host = settings.listen.rpartition(":")[0]
        dashboard.start(service.inner.target, f"{host}:{service.port}")
    _collect_seldom()
    parts = describe(settings, service)
    if log_format is LogFormat.JSON:
        fields = {"event": "started", "settings": parts}
        logging.getLogger(__name__).info("serving on port %d", service.port, extra=fields)
    else:
        warn_line(f"serving on port {service.port}")
        for name, text in parts.items():
            warn_line(f"  {name:<10} {text}")
    # Each wait has a timeout: a signal delivered to another thread (gRPC has some) does not wake
    # this one, and Python runs the handler only here.
    while not stopped.wait(_AWAKE_SECONDS):
        pass
    if dashboard is not None:
        dashboard.stop()
    service.stop()
    return 0


def _listen(settings: "UiSettings") -> "Beside":
    """Return a dashboard that listens, and serves once it is started.

    Raises:
        InputError: if its address cannot be used.
    """
    # Imported here: most coordinators have none, and need no web server.
    from disinherit.ui.beside import Beside
    from disinherit.ui.serving import Address

    host, _, port = settings.listen.rpartition(":")
    return Beside(
        Address(
            host.removeprefix("[").removesuffix("]"),
            int(port),
            settings.certificate,
            settings.key,
            settings.host_names,
            settings.client_ca,
        )
    )


def _collect_seldom() -> None:
    """Look for cycles of objects seldom, and no more at what lives as long as this process.

    By default, each answer of ten thousand rows has all parsed records looked at several times,
    which takes twice as long as to make the answer.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
