"""Objects that are not written out: an object that is, but for what unlearning changed.

Dampening changes some tensors of a model; the others stay bit for bit, and so need not be written,
nor read, again.  What did change in many models of one message is written as one file, stacked.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delta:
    """What an object is made of.

    Attributes:
        digest: of the object.
        base: digest of the object, which is written out, that has all other tensors.
        pack: digest of the object with the changed tensors, stacked `[M, *shape]`; `""` for none.
        place: which of the stacked ones are its own.
        cleared: classes whose rows of all tensors are zero instead: of a Fisher summary.
    """

    digest: str
    base: str
    pack: str = ""
    place: int = 0
    cleared: tuple[int, ...] = ()
