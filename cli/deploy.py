"""`disinherit deploy`: a whole fleet on this machine, or its files for other supervisors."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from disinherit.cli.commands import Commands
from disinherit.cli.output import (
    Format,
    FormatOption,
    print_done,
    print_json,
    print_line,
    progress,
    warn_line,
)
from disinherit.client.owner.factory import load_function
from disinherit.deploy.backup import back_up
from disinherit.deploy.enrolment import admit_node
from disinherit.deploy.files import FleetFiles
from disinherit.deploy.moving import move as readdress
from disinherit.deploy.preparation import prepare as write
from disinherit.deploy.preparation import prepared
from disinherit.deploy.up import Wanted, folders_without_models, supervisor_of
from disinherit.deploy.up import down as end
from disinherit.deploy.up import up as start

app = Commands("Run a coordinator, a SuperLink, SuperNodes and agents on this machine.")

FolderOption = Annotated[
    Path, typer.Option(help="Folder of all keys, configuration, databases, models and logs.")
]
_FOLDER = Path("deployment")


@app.command(epilog="Example: disinherit deploy up --nodes 3 --factory my_models:open_owner")
def up(
    folder: FolderOption = _FOLDER,
    nodes: Annotated[
        int | None,
        typer.Option(min=0, max=200, help="Number of SuperNodes; as before, or 3 at first."),
    ] = None,
    agents: Annotated[
        int | None,
        typer.Option(min=0, max=200, help="Number of agents; as before, or none at first."),
    ] = None,
    factory: Annotated[
        str | None,
        typer.Option(help="module:function that opens the models of a node's owner; as before."),
    ] = None,
    agent_factory: Annotated[
        str | None,
        typer.Option(
            help="Like --factory, for owners served by agents (they get the agent's configuration)."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help="First of five consecutive ports; 50051 for a new deployment."),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(help="Host name of this machine as others see it. Repeat."),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Start all programs that are not running, and print their addresses.

    A program that exits is restarted, until `disinherit deploy down` or a shutdown.  Afterwards run
    `up` without options: nodes, agents and factories are remembered.
    """
    for name in filter(None, (factory, agent_factory)):
        load_function(name)
    wanted = Wanted(
        node_factory=factory,
        agent_factory=agent_factory,
        nodes=nodes,
        agents=agents,
        first_port=port,
        hosts=host or (),
    )
    with progress() as say:
        files = start(folder, wanted, say)
    where = {
        **_addresses(files),
        "ca": str(files.ca),
        "operator_token_file": str(files.token_file("operator")),
        "approver_token_file": str(files.token_file("approver")),
        "logs": str(supervisor_of(files.root).folder),
    }
    if form is Format.JSON:
        print_json(where)
        return 0
    for line in supervisor_of(files.root).status().splitlines():
        print_line(line)
    print_line()
    print_line(f"agents connect to {where['agents']}, and enrol at {where['enrolment']}")
    print_line(f"SuperNodes connect to {where['nodes']}; logs are in {where['logs']}")
    for owner, owned in folders_without_models(files).items():
        print_line(
            f"{owner} has no models yet: give the function that opens them with --factory "
            f"module:function (--agent-factory for agents); its folder is {owned}"
        )
    print_line()
    print_line("to call the coordinator:")
    print_line(f"  export DISINHERIT_SERVER={where['service']} DISINHERIT_CA={where['ca']}")
    print_line(f"  export DISINHERIT_TOKEN=$(cat {shlex.quote(where['operator_token_file'])})")
    print_line("  disinherit request list")
    print_line("to approve a request:")
    approver = shlex.quote(where["approver_token_file"])
    print_line(f"  DISINHERIT_TOKEN=$(cat {approver}) disinherit request approve REQUEST")
    return 0


@app.command(epilog="Example: disinherit deploy down")
def down(folder: FolderOption = _FOLDER, form: FormatOption = Format.TABLE) -> int:
    """Stop all programs that `up` started; keys, databases and models remain."""
    ended = end(folder)
    said = "everything has ended" if ended else "nothing was running"
    print_done(form, {"ended": ended}, said)
    return 0


@app.command(epilog="Example: disinherit deploy status")
def status(folder: FolderOption = _FOLDER, form: FormatOption = Format.TABLE) -> int:
    """Print the state of the programs; exit code 1 if none is running."""
    supervisor = supervisor_of(folder.absolute())
    lines = supervisor.status().splitlines() if supervisor.running() else []
    if form is Format.JSON:
        found = [line.split(maxsplit=2) for line in lines]
        print_json([dict(zip(("program", "state", "text"), one, strict=False)) for one in found])
    elif not lines:
        print_line("nothing is running")
    for line in lines if form is not Format.JSON else ():
        print_line(line)
    return 0 if lines else 1


@app.command(
    epilog="Example: disinherit deploy prepare --folder /var/lib/disinherit --host fleet.org"
)
def prepare(
    folder: FolderOption = _FOLDER,
    port: Annotated[
        int | None, typer.Option(help="First of five consecutive ports; 50051 by default.")
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(help="Host name of this machine as others see it. Repeat."),
    ] = None,
    database: Annotated[
        str, typer.Option(help="An SQLite file in the folder, or an SQLAlchemy URL.")
    ] = "coordinator.db",
    form: FormatOption = Format.TABLE,
) -> int:
    """Write keys, certificates, tokens and configuration, and start nothing.

    Existing files are kept. For systemd or containers, which then run the programs.
    """
    files = write(folder, port, host or (), database)
    print_done(
        form,
        {"folder": str(files.root), "ca": str(files.ca)},
        f"{files.root} has all that the coordinator's machine needs",
        f"owners need {files.ca}",
    )
    return 0


@app.command(epilog="Example: disinherit deploy move --port 50151 --host coordinator.example.org")
def move(
    folder: FolderOption = _FOLDER,
    port: Annotated[
        int | None, typer.Option(help="First of five consecutive ports; as before by default.")
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(help="Host name of this machine as others see it; as before. Repeat."),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Give a stopped deployment other ports or host names, with the keys and data it has.

    Owners then need the new address in `server` and `enrol_server` of `agent.toml`, and nothing
    else.  Comments in `serve.toml` are lost.
    """
    files = readdress(folder, port, host or ())
    where = _addresses(files)
    print_done(
        form,
        where,
        f"operators call {where['service']}",
        f"agents connect to {where['agents']}",
        f"SuperNodes connect to {where['nodes']}",
    )
    return 0


@app.command(epilog="Example: disinherit deploy admit anna anna.pub")
def admit(
    owner: Annotated[str, typer.Argument(help="Owner of the models that the node serves.")],
    key: Annotated[Path, typer.Argument(help="Public key of its SuperNode.")],
    folder: FolderOption = _FOLDER,
    form: FormatOption = Format.TABLE,
) -> int:
    """Admit an owner's SuperNode by its public key; the SuperLink must be running.

    The run of the ServerApp reads the owners of nodes at its start. Restart it afterwards:
    `disinherit deploy up`, or `systemctl restart disinherit-run`.
    """
    files = prepared(folder)
    admit_node(files, owner, key)
    at = _addresses(files)["nodes"]
    said = f"the node of {owner} is admitted at {at}"
    print_done(form, {"owner": owner, "admitted": True, "nodes": at}, said)
    return 0


@app.command(epilog="Example: disinherit deploy backup /backup/2026-11-26")
def backup(
    target: Annotated[Path, typer.Argument(help="New folder; it will hold all keys.")],
    folder: FolderOption = _FOLDER,
    form: FormatOption = Format.TABLE,
) -> int:
    """Copy a deployment, which may be running; it can be started from the copy.

    Copies databases, Fisher packets, keys, tokens and configuration; not the owners' models.
    """
    elsewhere = back_up(prepared(folder), target)
    for left in elsewhere:
        warn_line(f"not in the copy: {left}")
    said = f"{target} has the current deployment"
    print_done(form, {"copy": str(target), "not_in_the_copy": elsewhere}, said)
    return 0


def _addresses(files: FleetFiles) -> dict[str, str]:
    """Return what listens for others -> host and port."""
    host, ports = files.hosts[0], files.ports
    return {
        "service": f"{host}:{ports.service}",
        "agents": f"{host}:{ports.agents}",
        "enrolment": f"{host}:{ports.enrol}",
        "nodes": f"{host}:{ports.nodes}",
    }
