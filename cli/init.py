"""`disinherit init`: first configurations, with a comment for every setting."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from disinherit.cli.output import Format, FormatOption, print_done
from disinherit.common.errors import InputError
from disinherit.common.files import write_atomic

EXAMPLES = (
    "Examples:\n\n"
    "disinherit init coordinator --folder /etc/disinherit\n\n"
    "disinherit init agent --owner anna"
)

_SERVE = """\
# The coordinator: disinherit serve --config serve.toml
# Paths are relative to this file.  Check it with: disinherit config check serve.toml

database = "coordinator.db"      # an SQLite file, or an SQLAlchemy URL
tokens = "tokens.toml"           # who may call: disinherit token new NAME --role operator
listen = "127.0.0.1:50051"       # for operators; beyond this machine only with [tls]
approval = true                  # requests wait for a second person
# packets = "packets"            # folder of Fisher packets; beside an SQLite file by default

# [tls]                          # without it, start with --plaintext, on this machine only
# certificate = "server.pem"
# key = "server.key"
# client_ca = "ca.pem"           # callers must present a certificate of this authority

# [signing]                      # signs exports and attestations
# key = "signing.pem"            # created if missing; beside an SQLite file by default

# [agents]                       # serves agents on ports of their own
# authority = "authority"        # folder of the fleet's certificate authority
# hosts = ["fleet.example.org"]  # names of this machine for agents: a DNS name, not an address
# listen = "0.0.0.0:50052"
# enrol_listen = "0.0.0.0:50053"

# [metrics]                      # figures for Prometheus, over HTTP
# listen = "127.0.0.1:9464"

# [ui]                           # the web dashboard, for visitors with their own tokens
# listen = "127.0.0.1:8787"      # beyond this machine only with TLS: this table's, or that of [tls]
# certificate = "ui.pem"
# key = "ui.key"
# host_names = ["ui.example.org"]

# [[webhooks]]                   # tells another program when a campaign needs somebody
# url = "https://chat.example.org/hook"
# secret = "webhook.secret"      # openssl rand -hex 32 > webhook.secret
# events = ["awaiting_approval", "halted", "done", "deadline_near"]
# deadline_near = "24h"
# details = false                # true: also reasons and names of models
"""

_TOKENS = """\
# Who may call the coordinator.  Make an entry and its token: disinherit token new NAME --role ROLE
# Roles: viewer (looks), operator (submits), approver (approves what others submitted), and
# owner:NAME (registers that owner's models).  The file is read again when it changes.
"""

_AGENT = """\
# An agent: disinherit agent --config agent.toml
# Paths are relative to this file.  Check it with: disinherit config check agent.toml

owner = "{owner}"
server = "coordinator.example:50052"         # the coordinator's port for agents
enrol_server = "coordinator.example:50053"   # only to enrol
ca = "ca.pem"                                # the certificate of the fleet's authority
state = "state"                              # folder for key, certificate and downloads
factory = "my_models:open_owner"             # module:function that opens this device's models
# bytes_per_second = 200000                  # up and down, each; left out: no limit
# hours = "22:00-06:00"                      # when it takes part; left out: always

# [release]                                  # conditions on what leaves this device
# min_forget_samples = 20

# [acceptance]                               # whose changes are added to models here
# refuse_deltas_of = ["mallory"]
"""


def init(
    what: Annotated[
        Literal["coordinator", "agent"],
        typer.Argument(
            metavar="WHAT", help="coordinator: serve.toml and tokens.toml. agent: agent.toml."
        ),
    ],
    folder: Annotated[Path, typer.Option(help="Where to write; it is made if missing.")] = Path(),
    owner: Annotated[str, typer.Option(help="Of an agent: owner of its models.")] = "owner",
    form: FormatOption = Format.TABLE,
) -> int:
    """Write a first configuration with comments; files that exist are left alone."""
    files = (
        {"serve.toml": _SERVE, "tokens.toml": _TOKENS}
        if what == "coordinator"
        else {"agent.toml": _AGENT.format(owner=_checked(owner))}
    )
    there = [name for name in files if (folder / name).exists()]
    if there:
        raise InputError(
            f"Expected a folder without {there[0]}, but {folder / there[0]} exists. Choose another "
            "--folder, or move it away."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_atomic(folder / name, text.encode())
    written = [str(folder / name) for name in files]
    lines = [*(f"wrote {path}" for path in written), *_next(what, folder)]
    print_done(form, {"written": written}, *lines)
    return 0


def _checked(owner: str) -> str:
    from disinherit.common.graph.identifiers import check_owner

    return check_owner(owner)


def _next(what: str, folder: Path) -> list[str]:
    if what == "agent":
        return [
            "Then set server, ca and factory, get a token by disinherit owner invite, and run:",
            f"  disinherit agent --config {folder / 'agent.toml'} --enrol - < token",
        ]
    tokens = folder / "tokens.toml"
    return [
        "Then make a token for each person, and start it:",
        f"  disinherit token new alice --role operator --tokens {tokens}",
        f"  disinherit token new bob --role approver --tokens {tokens}",
        f"  disinherit serve --config {folder / 'serve.toml'} --plaintext",
    ]
