"""Errors that a user of Disinherit can meet.

::

    DisinheritError
    ├── InputError            a value from a person or a program is wrong (exit code 2)
    │   ├── GraphError        ... about the inheritance graph
    │   ├── ScopeError        ... about parameters in scope
    │   ├── FisherError       ... about Fisher information: shapes, names, values
    │   │   └── NoSamplesError  ... as there is no sample to compute it of
    │   ├── LabelError        ... about class names and label spaces
    │   ├── RequestError      ... about an unlearning request
    │   ├── WithheldError     ... asking for more than an owner releases
    │   ├── DataError         ... about a data set, split or partition
    │   ├── AuditError        ... about an audit log
    │   ├── TokenError        ... about an enrolment token
    │   ├── KeyRefusedError   ... about a key that may not enrol
    │   ├── NotOnOfferError   ... about a blob that is not on offer to an owner
    │   ├── OffsetError       ... about an offset beyond the end of a blob
    │   ├── NotFoundError     ... about an id that the service does not have (exit code 5)
    │   ├── NotNowError       ... about a call that the present state does not allow
    │   ├── NotAllowedError   ... about a call that the caller's role does not allow (exit code 4)
    │   └── NotKnownError     ... about a caller that the service does not know (exit code 4)
    ├── CheckpointError       a stored file is missing, damaged or does not match (exit code 2)
    ├── StoreError            the store cannot do what was asked (exit code 2)
    │   ├── LostHistoryError  ... since the audit log does not continue what was signed
    │   └── UnreachableError  ... since the service does not answer; try again (exit code 3)
    ├── StoppingError         the coordinator is being stopped (exit code 1)
    ├── CampaignError         a campaign could not be carried out (exit code 1)
    │   ├── NotDrivenError    ... since a person or a threshold stopped it
    │   ├── HeldError         ... since another coordinator drives it
    │   └── UntrainedError    ... since the models know no more than a guess
    ├── NotApplicableError    a method of the benchmark cannot answer this kind of request
    └── NotMeasuredError      a metric of the benchmark has no value

A message names the thing, the value it had, what was expected and what to do: "Expected ..., but
got ...".  The command line prints it as one line and never a stack trace.
"""


class DisinheritError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns.

    Args:
        message: what was expected, and what was found.
        foreign: message of foreign code, such as a network's; it must not leave its machine.

    Attributes:
        own: the message without `foreign`.
        foreign: the message of foreign code; `""` without one.
    """

    exit_code = 1

    def __init__(self, message: str = "", *, foreign: str = "") -> None:
        super().__init__(f"{message}: {foreign}" if foreign else message)
        self.own = message
        self.foreign = foreign


class InputError(DisinheritError, ValueError):
    """A value from a person or a program is wrong; nothing was changed."""

    exit_code = 2


class GraphError(InputError):
    """The inheritance graph refuses a model, an edge or a question about an unknown model."""


class ScopeError(InputError):
    """The parameters in scope cannot be determined, or cannot be handled."""


class FisherError(InputError):
    """Fisher information that cannot be computed, merged or applied."""


class NoSamplesError(FisherError):
    """Data without a single sample, of which nothing can be computed."""


class LabelError(InputError):
    """Class names that do not fit the label space they are used in."""


class RequestError(InputError):
    """An unlearning request that cannot be planned."""


class WithheldError(InputError):
    """An owner's release policy forbids what is asked for."""


class DataError(InputError):
    """A data set, split or partition that cannot be used."""


class AuditError(InputError):
    """Data that is no audit log, or cannot be part of one."""


class TokenError(InputError):
    """An enrolment token that is unknown, spent or expired."""


class KeyRefusedError(InputError):
    """A key that may not enrol: it was revoked, or belongs to another owner."""


class NotOnOfferError(InputError):
    """A blob that is not on offer, or not to this owner."""


class OffsetError(InputError):
    """An offset beyond the end of a blob."""


class NotFoundError(InputError):
    """An id that does not exist."""

    exit_code = 5


class NotNowError(InputError):
    """A call that the present state does not allow."""


class NotAllowedError(InputError):
    """A call that the caller's role does not allow."""

    exit_code = 4


class NotKnownError(InputError):
    """A caller with no token, a wrong one, or an expired one."""

    exit_code = 4


class CheckpointError(DisinheritError):
    """A stored file is missing, damaged, or does not match its name or digest."""

    exit_code = 2


class StoppingError(DisinheritError):
    """The coordinator is being stopped: the same call may be made again when it is back."""


class StoreError(DisinheritError):
    """A store cannot do what was asked."""

    exit_code = 2


class UnreachableError(StoreError):
    """A service that does not answer now; the same call may succeed later."""

    exit_code = 3


class LostHistoryError(StoreError):
    """A log that does not continue what was signed.

    Args:
        why: the fault of the log.
    """

    def __init__(self, why: str) -> None:
        super().__init__(
            f"Expected an audit log that continues what was signed, but {why}. Nothing is signed. "
            "Restore the database; or, if that was on purpose, confirm it on the coordinator's "
            "machine: disinherit confirm history."
        )
        self.why = why


class CampaignError(DisinheritError):
    """A campaign could not be carried out."""


class NotDrivenError(CampaignError):
    """A campaign that is not to be driven now, because a person or a threshold stopped it."""


class HeldError(CampaignError):
    """A campaign that another coordinator drives."""


class UntrainedError(CampaignError):
    """A simulated run whose models know too little for anything to be unlearned in them."""


class NotApplicableError(DisinheritError):
    """A method cannot answer this kind of request; the message is the reason."""


class NotMeasuredError(DisinheritError):
    """A metric has no value here; the message is the reason, as the report shows it."""
