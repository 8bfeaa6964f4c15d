"""The `disinherit` command.

Exit codes: 0 done; 1 a campaign did not complete; 2 wrong input, one line on standard error says
what, what was expected and what to do; 130 interrupted.
"""

import importlib.metadata
import sys
from typing import Annotated

import click
import typer

from disinherit.cli import (
    agent,
    audit,
    audit_verify,
    bench,
    confirm,
    coverage,
    demo,
    deploy,
    graph,
    invite,
    model,
    report,
    request,
    request_report,
    revoke,
    samples,
    serve,
    simulate,
)
from disinherit.cli.output import print_line, warn_line
from disinherit.common.errors import DisinheritError
from disinherit.common.extras import how_to_install, missing_extra

_INTERRUPTED = 130

app = typer.Typer(
    name="disinherit",
    help="Make a network of models that inherit from each other forget, in one parallel step.",
    epilog="Start with: disinherit demo",
    no_args_is_help=True,
    suggest_commands=False,  # click does
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(name="demo", epilog=demo.EXAMPLES)(demo.demo)
app.command(name="report", epilog=report.EXAMPLES)(report.report)
app.command(name="simulate", epilog=simulate.EXAMPLES)(simulate.simulate)
app.add_typer(bench.app, name="bench")
app.add_typer(graph.app, name="graph")
app.command(name="serve", epilog=serve.EXAMPLES)(serve.serve)
request.app.command(name="report", epilog=request_report.EXAMPLES)(request_report.report)
app.add_typer(request.app, name="request")
app.add_typer(model.app, name="model")
app.add_typer(samples.app, name="samples")
app.command(name="coverage", epilog=coverage.EXAMPLES)(coverage.coverage)
audit.app.command(name="verify", epilog=audit_verify.EXAMPLES)(audit_verify.verify)
app.add_typer(audit.app, name="audit")
app.add_typer(deploy.app, name="deploy")
app.command(name="invite", epilog=invite.EXAMPLES)(invite.invite)
app.command(name="revoke", epilog=revoke.EXAMPLES)(revoke.revoke)
app.add_typer(confirm.app, name="confirm")
app.command(name="agent", epilog=agent.EXAMPLES)(agent.agent)


def _version(wanted: bool) -> None:
    if wanted:
        print_line(f"disinherit {importlib.metadata.version('disinherit')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Hold the options that stand before a command."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: instead of those of the process.

    Returns:
        The exit code.
    """
    try:
        code = app(arguments, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        for line in error.format_message().splitlines():
            print_line(line)
        return 2
    except click.ClickException as error:
        return _fail(error.format_message(), 2)
    except DisinheritError as error:
        return _fail(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        words = sys.argv[1:] if arguments is None else arguments
        extra = missing_extra(error.name or "", next(iter(words), ""))
        if extra is None:
            raise
        return _fail(
            f"Expected the package {error.name!r} to be installed, but it is not. Run "
            f"{how_to_install(extra)}.",
            2,
        )
    except click.Abort:
        return _interrupted()
    # Typer makes this exit code of a KeyboardInterrupt, and says nothing.
    if code == _INTERRUPTED:
        return _interrupted()
    return code if isinstance(code, int) else 0


def _interrupted() -> int:
    return _fail("interrupted; start the same command again to go on", _INTERRUPTED)


def _fail(message: str, code: int) -> int:
    warn_line(f"error: {' '.join(message.split())}")
    return code
