"""Every error a user of Disinherit can meet.

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
    │   └── AuditError        ... about an audit log
    ├── CheckpointError       a stored file is missing, damaged or not what it says (exit code 2)
    ├── StoreError            the store cannot do what was asked (exit code 2)
    └── CampaignError         a campaign could not be carried out (exit code 1)

A message names the thing, the value it had, what was expected and what to do: "Expected ..., but
got ...".  The command line prints it as one line and never a stack trace.
"""


class DisinheritError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


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


class CheckpointError(DisinheritError):
    """A stored file is missing, damaged, or not what its name or digest says."""

    exit_code = 2


class StoreError(DisinheritError):
    """A store cannot do what was asked."""

    exit_code = 2


class CampaignError(DisinheritError):
    """A campaign could not be carried out."""
