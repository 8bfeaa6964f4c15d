"""`disinherit run`: scenarios, started and reported."""

from disinherit.cli.commands import Commands
from disinherit.cli.report import EXAMPLES as REPORT_EXAMPLES
from disinherit.cli.report import report
from disinherit.cli.simulate import EXAMPLES as START_EXAMPLES
from disinherit.cli.simulate import simulate

app = Commands("Start a scenario on simulated owners, and show the report of its run.")

app.command("start", epilog=START_EXAMPLES.replace("disinherit simulate", "disinherit run start"))(
    simulate
)
app.command("report", epilog=REPORT_EXAMPLES.replace("disinherit report", "disinherit run report"))(
    report
)
