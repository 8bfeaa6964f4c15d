"""The unlearning method: its values, defaults and checks."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal, cast, get_args

from disinherit.common.encodings import Encoding
from disinherit.common.errors import FisherError, InputError, RequestError
from disinherit.common.fields import check_type, settle
from disinherit.common.text import check_utf8
from disinherit.v1 import unlearning_pb2 as pb

Reference = Literal["retain", "all"]
MergeRule = Literal["max", "mean", "sum"]
Mechanism = Literal["auto", "fisher", "delta"]
DeltaCode = Literal["full", "bfloat16", "int8"]
AUTO = "auto"
REPLAY = "replay"
"""The root method that may be exact: all others approximate."""

MOST_REPAIR_STEPS = 10_000
"""Bound on repair: more steps would be retraining, on an owner's machine at another's request."""

DELTA_REPAIR = 30
"""Steps of repair after changes of roots, where a model's owner has retained data.

They undo most of what a change costs that only fits to first order (docs/results-standard.md)."""

MOST_CALIBRATION = 1000
"""Bound on the rounds of calibration: more would be a new training."""

MOST_RANK = 1024
"""Bound on the rank of a change in transit: more would be longer than the change itself."""

_ROOT_METHOD = re.compile(r"[a-z][a-z0-9+-]{0,63}")
_SCOPES = ("head", "all")
_LARGEST = (2 - 2.0**-23) * 2.0**127
"""Largest float32; owners compute in float32."""
_OPTIONAL = ("alpha", "lam", "gauge")


@dataclass(frozen=True, slots=True)
class Method:
    """How to unlearn; the defaults are those of a request without further options.

    Attributes:
        scope: parameters that may change: `head`, `all`, or globs of parameter names, separated by
            commas.
        reference: classes of the model's own Fisher information: `retain`, or `all` (as published).
        merge: rule that merges the Fisher information of several roots and classes.
        alpha: selection threshold; `None` lets every owner tune it.
        lam: dampening constant; `None` lets every owner tune it.
        gauge: strength of the head's gauge shift; `None` lets every owner tune it.
        exponent: exponent of the dampening factor.
        bound: largest dampening factor, at most 1.
        row_scoped: whether selection in the head is limited to the rows of forgotten classes.
        encoding: encoding of Fisher information in transit: `full`, `bfloat16` or `log8`.
        repair_steps: training steps on retained samples after dampening, or after the changes of
            roots; `None` for none after dampening, and `DELTA_REPAIR` after changes.
        min_inheritance: least similarity, from 0 to 1, of a model's own Fisher information and the
            roots'; less similar models are left unchanged.
        rescale: whether Fisher information is brought to one scale before it is compared.
        mechanism: what descendants inherit: `fisher`, the Fisher information of the data to forget;
            `delta`, the change of each root; or `auto`, the one for the kind of request.
        root_method: with `delta`, how the owner of a root unlearns it: the name of a root method,
            or `auto` for the best that the owner can do.
        delta_encoding: encoding of a change in transit: `full`, `bfloat16` or `int8`.
        delta_rank: rank of matrices in a change in transit; 0 for full.
        calibration_rounds: with a client, rounds that its federation will run without it after the
            request (`calibrate`). Then its change is taken out in full, also of models that trained
            on, and global models may lose accuracy, which these rounds restore.

    Raises:
        RequestError: if a value has another type or is out of range.

    Example:
        >>> Method(scope="all", alpha=10.0).merge
        'max'
    """

    scope: str = "head"
    reference: Reference = "retain"
    merge: MergeRule = "max"
    alpha: float | None = None
    lam: float | None = None
    gauge: float | None = None
    exponent: float = 1.0
    bound: float = 1.0
    row_scoped: bool = True
    encoding: str = "full"
    repair_steps: int | None = None
    min_inheritance: float = 0.0
    rescale: bool = True
    mechanism: Mechanism = "auto"
    root_method: str = AUTO
    delta_encoding: DeltaCode = "full"
    delta_rank: int = 0
    calibration_rounds: int = 0

    def __post_init__(self) -> None:
        """Check every value."""
        _check_choice("reference", self.reference, get_args(Reference))
        _check_choice("merge", self.merge, get_args(MergeRule))
        _check_choice("mechanism", self.mechanism, get_args(Mechanism))
        _check_choice("delta encoding", self.delta_encoding, get_args(DeltaCode))
        settle(self, "a method", RequestError)
        if _ROOT_METHOD.fullmatch(self.root_method) is None:
            raise RequestError(
                "Expected the name of a root method, such as 'replay', or 'auto', but got "
                f"{self.root_method!r}."
            )
        if not 0 <= self.delta_rank <= MOST_RANK:
            raise RequestError(
                f"Expected a rank of a change from 0 (full) to {MOST_RANK}, but got "
                f"{self.delta_rank}."
            )
        if not 0 <= self.calibration_rounds <= MOST_CALIBRATION:
            raise RequestError(
                f"Expected from 0 to {MOST_CALIBRATION} rounds of calibration, but got "
                f"{self.calibration_rounds}."
            )
        if self.calibration_rounds and self.mechanism == "fisher":
            raise RequestError(
                "Expected rounds of calibration with mechanism 'delta', which they calibrate, but "
                "got 'fisher'."
            )
        _check_positive(
            {
                "exponent": self.exponent,
                "bound": self.bound,
                "alpha": self.alpha,
                "lambda": self.lam,
            }
        )
        if self.bound > 1:
            raise RequestError(f"Expected bound <= 1, but got {self.bound:g}.")
        if self.gauge is not None and not 0 <= self.gauge <= _LARGEST:
            raise RequestError(f"Expected gauge >= 0, but got {_shown(self.gauge)}.")
        steps = self.repair_steps or 0
        if steps < 0:
            raise RequestError(f"Expected repair_steps >= 0, but got {self.repair_steps}.")
        if steps > MOST_REPAIR_STEPS:
            raise RequestError(
                f"Expected at most {MOST_REPAIR_STEPS} repair steps, but got {self.repair_steps}."
            )
        if not 0 <= self.min_inheritance <= 1:
            raise RequestError(
                f"Expected a least similarity from 0 to 1, but got {self.min_inheritance:g}."
            )
        try:
            Encoding.named(self.encoding)
        except InputError as error:
            raise RequestError(str(error)) from None
        _check_scope(self.scope)

    def to_proto(self) -> pb.Method:
        """Return the message for this method."""
        message = pb.Method(
            scope=self.scope,
            reference=self.reference,
            merge=self.merge,
            exponent=self.exponent,
            bound=self.bound,
            row_scoped=self.row_scoped,
            encoding=Encoding.named(self.encoding).to_proto(),
            repair_steps=self._settled_steps(),
            min_inheritance=self.min_inheritance,
            rescale=self.rescale,
        )
        for name in _OPTIONAL:
            if getattr(self, name) is not None:
                setattr(message, name, getattr(self, name))
        if self.mechanism == "delta":
            # Left out otherwise, so that messages without a change are those of before.
            message.mechanism, message.root_method = self.mechanism, self.root_method
            message.delta_encoding = DELTA_CODES[self.delta_encoding]
            message.delta_rank = self.delta_rank
            message.calibration_rounds = self.calibration_rounds
        return message

    @property
    def inherits_delta(self) -> bool:
        """Whether descendants inherit the change of each root."""
        return self.mechanism == "delta"

    def settled(self, *, by_class: bool) -> "Method":
        """Return the method with the mechanism for a kind of request, if it is `auto`.

        Classes are forgotten with Fisher information, which needs no data and is exact in the head.
        What a model knows of samples lies along directions that many samples share, so samples and
        clients need the change of the roots, in all layers: `head` is a scope of dampening only.

        Args:
            by_class: whether classes are to be forgotten, rather than samples or a client.
        """
        mechanism = self.mechanism
        if mechanism == "auto":
            mechanism = "fisher" if by_class else "delta"
        scope = "all" if mechanism == "delta" and self.scope == "head" else self.scope
        settled = replace(self, mechanism=mechanism, scope=scope)
        return replace(settled, repair_steps=settled._settled_steps())

    def _settled_steps(self) -> int:
        if self.repair_steps is None:
            return DELTA_REPAIR if self.inherits_delta else 0
        return self.repair_steps

    @classmethod
    def from_proto(cls, message: pb.Method) -> "Method":
        """Return the method of a message.

        Only optional fields may be unset: owners then tune alpha, lambda and gauge, and Fisher
        information is rescaled.

        Raises:
            RequestError: if it is no such message, or a value is missing or out of range.
        """
        check_type(message, pb.Method, "a message disinherit.v1.Method", RequestError)
        try:
            encoding = Encoding.from_proto(message.encoding)
        except FisherError as error:
            raise RequestError(str(error)) from None
        return cls(
            scope=message.scope,
            reference=cast("Reference", message.reference),
            merge=cast("MergeRule", message.merge),
            alpha=message.alpha if message.HasField("alpha") else None,
            lam=message.lam if message.HasField("lam") else None,
            gauge=message.gauge if message.HasField("gauge") else None,
            exponent=message.exponent,
            bound=message.bound,
            row_scoped=message.row_scoped,
            encoding=str(encoding),
            repair_steps=message.repair_steps,
            min_inheritance=message.min_inheritance,
            rescale=message.rescale or not message.HasField("rescale"),
            mechanism=cast("Mechanism", message.mechanism or "fisher"),
            root_method=message.root_method or AUTO,
            delta_encoding=find_delta_code(message.delta_encoding),
            delta_rank=message.delta_rank,
            calibration_rounds=message.calibration_rounds,
        )

    def published(self) -> "Method":
        """Return the published rule with this scope and strength, without our extensions.

        The reference is the Fisher information over all own data; no gauge, all rows, full
        precision, no repair, and no model is skipped.
        """
        return replace(
            Method(),
            scope=self.scope,
            alpha=self.alpha,
            lam=self.lam,
            reference="all",
            gauge=0.0,
            row_scoped=False,
            rescale=False,
            mechanism="fisher",
        )


DELTA_CODES: Mapping[DeltaCode, pb.DeltaEncoding.ValueType] = {
    "full": pb.DELTA_ENCODING_UNSPECIFIED,
    "bfloat16": pb.DELTA_ENCODING_BFLOAT16,
    "int8": pb.DELTA_ENCODING_INT8,
}
"""Encoding of a change -> its number on the wire, from the longest to the shortest."""


def find_delta_code(number: int, error: type[InputError] = RequestError) -> DeltaCode:
    """Return the encoding of a change with a number on the wire.

    Args:
        number: of the encoding.
        error: type of the error.

    Raises:
        InputError: of the given type, if the number is unknown.
    """
    for name, known in DELTA_CODES.items():
        if known == number:
            return name
    raise error(
        f"Expected a delta encoding among {', '.join(DELTA_CODES)}, but got number {number}. Its "
        "sender may have a newer release of Disinherit."
    )


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    one = f"{name} to be one of {', '.join(known)}"
    check_type(value, str, one, RequestError)
    if value not in known:
        raise RequestError(f"Expected {one}, but got {value!r}.")


def _check_positive(values: Mapping[str, float | None]) -> None:
    for name, number in values.items():
        if number is not None and not 0 < number <= _LARGEST:
            raise RequestError(f"Expected {name} > 0, but got {_shown(number)}.")


def _check_scope(scope: str) -> None:
    check_utf8(scope, "the scope", RequestError)
    if not scope:
        raise RequestError("Expected scope 'head', 'all' or parameter-name globs, but got nothing.")
    certain = scope in _SCOPES or not scope.isidentifier()
    if not certain and (meant := get_close_matches(scope, _SCOPES, n=1, cutoff=0.7)):
        raise RequestError(
            f"Expected scope 'head', 'all' or parameter-name globs, but got {scope!r}. "
            f"Write {meant[0]!r} if that is meant, or '{scope}*' for parameters so named."
        )


def _shown(number: float) -> str:
    beyond = _LARGEST < number < math.inf
    return f"{number:g}" + (f", which is more than float32 holds ({_LARGEST:.3g})" * beyond)
