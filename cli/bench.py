"""`disinherit bench`: benchmarks of unlearning methods against exact retraining."""

import os
from pathlib import Path
from typing import Annotated

import typer

from disinherit.cli.checked import checked_by, file_to_write, writable
from disinherit.cli.commands import Commands
from disinherit.cli.completion import names_in
from disinherit.cli.output import Format, FormatOption, print_done, warn_line

RUN_EXAMPLES = (
    "Examples:\n\n"
    "disinherit bench run quick --out runs/quick\n\n"
    "disinherit bench run my-suite.toml --out runs/mine --jobs 8"
)
REPORT_EXAMPLES = "Example: disinherit bench report runs/quick --markdown docs/results.md"

NoteOption = Annotated[
    str, typer.Option(help="A line below the title: what has to be known of these figures.")
]

app = Commands("Measure methods of unlearning, always beside exact retraining.")


@app.command(epilog=RUN_EXAMPLES)
def run(
    suite: Annotated[
        str,
        typer.Argument(
            help="quick, standard, paper, ..., or a TOML file; `bench list` has all.",
            autocompletion=lambda: names_in("disinherit.simulations.bench", "suites"),
            callback=checked_by("simulations.bench.suites:load_suite"),
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for models and figures.")],
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes at the same time; one per core by default.")
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Run a suite, or the rest of it.

    Every cell, a method on a case, runs in a process with one thread. Finished cells are not run
    again. Exit code 1 if a cell or a sanity gate failed.
    """
    # Imported here because torch takes seconds, which --help should not.
    from disinherit.cli.output import progress
    from disinherit.simulations.bench.runner import run_suite
    from disinherit.simulations.bench.suites import load_suite

    with progress() as say:
        failures = run_suite(load_suite(suite), out, jobs or os.cpu_count() or 1, say)
    for failure in failures:
        warn_line(f"error: {failure}")
    results = out / "results.jsonl"
    print_done(
        form,
        {"results": str(results), "failures": failures},
        f"Cells: {results}. See them: disinherit bench report {out}",
    )
    return 1 if failures else 0


@app.command("list", epilog="Example: disinherit bench list")
def list_suites(form: FormatOption = Format.TABLE) -> int:
    """List the suites that `bench run` knows by name."""
    names = names_in("disinherit.simulations.bench", "suites")
    print_done(form, names, *names)
    return 0


@app.command(epilog=REPORT_EXAMPLES)
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="A run's folder, or a file packed from it; several for one page of all.",
        ),
    ],
    html: Annotated[
        Path | None,
        file_to_write(help="Write the HTML page here; report.html by default."),
    ] = None,
    markdown: Annotated[
        Path | None,
        file_to_write(help="Write Markdown here; results.md by default."),
    ] = None,
    note: NoteOption = "",
    form: FormatOption = Format.TABLE,
) -> int:
    """Write tables and plots of a run, finished or not, or of several with different cases.

    JSON has the aims that each method meets, and where not.
    """
    from disinherit.cli.output import progress
    from disinherit.common.files import write_atomic
    from disinherit.simulations.bench.cells import read_run
    from disinherit.simulations.bench.joining import join_runs
    from disinherit.simulations.bench.report.html import render_html
    from disinherit.simulations.bench.report.standings import aims_values, judged_methods
    from disinherit.simulations.bench.report.text import render_markdown

    beside = runs[0].parent if runs[0].is_file() else runs[0]
    page, text = html or beside / "report.html", markdown or beside / "results.md"
    with progress() as say:
        read = []
        for place, one in enumerate(runs, 1):
            say(f"reading {one} ({place} of {len(runs)})")
            read.append(read_run(one))
        joined = join_runs(read)
        write_atomic(page, render_html(*joined, say).encode())
        say("writing Markdown")
        write_atomic(text, render_markdown(*joined, note).encode())
    record, _, cells = joined
    aims = aims_values(judged_methods(record, cells))
    values = {"html": str(page), "markdown": str(text), "aims": aims}
    print_done(form, values, f"Report: {page} and {text}")
    return 0


@app.command(epilog="Example: disinherit bench pack runs/samples docs/figures/samples.jsonl.gz")
def pack(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder.")],
    file: Annotated[Path, typer.Argument(callback=writable, help="File to write, .jsonl.gz.")],
    form: FormatOption = Format.TABLE,
) -> int:
    """Pack all figures of a run into one file, from which reports can be made."""
    from disinherit.simulations.bench.cells import pack_run

    pack_run(folder, file)
    print_done(form, {"packed": str(file)}, f"Packed: {file}")
    return 0


@app.command(epilog="Example: disinherit bench family --quick --out runs/family.json")
def family(
    out: Annotated[
        Path, typer.Option(help="JSON file of the figures; what it has is not measured again.")
    ],
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="40 authors and two requests: some seven minutes on two cores."
        ),
    ] = False,
    seeds: Annotated[
        int, typer.Option(min=0, help="How many families to train; 0 to write the page only.")
    ] = 1,
    markdown: Annotated[Path | None, file_to_write(help="Write the page here.")] = None,
    work: Annotated[
        Path | None,
        typer.Option(help="Keep what is finished here, so that a run that was stopped goes on."),
    ] = None,
    request: Annotated[
        list[str] | None,
        typer.Option(help="Measure this request only, such as 'twenty authors'. Repeat."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda:0, ...")] = "cpu",
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Requests at the same time; one per core by default, one on a GPU."
        ),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Measure a family of language models: fine-tunes, adapters, merges, quantised copies.

    They learn fictitious authors, and forget some of them, by eleven methods.
    """
    from disinherit.cli.output import progress
    from disinherit.common.files import write_atomic
    from disinherit.simulations.family.page import read_figures, render

    if seeds:
        from disinherit.simulations.family.measurement import measure

        with progress() as say:
            asked = request or []
            at_once = jobs or ((os.cpu_count() or 1) if device == "cpu" else 1)
            measure(
                out, range(seeds), say,
                quick=quick, work=work, only=asked, device=device, jobs=at_once,
            )  # fmt: skip
    measured = read_figures(out)
    if markdown is not None:
        write_atomic(markdown, render(measured).encode())
    print_done(form, measured, f"Figures: {out}")
    return 0


@app.command(
    epilog="Example: disinherit bench overview docs/figures/classes.jsonl.gz runs/samples "
    "--markdown docs/results.md"
)
def overview(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, or packed files.")
    ],
    markdown: Annotated[Path, file_to_write(help="Write Markdown here.")],
    note: NoteOption = "",
    method: Annotated[
        list[str] | None,
        typer.Option(help="Show the gaps of this method only. Repeat; all by default."),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Write one screen: aims by method, and how far each is from retraining by kind of request."""
    from disinherit.cli.output import progress
    from disinherit.common.files import write_atomic
    from disinherit.simulations.bench.cells import read_run
    from disinherit.simulations.bench.report.screen import judge_all, render_overview
    from disinherit.simulations.bench.report.standings import aims_values

    with progress() as say:
        read = []
        for place, one in enumerate(runs, 1):
            say(f"reading {one} ({place} of {len(runs)})")
            record, _, cells = read_run(one)
            read.append((record, cells))
        say("judging aims")
        write_atomic(markdown, render_overview(read, note, method or ()).encode())
    values = {"markdown": str(markdown), "aims": aims_values(judge_all(read))}
    print_done(form, values, f"Overview: {markdown}")
    return 0


@app.command(
    epilog="Example: disinherit bench scale docs/figures/scale.jsonl.gz --markdown docs/mine.md"
)
def scale(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's folder, or a file packed from it.")
    ],
    markdown: Annotated[
        Path | None,
        file_to_write(help="Write Markdown here; scale.md by default."),
    ] = None,
    picture: Annotated[
        Path | None,
        file_to_write(help="Write the plot here; scale.svg by default."),
    ] = None,
    note: NoteOption = "",
    form: FormatOption = Format.TABLE,
) -> int:
    """Write how the time of unlearning grows with a request, beside that of retraining.

    The run has requests at several sizes, as suite scale has: labels such as 'class, size 1'.
    """
    from disinherit.common.files import write_atomic
    from disinherit.simulations.bench.cells import read_run
    from disinherit.simulations.bench.report.growth import draw_growth, render_growth

    beside = folder.parent if folder.is_file() else folder
    text, plot = markdown or beside / "scale.md", picture or beside / "scale.svg"
    run, references, cells = read_run(folder)
    write_atomic(plot, draw_growth(references, cells).encode())
    link = Path(os.path.relpath(plot, text.parent)).as_posix()
    write_atomic(text, render_growth(run, references, cells, note, link).encode())
    values = {"markdown": str(text), "picture": str(plot)}
    print_done(form, values, f"Growth: {text} and {plot}")
    return 0
