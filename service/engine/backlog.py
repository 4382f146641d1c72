"""The work ahead of a process' workers, of all models: how long a job that is submitted now would wait."""

from time import perf_counter

from service.engine.job import AnyJob, Jobs

_SMOOTHING = 0.05  # weight of the newest observation in the moving average of the pace
_SLOWEST = 20.0  # larger paces are pauses of the whole process


class Backlog:
    """The jobs that were submitted and not settled. Only on the event loop, so that what it counts needs no lock.

    How long work takes differs from the sum of its costs: threads share cores, caches and the interpreter's lock, and
    other processes use the machine. So the sum is multiplied by a pace that is measured while all workers have work:
    seconds that passed per second of work settled.

    Args:
        size: how many workers share the work.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._backlog = 0.0  # seconds of work, as the batchers estimate it
        self._jobs = 0  # how many jobs that is
        self._pace = 1.0  # seconds that a second of work takes when all workers have work
        self._settled: float | None = None  # when jobs were last settled, if all workers had work from then on

    def predicted_wait(self, further: float = 0.0) -> float:
        """Seconds until a worker would begin with a job that is submitted now: the work ahead, shared by all workers.

        With `further` seconds of work that are to be submitted before it.
        """
        return (self._backlog + further) * self._pace / self.size

    def count(self, job: AnyJob) -> None:
        """Add a job to the work ahead."""
        self._backlog += job.cost
        self._jobs += 1
        job.concurrent = self._jobs

    def settled(self, jobs: Jobs) -> None:
        """Subtract finished jobs from the work ahead, and measure the pace."""
        now, work = perf_counter(), sum(job.cost for job in jobs)
        self._jobs -= len(jobs)
        self._backlog = self._backlog - work if self._jobs else 0.0  # exactly 0: subtraction leaves a remainder
        if self._settled is not None and work > 0:
            pace = (now - self._settled) * self.size / work
            self._pace += _SMOOTHING * (min(max(pace, 1.0), _SLOWEST) - self._pace)
        self._settled = now if self._jobs > self.size else None
