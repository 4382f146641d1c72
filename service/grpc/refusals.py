"""Errors as gRPC's status codes."""

from math import ceil
from typing import NoReturn

import grpc

from service.errors import Reason, RequestError

_CODES = {
    Reason.UNDECODABLE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.NOT_AN_IMAGE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,  # clients would retry after RESOURCE_EXHAUSTED
    Reason.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.BAD_OPTION: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.NOT_ACCEPTABLE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.UNAUTHORISED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    Reason.UNKNOWN_MODEL: grpc.StatusCode.NOT_FOUND,
    Reason.REFUSED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.QUEUE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.NOT_READY: grpc.StatusCode.UNAVAILABLE,
    Reason.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
}


async def refuse(context: grpc.aio.ServicerContext, error: RequestError) -> NoReturn:
    """End a call with an error. If a retry may succeed, trailing metadata name the delay for clients' retry policies.

    https://github.com/grpc/proposal/blob/master/A6-client-retries.md
    """
    trailing = list(context.trailing_metadata() or ())
    if error.retry_after is not None:
        trailing.append(("retry-after", str(ceil(error.retry_after))))
        trailing.append(("grpc-retry-pushback-ms", str(round(1000 * error.retry_after))))
    await context.abort(_CODES[error.reason], error.detail, tuple(trailing))
    raise AssertionError  # `abort` raised
