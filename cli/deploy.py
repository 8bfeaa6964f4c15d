"""`disinherit deploy up|down|status`: a whole fleet on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from disinherit.cli.output import Format, FormatOption, print_json, progress

app = typer.Typer(
    help="Run a coordinator, a SuperLink, SuperNodes and agents on this machine.",
    no_args_is_help=True,
)

FolderOption = Annotated[
    Path, typer.Option(help="Keys, configuration, databases, models and logs: everything.")
]
_FOLDER = Path("deployment")


@app.command(epilog="Example: disinherit deploy up --nodes 3 --factory my_models:open_owner")
def up(
    folder: FolderOption = _FOLDER,
    nodes: Annotated[int, typer.Option(min=0, max=200, help="Number of SuperNodes.")] = 3,
    agents: Annotated[int, typer.Option(min=0, max=200, help="Number of agents.")] = 0,
    factory: Annotated[
        str, typer.Option(help="module:function that opens the models of a node's owner.")
    ] = "",
    agent_factory: Annotated[
        str, typer.Option(help="The same for agents' owners, which are told otherwise.")
    ] = "",
    port: Annotated[
        int | None,
        typer.Option(help="The first of those that follow each other; 50051 for a new deployment."),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(help="Under which other machines reach this one; again for each name."),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Start everything, or what is not running yet, and say where it is.

    What exits is started again, until `disinherit deploy down`.
    """
    from disinherit.client.factory import load_function
    from disinherit.deploy import without_models
    from disinherit.deploy.up import Wanted, supervisor_of
    from disinherit.deploy.up import up as start

    for name in filter(None, (factory, agent_factory)):
        load_function(name)
    wanted = Wanted(
        node_factory=factory or without_models.FOR_NODES,
        agent_factory=agent_factory or without_models.FOR_AGENTS,
        nodes=nodes,
        agents=agents,
        first_port=port,
        hosts=host or (),
    )
    with progress() as say:
        files = start(folder, wanted, say)
    where = {
        "service": f"{files.hosts[0]}:{files.ports.service}",
        "agents": f"{files.hosts[0]}:{files.ports.agents}",
        "enrolment": f"{files.hosts[0]}:{files.ports.enrol}",
        "nodes": f"{files.hosts[0]}:{files.ports.nodes}",
        "ca": str(files.ca),
        "operator_token": files.token_file("operator").read_text().strip(),
        "approver_token_file": str(files.token_file("approver")),
        "logs": str(supervisor_of(files.root).folder),
    }
    if form is Format.JSON:
        print_json(where)
        return 0
    typer.echo(supervisor_of(files.root).status(), nl=False)
    typer.echo(f"\nagents connect to {where['agents']}, and enrol at {where['enrolment']}")
    typer.echo(f"SuperNodes connect to {where['nodes']}; logs are in {where['logs']}")
    if not (factory or agent_factory) and nodes + agents:
        typer.echo("owners have no models yet: say where theirs are, --factory module:function")
    typer.echo("\nto ask the coordinator:")
    typer.echo(f"  export DISINHERIT_SERVER={where['service']} DISINHERIT_CA={where['ca']}")
    typer.echo(f"  export DISINHERIT_TOKEN={where['operator_token']}")
    typer.echo("  disinherit request list")
    typer.echo(f"to approve what was submitted: --token $(cat {where['approver_token_file']})")
    return 0


@app.command(epilog="Example: disinherit deploy down")
def down(folder: FolderOption = _FOLDER) -> int:
    """End everything that `up` started; keys, databases and models stay."""
    from disinherit.deploy.up import down as end

    typer.echo("everything has ended" if end(folder) else "nothing was running")
    return 0


@app.command(epilog="Example: disinherit deploy status")
def status(folder: FolderOption = _FOLDER) -> int:
    """Say how the programs are; exit code 1 if none is running."""
    from disinherit.deploy.up import supervisor_of

    supervisor = supervisor_of(folder.absolute())
    if not supervisor.running():
        typer.echo("nothing is running")
        return 1
    typer.echo(supervisor.status(), nl=False)
    return 0
