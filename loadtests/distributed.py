"""A closed loop from several processes, for a service that is quicker than one client process. Called by `gpu`."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from loadtests.client import Limits, Load, Request, closed_loop, run
from loadtests.side_by_side import meet, side_by_side
from loadtests.target import Target


def distributed_load(
    address: Target,
    requests: Sequence[Request],
    *,
    concurrency: int,
    limits: Limits,
    processes: int,
    meanwhile: AbstractContextManager[object] = nullcontext(),  # noqa: B008 - it holds no state
) -> Load:
    """Let `concurrency` clients, spread over processes that start at the same moment, send `requests` in turn.

    `meanwhile` is entered when they start and left when they have ended.

    Raises:
        OSError: nobody listens, or (TimeoutError, ConnectionError) a process did not start or died.
    """
    shares = [len(range(first, concurrency, processes)) for first in range(min(processes, concurrency))]
    if len(shares) == 1:
        with meanwhile:
            return run(closed_loop(address, requests, concurrency=concurrency, limits=limits))
    loads = side_by_side([partial(_client, address, requests, share, limits) for share in shares], meanwhile)
    return Load([sample for load in loads for sample in load.samples], max(load.window for load in loads))


def _client(address: Target, requests: Sequence[Request], concurrency: int, limits: Limits) -> Load:
    meet()
    return run(closed_loop(address, requests, concurrency=concurrency, limits=limits))
