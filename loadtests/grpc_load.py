"""The requests of a load over gRPC: `client`'s loops send them by this where the target is one of gRPC.

An HTTP request's body, the encoded image, becomes the message; its path and headers are the target's business.
"""

import asyncio
from collections.abc import Sequence
from time import perf_counter

import grpc

from loadtests.client import Failure, Sample
from loadtests.exchange import Request
from loadtests.oip_grpc import infer_call, infer_request, metadata, open_channel, result_of, unreachable
from loadtests.target import Target, TargetError

_CHANNELS = 4  # each with a connection of its own: one is bound to one core of the server's event loops
_FAILURES: dict[grpc.StatusCode, Failure] = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "timeout",
    grpc.StatusCode.UNAVAILABLE: "connection",
}
# As HTTP has them, so that reports of both read alike; 500 for all others.
_STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
}


class GrpcSender:
    """Sends the requests of a load by their numbers, as `ModelInfer` of the target's model."""

    def __init__(self, target: Target, requests: Sequence[Request], timeout: float) -> None:
        self._timeout = timeout
        self._metadata = metadata(target)
        self._encoded = [infer_request(target.model, request.body, {}) for request in requests]
        self._channels = [open_channel(target) for _ in range(_CHANNELS)]
        self._calls = [infer_call(channel) for channel in self._channels]
        self._sent = 0

    @staticmethod
    async def open(target: Target, requests: Sequence[Request], timeout: float) -> "GrpcSender":
        """Connect.

        Raises:
            OSError: nobody listens, or not in time.
            TargetError: the file of certificates cannot be read.
        """
        sender = GrpcSender(target, requests, timeout)
        try:
            await asyncio.wait_for(asyncio.gather(*(one.channel_ready() for one in sender._channels)), timeout)
        except TimeoutError as error:
            await sender.close()
            raise ConnectionError(f"{target.url} is not reachable over gRPC within {timeout:g} s") from error
        return sender

    async def send(self, which: int, begin: float, due: float) -> Sample:
        """Send one request that is due at `due` (`perf_counter()`) and say what became of it."""
        sent = perf_counter()
        start, late = due - begin, sent - due
        self._sent += 1
        call = self._calls[self._sent % len(self._calls)]
        try:
            await call(self._encoded[which], timeout=self._timeout, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            code, latency = error.code(), perf_counter() - due
            if failure := _FAILURES.get(code):
                return Sample(which, start, latency, 0, failure, late)
            return Sample(which, start, latency, _STATUSES.get(code, 500), "", late)
        return Sample(which, start, perf_counter() - due, 200, "", late)

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(channel.close() for channel in self._channels))


async def answer_of(target: Target, request: Request, timeout: float) -> bytes:
    """Send one request, and return the task's result, JSON.

    Raises:
        TargetError: it was not answered, with the reason.
    """
    async with open_channel(target) as channel:
        try:
            message = infer_request(target.model, request.body, {})
            return result_of(await infer_call(channel)(message, timeout=timeout, metadata=metadata(target)))
        except grpc.aio.AioRpcError as error:
            raise TargetError(unreachable(target, error)) from error
