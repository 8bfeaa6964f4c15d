"""Names of the encodings of Fisher values (`disinherit.common.wire.fisher_codes`)."""

import enum
from collections.abc import Mapping

from disinherit.common.errors import FisherError, InputError
from disinherit.v1 import unlearning_pb2 as pb


class Encoding(enum.StrEnum):
    """Encoding of Fisher values, from the longest to the shortest."""

    FULL = "full"
    BFLOAT16 = "bfloat16"
    LOG8 = "log8"
    FACTORED = "factored"

    def to_proto(self) -> pb.FisherEncoding.ValueType:
        """Return its number on the wire."""
        return _NUMBERS[self]

    @classmethod
    def from_proto(cls, number: int) -> "Encoding":
        """Return the encoding with a number on the wire.

        Raises:
            FisherError: if the number is unknown.
        """
        for encoding, known in _NUMBERS.items():
            if known == number:
                return encoding
        raise FisherError(
            f"Expected a Fisher encoding among {', '.join(cls)}, but got number {number}. Its "
            "sender may have a newer release of Disinherit."
        )

    @classmethod
    def named(cls, name: str) -> "Encoding":
        """Return the encoding with this name.

        Raises:
            InputError: if the name is unknown.

        Example:
            >>> Encoding.named("log8")
            <Encoding.LOG8: 'log8'>
        """
        try:
            return cls(name)
        except ValueError:
            raise InputError(
                f"Expected an encoding among {', '.join(cls)}, but got {name!r}."
            ) from None

    def shorter(self, other: "Encoding") -> "Encoding":
        """Return the shorter of two.

        Example:
            >>> Encoding.FULL.shorter(Encoding.BFLOAT16)
            <Encoding.BFLOAT16: 'bfloat16'>
        """
        return max(self, other, key=list(Encoding).index)


_NUMBERS: Mapping[Encoding, pb.FisherEncoding.ValueType] = {
    Encoding.FULL: pb.FISHER_ENCODING_UNSPECIFIED,
    Encoding.BFLOAT16: pb.FISHER_ENCODING_BFLOAT16,
    Encoding.LOG8: pb.FISHER_ENCODING_LOG8,
    Encoding.FACTORED: pb.FISHER_ENCODING_FACTORED,
}


class SummaryForm(enum.StrEnum):
    """Form of registered Fisher summaries below the head, from the longest to the shortest.

    `exact`: a value for each value of a parameter and each class.  `factored`: of a matrix, the
    sums of its rows and of its columns for each class.  `auto`: exact up to a size, then factored.
    """

    EXACT = "exact"
    AUTO = "auto"
    FACTORED = "factored"

    def shorter(self, other: "SummaryForm") -> "SummaryForm":
        """Return the shorter of two.

        Example:
            >>> SummaryForm.AUTO.shorter(SummaryForm.EXACT)
            <SummaryForm.AUTO: 'auto'>
        """
        return max(self, other, key=list(SummaryForm).index)
