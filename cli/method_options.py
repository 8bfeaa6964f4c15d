"""Options of the method of a request, for every command that takes them."""

from typing import Annotated

from disinherit.cli.commands import METHOD, options_in
from disinherit.common.encodings import Encoding
from disinherit.common.method import DeltaCode, Mechanism, MergeRule, Reference

_option = options_in(METHOD)
_ROOT_METHODS = ("auto", "replay", "ekfac", "neggrad+", "finetune", "distil", "dampening")
"""Those that are installed with this package."""

AlphaOption = Annotated[
    float | None, _option(help="Selection threshold; tuned by each owner by default.")
]
LambdaOption = Annotated[
    float | None, _option("--lambda", help="Dampening constant; tuned by each owner by default.")
]
GaugeOption = Annotated[
    float | None, _option(help="Gauge strength; tuned by each owner by default.")
]
ReferenceOption = Annotated[
    Reference, _option(help="Fisher information to compare with: retain, or all (the paper's).")
]
ScopeOption = Annotated[
    str, _option(help="head, all, or parameter-name globs separated by commas.")
]
MergeOption = Annotated[
    MergeRule, _option(help="Merge rule of Fisher information: max (the paper's), mean, sum.")
]
RowScopedOption = Annotated[
    bool, _option(help="Select in the head only in the forgotten classes' rows.")
]
RepairStepsOption = Annotated[
    int | None,
    _option(
        min=0,
        help="Steps of training on retained data after unlearning, within the scope; by default "
        "none after dampening and 30 after changes of roots.",
    ),
]
InheritanceOption = Annotated[
    float,
    _option(
        "--inheritance",
        help="Skip models whose inheritance score is below this (0 to 1): the similarity of their "
        "own Fisher information to the roots'.",
    ),
]
RescaleOption = Annotated[
    bool, _option(help="Rescale a model's Fisher information to the roots' before comparing.")
]
EncodingOption = Annotated[
    Encoding,
    _option(help="Encoding of Fisher information: full, bfloat16, or log8 (one byte each)."),
]
MechanismOption = Annotated[
    Mechanism,
    _option(
        help="What descendants inherit: fisher, delta (the change of each root), or auto: fisher "
        "for classes, delta for samples and clients."
    ),
]
RootMethodOption = Annotated[
    str,
    _option(
        autocompletion=lambda: list(_ROOT_METHODS),
        help="With delta, how a root is unlearned: replay, ekfac, neggrad+, finetune, distil, "
        "dampening, or auto for the best that its owner can do.",
    ),
]
DeltaEncodingOption = Annotated[
    DeltaCode, _option(help="Encoding of changes: full, bfloat16, or int8 (one byte each).")
]
DeltaRankOption = Annotated[int, _option(min=0, help="Rank of matrices in changes; 0 for full.")]
CalibrationRoundsOption = Annotated[
    int,
    _option(
        min=0,
        help="With --client: rounds that its Flower app will run without it afterwards "
        "(`disinherit.calibrate`).",
    ),
]
