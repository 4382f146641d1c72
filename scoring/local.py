"""Scores parts in this process."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

from scoring.scorer import AHEAD, Scorer
from scoring.spec import Done, Part, Spec
from service.engine.device_errors import BrokenDeviceError
from zoo.errors import ZooError


class DeviceError(ZooError):
    """The GPU is lost; the message has its error."""


def score_here(spec: Spec, parts: Iterable[Part]) -> Iterator[Done]:
    """Score parts one after the other, two at once, with all cores or the GPU of this machine; yield what is done.

    Raises:
        ClickException: the model cannot be loaded.
        StorageError: a file cannot be written, or the images' storage does not answer.
        DeviceError: the GPU can no longer be used.
    """
    with closing(Scorer(spec)) as scorer, ThreadPoolExecutor(AHEAD, "part") as pool:
        waiting: deque[Future[Done]] = deque()
        try:
            for part in parts:
                waiting.append(pool.submit(scorer.score, part))
                if len(waiting) >= AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenDeviceError as error:
            raise DeviceError(f"the GPU can no longer be used; the same command continues: {error}") from error
        finally:
            scorer.stop()  # else Ctrl-C would wait for two whole parts
