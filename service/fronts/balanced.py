"""A model that several engines have: each job goes to the one that would begin with it first."""

from collections.abc import Sequence
from math import ceil

from service.engine.intake import Admission
from service.engine.job import AnyJob
from service.fronts.remote import FrontModel, FrontQueue
from service.models.model import Model
from service.models.usage import Usage
from zoo.served_card import AnyServed


class BalancedQueues(Admission):
    """The jobs of this front for one model, on all engines.

    Args:
        queues: one for each engine.
    """

    def __init__(self, queues: Sequence[FrontQueue]) -> None:
        super().__init__(queues[0].max_queue)
        self._queues = queues

    @property
    def pending(self) -> int:
        return sum(queue.pending for queue in self._queues)

    @property
    def cost(self) -> float:
        """Seconds of work that a row is expected to take."""
        return self._next().cost

    def wait(self, rows: int = 1) -> float:
        """Seconds until work would begin for the last of some rows, which the engines share."""
        queues = self._able()
        return min(queue.wait(ceil(rows / len(queues))) for queue in queues)

    def waiting(self) -> int:
        return sum(queue.waiting() for queue in self._queues)

    def enter(self, job: AnyJob) -> None:
        """Give a job to an engine."""
        self._next().enter(job)

    def _able(self) -> Sequence[FrontQueue]:
        """The queues of the engines that live; all, where none does: they say why."""
        return [queue for queue in self._queues if queue.able] or self._queues

    def _next(self) -> FrontQueue:
        """The queue with the shortest predicted wait; among those that have none, with the fewest jobs."""
        return min(self._able(), key=lambda queue: (queue.wait(), queue.waiting()))


class BalancedUsage(Usage):
    """The use of a model on all engines: a request holds it on each, as its jobs may go to any."""

    __slots__ = ("_usages",)

    def __init__(self, usages: Sequence[Usage]) -> None:
        super().__init__()
        self._usages = usages

    @property
    def closing(self) -> bool:  # type: ignore[override]  # an attribute of the base class
        """Whether all engines are about to unload it."""
        return all(usage.closing for usage in self._usages)

    def begin(self) -> None:
        for usage in self._usages:
            usage.begin()

    def end(self) -> None:
        for usage in self._usages:
            usage.end()

    def idle(self, now: float) -> float:
        return min(usage.idle(now) for usage in self._usages)


class BalancedModel(Model[AnyServed]):
    """A model of several engines, of the same folder.

    Args:
        models: one for each engine.
    """

    def __init__(self, models: Sequence[FrontModel]) -> None:
        first = models[0]
        self.folder, self.card, self.provider, self.profile = first.folder, first.card, first.provider, first.profile
        self.batcher = BalancedQueues([model.batcher for model in models])
        self.usage = BalancedUsage([model.usage for model in models])
