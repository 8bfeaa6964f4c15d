"""`disinherit simulate`: runs of scenarios with adjustable settings, and their reports."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from disinherit.cli.checked import checked_by
from disinherit.cli.choices import DATASETS, print_choices
from disinherit.cli.commands import TRAINING, options_in
from disinherit.cli.completion import names_in
from disinherit.cli.method_options import (
    AlphaOption,
    DeltaEncodingOption,
    DeltaRankOption,
    EncodingOption,
    GaugeOption,
    InheritanceOption,
    LambdaOption,
    MechanismOption,
    MergeOption,
    ReferenceOption,
    RepairStepsOption,
    RescaleOption,
    RootMethodOption,
    RowScopedOption,
    ScopeOption,
)
from disinherit.cli.output import Format, FormatOption, print_json, print_rich, progress
from disinherit.common.encodings import Encoding

if TYPE_CHECKING:
    from disinherit.simulations.report.document import RunReport
    from disinherit.simulations.scenario.settings import Settings

EXAMPLES = (
    "Examples:\n\n"
    "disinherit simulate federated --dataset digits --forget 3 --out runs/three\n\n"
    "disinherit simulate federated --dataset fashion-mnist --forget Sandal --forget Bag@r2 "
    "--out runs/two-roots\n\n"
    "disinherit simulate federated --dataset mnist5k --forget 3 --partition dirichlet "
    "--concentration 0.5 --scope all --compare-published --out runs/skewed\n\n"
    "disinherit simulate incremental --dataset digits --forget 3 --out runs/incremental\n\n"
    "disinherit simulate mine.toml --dataset mnist5k --forget 3 --out runs/mine"
)


_training = options_in(TRAINING)


def _list(wanted: bool) -> None:
    if wanted:
        print_choices()
        raise typer.Exit


def simulate(
    scenario: Annotated[
        str,
        typer.Argument(
            autocompletion=lambda: names_in("disinherit.simulations.scenario", "topologies"),
            callback=checked_by("simulations.scenario.scenarios:load_scenario"),
            help="federated, federated-two-roots, federated-three-roots, distributed, "
            "distributed-back, incremental, transfer, transfer-new-head, fine-tunes, "
            "chain-N, fan-out-N, or a TOML file.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for models and reports.")],
    forget: Annotated[
        list[str] | None,
        typer.Option(
            "--forget",
            "-f",
            metavar="CLASS",
            help="A class, by name or index, at the scenario's root; 3@r2 for another one. Repeat.",
        ),
    ] = None,
    dataset: Annotated[
        str,
        _training(
            autocompletion=lambda: list(DATASETS),
            callback=checked_by("simulations.data.datasets:check_dataset"),
            help="mnist5k, digits, fashion-mnist, fortunes, glyphs, cifar100, tiny-imagenet, "
            "yahoo-answers, or a path.",
        ),
    ] = "mnist5k",
    network: Annotated[
        str | None,
        _training(
            callback=checked_by("simulations.networks.networks:check_network"),
            help="cnn, mlp, resnet18, efficientnet-lite0, torchvision/..., timm/...; text, lstm, "
            "transformer. By default one that fits the data.",
        ),
    ] = None,
    clients: Annotated[int, _training(help="Number of owners.")] = 5,
    partition: Annotated[
        Literal["iid", "dirichlet", "pathological", "natural"],
        _training(help="How training data is shared among owners; natural: by who contributed it."),
    ] = "iid",
    concentration: Annotated[
        float, _training(help="Concentration of the Dirichlet partition.")
    ] = 0.5,
    classes_per_client: Annotated[
        int, _training(help="Classes per owner in the pathological partition.")
    ] = 2,
    epochs: Annotated[
        int | None,
        _training(
            help="Epochs of each model's training. By default it ends by itself, once the loss on "
            "its owner's tuning samples no longer falls."
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        _training(help="Learning rate (Adam). By default one that suits the network."),
    ] = None,
    limit: Annotated[
        int | None, _training(help="Training samples per class at most; all by default.")
    ] = None,
    alpha: AlphaOption = None,
    lam: LambdaOption = None,
    gauge: GaugeOption = None,
    reference: ReferenceOption = "retain",
    scope: ScopeOption = "head",
    merge: MergeOption = "max",
    row_scoped: RowScopedOption = True,
    repair_steps: RepairStepsOption = None,
    min_inheritance: InheritanceOption = 0.0,
    rescale: RescaleOption = True,
    encoding: EncodingOption = Encoding.FULL,
    mechanism: MechanismOption = "auto",
    root_method: RootMethodOption = "auto",
    delta_encoding: DeltaEncodingOption = "full",
    delta_rank: DeltaRankOption = 0,
    compare_published: Annotated[
        bool, typer.Option(help="Also evaluate the published rule.")
    ] = False,
    device: Annotated[str, _training(help="Where to compute: auto, cpu, cuda:0, ...")] = "auto",
    seed: Annotated[int, _training(help="Random seed.")] = 0,
    form: FormatOption = Format.TABLE,
    known: Annotated[
        bool,
        typer.Option(
            "--list",
            callback=_list,
            is_eager=True,
            help="List scenarios, data sets and networks, as `run list` does.",
        ),
    ] = False,
) -> int:
    """Train a scenario's models on simulated owners, forget in all of them, and measure.

    A class to forget enters the network at its root: only that model and its descendants are
    trained on it.  With --mechanism delta its samples are forgotten in all that were.
    """
    # Imported here because torch takes seconds, which --help should not.
    from disinherit.common.method import Method
    from disinherit.simulations.data.datasets import load_dataset
    from disinherit.simulations.networks.training_defaults import training_defaults
    from disinherit.simulations.scenario.scenarios import load_scenario
    from disinherit.simulations.scenario.settings import Settings, parse_forget

    topology = load_scenario(scenario)
    data = load_dataset(dataset)
    network = network or ("text" if data.kind == "text" else "cnn")
    usual = training_defaults(network)
    settings = Settings(
        dataset=dataset,
        forget=parse_forget(forget or [], data, topology),
        scenario=topology,
        network=network,
        clients=clients,
        partition=partition,
        concentration=concentration,
        classes_per_client=classes_per_client,
        epochs=usual.epochs if epochs is None else epochs,
        learning_rate=usual.learning_rate if learning_rate is None else learning_rate,
        patience=usual.patience if epochs is None else None,
        limit=limit,
        seed=seed,
        device=device,
        method=Method(
            scope=scope,
            reference=reference,
            merge=merge,
            alpha=alpha,
            lam=lam,
            gauge=gauge,
            row_scoped=row_scoped,
            encoding=encoding,
            repair_steps=repair_steps,
            min_inheritance=min_inheritance,
            rescale=rescale,
            mechanism=mechanism,
            root_method=root_method,
            delta_encoding=delta_encoding,
            delta_rank=delta_rank,
        ),
        compare_published=compare_published,
    )
    return run_and_show(settings, out, form)


def run_and_show(settings: "Settings", out: Path, form: Format) -> int:
    """Run a scenario and print its report.

    Args:
        settings: of the run.
        out: folder for models and reports.
        form: format of the printed report.

    Returns:
        Exit code: 0 if every affected model is done, else 1.
    """
    # Imported here because torch takes seconds, which --help should not.
    from disinherit.simulations.report.table import render_tables
    from disinherit.simulations.run.run import run_scenario

    with progress() as say:
        report = run_scenario(settings, out, say)
    if form is Format.JSON:
        print_json(report)
    else:
        print_rich(*render_tables(report), *_closing(report, out))
    return 0 if report["campaign"]["outcome"] in ("complete", "unchanged") else 1


def _closing(report: "RunReport", out: Path) -> list[str]:
    lines = []
    repeat = report["repeat"]
    if report["campaign"]["outcome"] == "unchanged" and repeat is not None:
        lines.append(
            f"This run was finished before. Idempotence check: repeating its request, "
            f"{repeat['already_applied']} models had already forgotten, "
            f"{repeat['changed']} were changed. Remove {out} to train again."
        )
    elif repeat is not None:
        lines.append(
            f"Idempotence check: repeating the request changed {repeat['changed']} models; "
            f"{repeat['already_applied']} had already forgotten."
        )
    return [*lines, f"Report: {out / 'report.html'}"]
