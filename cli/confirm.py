"""`disinherit confirm`: confirmations by a person, without which the coordinator stops."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from disinherit.cli.commands import Commands
from disinherit.cli.output import Format, FormatOption, as_time, print_done, print_line, warn_line
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
def clock(config: ConfigOption, yes: YesOption = False, form: FormatOption = Format.TABLE) -> int:
    """Confirm that the machine's clock is right; on the coordinator's machine only.

    Old versions are then destroyed if their retention window has passed.
    """
    with opened(config) as (database, _):
        with database.reading() as db:
            due = find_due(db)
        shown = as_time(now_us())
        values = {"clock": shown, "destroys": {one: list(of) for one, of in due.items()}}
        lines = [f"the clock shows {shown}"]
        for request, models in due.items():
            lines.append(f"{request}: destroys the old weights of {', '.join(models)}")
        _ask(lines, "Is it right?", yes, form)
        with database.writing() as db:
            confirm_clock(db, PERSON)
    print_done(form, {**values, "confirmed": True}, "confirmed")
    return 0


@app.command(epilog="Example: disinherit confirm history --config serve.toml")
def history(config: ConfigOption, yes: YesOption = False, form: FormatOption = Format.TABLE) -> int:
    """Let the coordinator continue with a log that has lost entries; on its machine only.

    Afterwards submit lost requests again under new ids, and repeat lost revocations.
    """
    with opened(config) as (database, settings):
        with database.reading() as db:
            lost = find_lost(db)
        lines = [lost or "nothing is known to be lost"]
        _ask(lines, "May the coordinator continue?", yes, form)
        key = key_file(database, settings.signing_key)
        accept_log(database, None if key is None else mark_file(key), PERSON)
    print_done(form, {"lost": lost or None, "confirmed": True}, "confirmed")
    return 0


def _ask(facts: Sequence[str], question: str, yes: bool, form: Format) -> None:
    """Show a person what is so, and ask; facts and question are no part of JSON on the output.

    Raises:
        Abort: if the answer is no.
    """
    for fact in facts:
        (warn_line if form is Format.JSON else print_line)(fact)
    if not yes:
        typer.confirm(question, abort=True, err=form is Format.JSON)
