"""Errors that a user of Disinherit can meet.

::

    DisinheritError
    ├── InputError            a value given by a person or a program is wrong (exit code 2)
    │   ├── GraphError        ... about the inheritance graph
    │   ├── ScopeError        ... about parameters in scope
    │   ├── FisherError       ... about Fisher information: shapes, names, values
    │   ├── LabelError        ... about class names and label spaces
    │   ├── RequestError      ... about an unlearning request
    │   ├── WithheldError     ... as what is asked for is more than an owner releases
    │   ├── DataError         ... about a data set, split or partition
    │   ├── AuditError        ... about an audit log
    │   ├── TokenError        ... about an enrolment token
    │   ├── KeyRefusedError   ... as a key may not enrol
    │   ├── NotOnOfferError   ... as a blob is not on offer to an owner
    │   ├── OffsetError       ... as an offset is beyond the end of a blob
    │   ├── NotFoundError     ... as the service has nothing with this id
    │   ├── NotNowError       ... as the present state does not allow it
    │   ├── NotAllowedError   ... as the caller's role does not allow it
    │   └── NotKnownError     ... as the service does not know the caller
    ├── CheckpointError       a stored file is missing, damaged or not what it says (exit code 2)
    ├── StoreError            the store cannot do what was asked (exit code 2)
    │   └── LostHistoryError  ... as the audit log does not continue what was signed
    ├── CampaignError         a campaign could not be carried out (exit code 1)
    │   └── HeldError         another coordinator drives it
    ├── NotApplicableError    a method of the benchmark cannot answer this kind of request
    └── NotMeasuredError      a metric of the benchmark has no value

A message names the thing, the value it had, what was expected and what to do: "Expected ..., but
got ...".  The command line prints it as one line and never a stack trace.
"""


class DisinheritError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns.

    Args:
        message: what was expected, and what came.
        said: what other code than Disinherit's said of it, which must not leave its machine.

    Attributes:
        own: the message without that.
        said: that; `""` if there is nothing of the kind.
    """

    exit_code = 1

    def __init__(self, message: str = "", *, said: str = "") -> None:
        super().__init__(f"{message}: {said}" if said else message)
        self.own = message
        self.said = said


class InputError(DisinheritError, ValueError):
    """A given value is wrong; nothing was changed."""

    exit_code = 2


class GraphError(InputError):
    """The inheritance graph refuses a model, an edge or a question about an unknown model."""


class ScopeError(InputError):
    """The parameters to unlearn in cannot be determined, or cannot be handled."""


class FisherError(InputError):
    """Fisher information that cannot be computed, merged or applied."""


class LabelError(InputError):
    """Class names that do not fit the label space they are used in."""


class RequestError(InputError):
    """An unlearning request that cannot be planned."""


class WithheldError(InputError):
    """An owner's release policy forbids what is asked for."""


class DataError(InputError):
    """A data set, split or partition that cannot be used."""


class AuditError(InputError):
    """Something that is no audit log, or cannot be part of one."""


class TokenError(InputError):
    """An enrolment token that is unknown, spent or past its end."""


class KeyRefusedError(InputError):
    """A key that may not enrol: it was revoked, or is another owner's."""


class NotOnOfferError(InputError):
    """A blob that is not on offer, or not to this owner."""


class OffsetError(InputError):
    """An offset beyond the end of a blob."""


class NotFoundError(InputError):
    """There is nothing with this id."""


class NotNowError(InputError):
    """The present state does not allow it."""


class NotAllowedError(InputError):
    """The caller's role does not allow it."""


class NotKnownError(InputError):
    """Nobody knows who the caller is: no token, a wrong one, or one that has expired."""


class CheckpointError(DisinheritError):
    """A stored file is missing, damaged, or not what its name or digest says."""

    exit_code = 2


class StoreError(DisinheritError):
    """A store cannot do what was asked."""

    exit_code = 2


class LostHistoryError(StoreError):
    """A log that does not continue what was signed.

    Args:
        why: what is wrong with it.
    """

    def __init__(self, why: str) -> None:
        super().__init__(
            f"Expected an audit log that continues what was signed, but {why}. Nothing is signed. "
            "Restore the database; or, if it was put back on purpose, say so on the coordinator's "
            "machine: disinherit confirm history."
        )
        self.why = why


class CampaignError(DisinheritError):
    """A campaign could not be carried out."""


class HeldError(CampaignError):
    """A campaign that another coordinator drives."""


class NotApplicableError(DisinheritError):
    """A method cannot answer this kind of request; the message is the reason."""


class NotMeasuredError(DisinheritError):
    """A metric has no value here; the message is the reason, as the report shows it."""
