"""A closed loop from several processes, for a service that is quicker than one client process. Called by `gpu`."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from multiprocessing import get_context
from multiprocessing.connection import Connection

from loadtests.client import Limits, Load, Request, Server, closed_loop, run

_PATIENCE = 60.0  # seconds that a process gets to start, and to answer after its load


def distributed_load(
    address: Server,
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
        OSError: nobody listens, or (TimeoutError, EOFError as ConnectionError) a process did not start or died.
    """
    shares = [len(range(first, concurrency, processes)) for first in range(min(processes, concurrency))]
    if len(shares) == 1:
        with meanwhile:
            return run(closed_loop(address, requests, concurrency=concurrency, limits=limits))
    spawn = get_context("spawn")
    ends: list[Connection] = []
    started = []
    try:
        for share in shares:
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_client, args=(theirs, address, requests, share, limits), daemon=True)
            process.start()
            theirs.close()
            started.append(process)
            ends.append(ours)
        for end in ends:
            _receive(end, _PATIENCE)  # it is ready
        with meanwhile:
            for end in ends:
                end.send(None)
            loads = [_receive(end, limits.seconds + limits.timeout + _PATIENCE) for end in ends]
    finally:
        for process in started:
            process.kill()
            process.join()
    return Load([sample for load in loads for sample in load.samples], max(load.window for load in loads))


def _receive(end: Connection, seconds: float) -> Load:
    if not end.poll(seconds):
        raise TimeoutError(f"a client process said nothing for {seconds:g} s")
    try:
        said = end.recv()
    except EOFError:
        raise ConnectionError("a client process ended; the standard error says why") from None
    if isinstance(said, OSError):
        raise said
    assert said is None or isinstance(said, Load)  # noqa: S101 - see `_client`
    return said or Load([], 0.0)


def _client(end: Connection, address: Server, requests: Sequence[Request], concurrency: int, limits: Limits) -> None:
    """In a process of its own: say that it is there, wait for the start, load, and send what came of it."""
    end.send(None)
    end.recv()
    try:
        end.send(run(closed_loop(address, requests, concurrency=concurrency, limits=limits)))
    except OSError as error:
        end.send(error)
