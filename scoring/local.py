"""Scores parts in this process."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from scoring.scorer import AHEAD, Scorer
from scoring.spec import Done, Part, Spec


def score_here(spec: Spec, parts: Iterable[Part]) -> Iterator[Done]:
    """Score parts one after the other, two at once, with all cores or the GPU of this machine; yield what is done.

    Raises:
        ClickException: the model cannot be loaded.
        OSError: a file cannot be written.
    """
    scorer = Scorer(spec)
    with ThreadPoolExecutor(AHEAD, "part") as pool:
        waiting: deque[Future[Done]] = deque()
        for part in parts:
            waiting.append(pool.submit(scorer.score, part))
            if len(waiting) >= AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
