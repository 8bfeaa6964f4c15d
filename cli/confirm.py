"""`disinherit confirm`: confirmations by a person, without which the coordinator stops."""

from pathlib import Path
from typing import Annotated

import typer

from disinherit.cli.commands import Commands
from disinherit.cli.output import as_time, print_line
from disinherit.server.now import now_us
from disinherit.server.service.confirming import PERSON, opened
from disinherit.server.store.clock import confirm_clock
from disinherit.server.store.history import find_lost
from disinherit.server.store.log_mark import mark_file
from disinherit.server.store.retention import find_due
from disinherit.server.store.signed_log import accept_log
from disinherit.server.store.signing import key_file

app = Commands("Confirm the clock, or a log with lost entries; on the coordinator's machine only.")

ConfigOption = Annotated[Path, typer.Option(help="The configuration of `disinherit serve`.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command(epilog="Example: disinherit confirm clock --config serve.toml")
def clock(config: ConfigOption, yes: YesOption = False) -> int:
    """Confirm that the machine's clock is right; on the coordinator's machine only.

    Old versions are then destroyed if their retention window has passed.
    """
    with opened(config) as (database, _):
        with database.reading() as db:
            due = find_due(db)
        print_line(f"the clock shows {as_time(now_us())}")
        for request, models in due.items():
            print_line(f"{request}: destroys the old weights of {', '.join(models)}")
        if not yes:
            typer.confirm("Is it right?", abort=True)
        with database.writing() as db:
            confirm_clock(db, PERSON)
    print_line("confirmed")
    return 0


@app.command(epilog="Example: disinherit confirm history --config serve.toml")
def history(config: ConfigOption, yes: YesOption = False) -> int:
    """Let the coordinator continue with a log that has lost entries; on its machine only.

    Afterwards submit lost requests again under new ids, and repeat lost revocations.
    """
    with opened(config) as (database, settings):
        with database.reading() as db:
            lost = find_lost(db)
        print_line(lost or "nothing is known to be lost")
        if not yes:
            typer.confirm("May the coordinator continue?", abort=True)
        key = key_file(database, settings.signing_key)
        accept_log(database, None if key is None else mark_file(key), PERSON)
    print_line("confirmed")
    return 0
