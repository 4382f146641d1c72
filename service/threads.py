"""Threads and tasks of their own: slow work of one kind does not delay that of other kinds.

The event loop's own threads (`asyncio.to_thread`) read and write large tensors.
"""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Threads:
    """A few threads for one kind of work."""

    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, name)

    async def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a function on one of the threads, and return its result."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*args, **kwargs))


class Tasks(set[asyncio.Task[None]]):
    """The tasks that run beside the one that began them. The event loop itself does not keep tasks alive."""

    def begin(self, work: Coroutine[object, None, None]) -> None:
        """Run a coroutine to its end."""
        task = asyncio.get_running_loop().create_task(work)
        self.add(task)
        task.add_done_callback(self.discard)


LOADING = Threads(4, "load")
"""For administrators' loading and unloading, which may take minutes."""
ON_DEMAND = Threads(1, "on demand")
"""For loading models that requests wait for, and for freeing others."""
METRICS = Threads(1, "metrics")
"""For writing `/metrics`."""
