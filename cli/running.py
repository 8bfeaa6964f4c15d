"""Runs of `demo` and `simulate`: a scenario, its report, and progress."""

from pathlib import Path

from disinherit.cli.output import Format, print_json, print_rich, progress
from disinherit.simulations.report.document import RunReport
from disinherit.simulations.report.table import render_tables
from disinherit.simulations.run.run import run_scenario
from disinherit.simulations.scenario.settings import Settings


def run_and_show(settings: Settings, out: Path, form: Format) -> int:
    """Run a scenario and print its report.

    Args:
        settings: of the run.
        out: where it goes.
        form: how to print the report.

    Returns:
        Exit code: 0 if every affected model is done, else 1.
    """
    with progress() as say:
        report = run_scenario(settings, out, say)
    if form is Format.JSON:
        print_json(report)
    else:
        print_rich(*render_tables(report), *_closing(report, out))
    return 0 if report["campaign"]["outcome"] in ("complete", "unchanged") else 1


def _closing(report: RunReport, out: Path) -> list[str]:
    lines = []
    repeat = report["repeat"]
    if report["campaign"]["outcome"] == "unchanged" and repeat is not None:
        lines.append(
            f"This run was already there. Its request was sent again: "
            f"{repeat['already_applied']} models had already forgotten, "
            f"{repeat['changed']} were changed. Remove {out} to train anew."
        )
    elif repeat is not None:
        lines.append(
            f"The same request sent a second time changed {repeat['changed']} models; "
            f"{repeat['already_applied']} said that they had already forgotten."
        )
    return [*lines, f"Report: {out / 'report.html'}"]
