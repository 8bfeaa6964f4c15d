"""`disinherit ui`: the web dashboard, over a coordinator or over folders of runs."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from disinherit.cli.commands import CONNECTION, options_in
from disinherit.cli.connection import Connection
from disinherit.cli.output import warn_line

if TYPE_CHECKING:
    from disinherit.ui.serving import Address

EXAMPLES = (
    "Examples:\n\n"
    "disinherit ui runs/\n\n"
    "disinherit ui --server coordinator.example:50051 --ca ca.crt\n\n"
    "disinherit ui --server coordinator.example:50051 --host 0.0.0.0 --host-name ui.example "
    "--tls-cert ui.pem --tls-key ui.key"
)

_connection = options_in(CONNECTION)
_pem = functools.partial(_connection, metavar="PEM")


def ui(
    runs: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUNS]",
            help="Show the finished runs and benchmarks in this folder, instead of a coordinator.",
        ),
    ] = None,
    server: Annotated[
        str,
        _connection(
            metavar="HOST:PORT",
            envvar="DISINHERIT_SERVER",
            show_envvar=False,
            help="The coordinator to show; DISINHERIT_SERVER by default.",
        ),
    ] = "",
    ca: Annotated[
        Path | None,
        _pem(
            envvar="DISINHERIT_CA", help="The authority that signed the coordinator's certificate."
        ),
    ] = None,
    client_cert: Annotated[
        Path | None,
        _pem(
            envvar="DISINHERIT_CERT",
            help="The dashboard's certificate towards the coordinator, for mutual TLS.",
        ),
    ] = None,
    client_key: Annotated[
        Path | None,
        _pem(envvar="DISINHERIT_KEY", help="The private key of that certificate."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; another one than this machine needs TLS.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen at; 0 for any free one.")
    ] = 8787,
    host_name: Annotated[
        list[str] | None,
        typer.Option(help="Name under which browsers reach it, if it is another. Repeat."),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(metavar="PEM", help="The dashboard's certificate with its chain."),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="PEM", help="The private key of that certificate.")
    ] = None,
) -> int:
    """Show a coordinator, or folders of runs, in a browser, until Ctrl-C.

    Visitors of a coordinator sign in with their own access tokens, and may do what their roles
    may. Without --host, only this machine reaches it.
    """
    # Imported here: no other command needs a web server.
    from disinherit.common.errors import InputError
    from disinherit.ui.serving import Address, serve

    address = Address(host, port, tls_cert, tls_key, tuple(host_name or ()))
    if runs is not None:
        from disinherit.ui.local import check_folder, local_application

        check_folder(runs)
        what = f"runs in {runs}, read only; no sign-in"
        serve(lambda _: local_application(runs, address.hosts), address, _ready(what, address))
        return 0
    if not server:
        raise InputError(
            "Expected a folder of runs, or a coordinator with --server HOST:PORT, but got neither."
        )
    from disinherit.ui.application import Dashboard
    from disinherit.ui.cookies import Cookies
    from disinherit.ui.visitors import CHANNEL_OPTIONS, Visitor

    connection = Connection(server, ca=ca, cert=client_cert, key=client_key)
    with connection.open_channel(CHANNEL_OPTIONS) as channel:
        serve(
            lambda port: Dashboard(
                lambda token: Visitor(channel, server, token),
                server,
                Cookies(port, address.secure),
            ).application(address.hosts),
            address,
            _ready(f"the coordinator {server}; visitors sign in with their tokens", address),
        )
    return 0


def _ready(what: str, address: "Address") -> Callable[[str], None]:
    """Return what says where the dashboard is, and how safe the way to it is."""
    way = "TLS" if address.secure else "plaintext, on this machine only"

    def say(url: str) -> None:
        warn_line(f"Dashboard: {url} ({way})")
        warn_line(f"It shows {what}. End it with Ctrl-C.")

    return say
