"""`disinherit run list`: scenarios, data sets and networks by name, and classes of a data set."""

from typing import Annotated, Any

import typer

from disinherit.cli.completion import names_in
from disinherit.cli.output import Format, FormatOption, print_json, print_line
from disinherit.cli.tables import print_table
from disinherit.documents.words import count

EXAMPLES = "Examples:\n\ndisinherit run list\n\ndisinherit run list digits"

DATASETS = {
    "mnist5k": "5,000 MNIST digits",
    "digits": "1,797 digits, 8 x 8",
    "fashion-mnist": "70,000 articles of clothing; Debian's dataset-fashion-mnist, or IDX files",
    "fortunes": "6,395 quotations of nine categories; Debian's fortunes, or its files",
    "glyphs": "digits and letters of fonts; Debian's fonts-*, or files",
    "cifar100": "60,000 photos of 100 classes; from the Hub, or Parquet files",
    "tiny-imagenet": "110,000 photos of 200 classes; from the Hub, or Parquet files",
    "yahoo-answers": "1,460,000 questions of 10 topics; from the Hub, or Parquet files",
}
"""Data set -> what it is; importing what loads them takes seconds."""

NETWORKS = {
    "cnn": "images: two convolutions; the default",
    "mlp": "images: three layers",
    "resnet18": "images: of small size",
    "efficientnet-lite0": "images: with weights of ImageNet, from a package",
    "torchvision/NAME": "images: of torchvision, untrained",
    "timm/NAME": "images: of timm, untrained",
    "text": "texts: the mean of embeddings; the default",
    "lstm": "texts: recurrent",
    "transformer": "texts: attention",
}
"""Network -> what it is for."""

GENERATED = {
    "chain-N": "u0 and N models, each made from the one before",
    "fan-out-N": "u0 and N models, all made from it",
}
"""Scenario of any size -> what it is."""


def list_choices(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="[DATASET]",
            autocompletion=lambda: list(DATASETS),
            help="List the classes of this data set, by name or path, with their numbers.",
        ),
    ] = "",
    form: FormatOption = Format.TABLE,
) -> int:
    """List scenarios, data sets and networks; of one data set, its classes.

    Suites of benchmarks are listed by `bench list`.
    """
    if dataset:
        _print_classes(dataset, form)
    else:
        print_choices(form)
    return 0


def print_choices(form: Format = Format.TABLE) -> None:
    """Print the scenarios, data sets and networks that have a name."""
    scenarios = _scenarios()
    if form is Format.JSON:
        values = {"scenarios": scenarios, "generated_scenarios": GENERATED}
        print_json(values | {"datasets": DATASETS, "networks": NETWORKS})
        return
    rows = [(one["name"], _described(one)) for one in scenarios]
    _print_names("scenario", (*rows, *GENERATED.items(), ("FILE.toml", "your own")))
    print_line()
    _print_names("data set", (*DATASETS.items(), ("PATH", "your own files")))
    print_line()
    _print_names("network", tuple(NETWORKS.items()))
    print_line()
    print_line("Classes of a data set: disinherit run list NAME")


def _print_names(title: str, rows: tuple[tuple[str, str], ...]) -> None:
    print_table((title, "what it is"), rows, whole=(title,))


def _scenarios() -> list[dict[str, Any]]:
    from disinherit.simulations.scenario.scenarios import load_scenario

    found = []
    for name in names_in("disinherit.simulations.scenario", "topologies"):
        topology = load_scenario(name)
        kinds = {link.kind.value for one in topology.derivations for link in one.links}
        found.append(
            {
                "name": name,
                "models": len(topology.ids),
                "roots": list(topology.roots),
                "kinds": sorted(kinds),
            }
        )
    return found


def _described(scenario: dict[str, Any]) -> str:
    """Return how many models a scenario has, how they inherit, and where it forgets."""
    models = count(scenario["models"], "model")
    return f"{models}, {' and '.join(scenario['kinds'])}; forgets at {', '.join(scenario['roots'])}"


def _print_classes(dataset: str, form: Format) -> None:
    # Imported here because torch takes seconds, which --help should not.
    from disinherit.simulations.data.datasets import load_dataset

    data = load_dataset(dataset)
    samples = data.targets.bincount(minlength=len(data.classes)).tolist()
    if form is Format.JSON:
        classes = [
            {"name": name, "samples": number}
            for name, number in zip(data.classes, samples, strict=True)
        ]
        print_json({"dataset": data.name, "kind": data.kind, "classes": classes})
        return
    print_table(
        ("number", "class", "samples"),
        [
            (str(place), name, f"{number:,}")
            for place, (name, number) in enumerate(zip(data.classes, samples, strict=True))
        ],
        whole=("number", "class"),
    )
