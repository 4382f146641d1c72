"""Separate threads for separate kinds of work, so that slow work of one kind does not delay others.

The event loop's own threads (`asyncio.to_thread`) read and write large tensors.
"""

import asyncio
from collections.abc import Callable
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


LOADING = Threads(4, "load")
"""For administrators' loading and unloading, which may take minutes."""
ON_DEMAND = Threads(1, "on demand")
"""For loading models that requests wait for, and for freeing others."""
METRICS = Threads(1, "metrics")
"""For writing `/metrics`."""
