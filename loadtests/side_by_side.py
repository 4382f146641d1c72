"""The same work in several processes that begin at the same moment."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from time import monotonic
from typing import Any, TypeVar

T = TypeVar("T")
_PATIENCE = 120.0  # seconds that a process gets to be ready
_parent: Connection | None = None  # of a process of `side_by_side`


def side_by_side(
    works: Sequence[Callable[[], T]],
    meanwhile: AbstractContextManager[object] = nullcontext(),  # noqa: B008 - it holds no state
) -> list[T]:
    """Do each work in a process of its own, and return what they returned. Each calls `meet` when it is ready.

    `meanwhile` is entered when they begin and left when they have ended.

    Raises:
        TimeoutError: one was not ready in time.
        ConnectionError: a process ended.
        Exception: whatever a work raises.
    """
    spawn = get_context("spawn")
    ends: list[Connection] = []
    started = []
    try:
        for work in works:
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_do, args=(theirs, work), daemon=True)
            process.start()
            theirs.close()
            started.append(process)
            ends.append(ours)
        _receive(ends, _PATIENCE)  # they are ready
        with meanwhile:
            for end in ends:
                end.send(None)
            return _receive(ends, None)
    finally:
        for process in started:
            process.kill()
            process.join()


def meet() -> None:
    """Wait for the other processes of `side_by_side`; elsewhere do nothing."""
    if _parent is not None:
        _parent.send((True, None))
        _parent.recv()


def _receive(ends: Sequence[Connection], seconds: float | None) -> list[Any]:
    """Return what each process says, in their order; the first that fails raises, whatever the others do."""
    said = dict[Connection, Any]()
    until = None if seconds is None else monotonic() + seconds
    while waiting := [end for end in ends if end not in said]:
        ready = wait(waiting, None if until is None else max(0.0, until - monotonic()))
        if not ready:
            raise TimeoutError(f"a process was not ready within {seconds:g} s")
        said |= {end: _said(end) for end in waiting if end in ready}
    return [said[end] for end in ends]


def _said(end: Connection) -> Any:
    try:
        good, said = end.recv()
    except EOFError:
        raise ConnectionError("a process ended; the standard error says why") from None
    if not good:
        raise said
    return said


def _do(parent: Connection, work: Callable[[], object]) -> None:
    global _parent  # noqa: PLW0603 - where `meet` finds it
    _parent = parent
    try:
        parent.send((True, work()))
    except Exception as error:
        parent.send((False, error))
