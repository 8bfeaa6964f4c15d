"""gRPC status codes of errors."""

import grpc

from disinherit.common.errors import (
    DisinheritError,
    InputError,
    NotAllowedError,
    NotFoundError,
    NotKnownError,
    NotNowError,
    StoppingError,
    StoreError,
)

_STATUS = (
    (NotFoundError, grpc.StatusCode.NOT_FOUND),
    (NotNowError, grpc.StatusCode.FAILED_PRECONDITION),
    (NotAllowedError, grpc.StatusCode.PERMISSION_DENIED),
    (NotKnownError, grpc.StatusCode.UNAUTHENTICATED),
    (InputError, grpc.StatusCode.INVALID_ARGUMENT),
    (StoreError, grpc.StatusCode.UNAVAILABLE),
    (StoppingError, grpc.StatusCode.UNAVAILABLE),
    (DisinheritError, grpc.StatusCode.FAILED_PRECONDITION),
)


def status_of(error: DisinheritError) -> grpc.StatusCode:
    """Return the gRPC status code for an error.

    Example:
        >>> status_of(NotFoundError("Expected the id of a request, but got 'x'.")).name
        'NOT_FOUND'
    """
    return next(code for kind, code in _STATUS if isinstance(error, kind))
