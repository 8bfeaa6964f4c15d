"""`disinherit demo`: the main task on embedded real data."""

from pathlib import Path
from typing import Annotated

import typer

from disinherit.cli.output import Format, FormatOption

EXAMPLES = "Example: disinherit demo --forget 7 --out runs/seven"


def demo(
    out: Annotated[Path, typer.Option(help="Folder for models and reports.")] = Path("runs/demo"),
    forget: Annotated[str, typer.Option("--forget", "-f", help="The digit to forget.")] = "3",
    epochs: Annotated[int, typer.Option(help="Epochs of each model's training.")] = 8,
    limit: Annotated[
        int | None, typer.Option(help="Training samples per class at most; all by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    form: FormatOption = Format.TABLE,
) -> int:
    """Train seven models that inherit from each other, forget a digit in all of them, show it.

    Five owners as Flower ClientApps under the simulation engine, on 5,000 real MNIST digits. Writes
    report.html and report.json.
    """
    # Imported here because torch takes seconds, which --help should not.
    from disinherit.cli.simulate import run_and_show
    from disinherit.simulations.data.datasets import load_dataset
    from disinherit.simulations.scenario.scenarios import FEDERATED
    from disinherit.simulations.scenario.settings import Settings, parse_forget

    settings = Settings(
        dataset="mnist5k",
        forget=parse_forget([forget], load_dataset("mnist5k"), FEDERATED),
        epochs=epochs,
        limit=limit,
        seed=seed,
        compare_published=True,
    )
    return run_and_show(settings, out, form)
