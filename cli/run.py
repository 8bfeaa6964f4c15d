"""`disinherit run`: scenarios, started and reported."""

from disinherit.cli.choices import EXAMPLES as LIST_EXAMPLES
from disinherit.cli.choices import list_choices
from disinherit.cli.commands import Commands
from disinherit.cli.report import EXAMPLES as REPORT_EXAMPLES
from disinherit.cli.report import report
from disinherit.cli.simulate import EXAMPLES as START_EXAMPLES
from disinherit.cli.simulate import simulate

app = Commands("Start scenarios on simulated owners, list what there is, and show reports of runs.")

app.command("start", epilog=START_EXAMPLES.replace("disinherit simulate", "disinherit run start"))(
    simulate
)
app.command("list", epilog=LIST_EXAMPLES)(list_choices)
app.command("report", epilog=REPORT_EXAMPLES.replace("disinherit report", "disinherit run report"))(
    report
)
