"""Options of the method of a request, for every command that takes them."""

from typing import Annotated

import typer

AlphaOption = Annotated[
    float | None, typer.Option(help="Selection threshold; tuned by each owner by default.")
]
LambdaOption = Annotated[
    float | None,
    typer.Option("--lambda", help="Dampening constant; tuned by each owner by default."),
]
GaugeOption = Annotated[
    float | None, typer.Option(help="Gauge strength; tuned by each owner by default.")
]
ReferenceOption = Annotated[
    str, typer.Option(help="Fisher to compare with: retain, or all (the paper's).")
]
ScopeOption = Annotated[
    str, typer.Option(help="head, all, or parameter-name globs separated by commas.")
]
MergeOption = Annotated[str, typer.Option(help="MFIM rule: max (the paper's), mean, sum.")]
RowScopedOption = Annotated[
    bool, typer.Option(help="Select in the head only in the forgotten classes' rows.")
]
RepairStepsOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Steps of training on retained data after unlearning, within the scope; by default "
        "none after dampening and 30 after changes of roots.",
    ),
]
InheritanceOption = Annotated[
    float,
    typer.Option(
        "--inheritance",
        help="Least similarity of a model's own Fisher to the roots'.",
    ),
]
RescaleOption = Annotated[
    bool, typer.Option(help="Rescale a model's Fisher to the roots' before comparing.")
]
EncodingOption = Annotated[
    str,
    typer.Option(help="Encoding of Fisher information: full, bfloat16, or log8 (one byte each)."),
]
MechanismOption = Annotated[
    str,
    typer.Option(
        help="What descendants inherit: fisher, delta (the change of each root), or auto: fisher "
        "for classes, delta for samples and clients."
    ),
]
RootMethodOption = Annotated[
    str,
    typer.Option(
        help="With delta, how a root is unlearned: replay, ekfac, neggrad+, finetune, distil, "
        "dampening, or auto for the best that its owner can do."
    ),
]
DeltaEncodingOption = Annotated[
    str, typer.Option(help="Encoding of changes: full, bfloat16, or int8 (one byte each).")
]
DeltaRankOption = Annotated[
    int, typer.Option(min=0, help="Rank of matrices in changes; 0 for full.")
]
CalibrationRoundsOption = Annotated[
    int,
    typer.Option(
        min=0,
        help="With --client: rounds that its Flower app will run without it afterwards "
        "(`disinherit.calibrate`).",
    ),
]
