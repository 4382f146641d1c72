"""What is scored and how: made once by the command, sent to every worker. Also the names of parts."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from msgspec import Struct

Form = Literal["parquet", "jsonl"]


class Spec(Struct, frozen=True):
    """What all workers need to know.

    Attributes:
        out: the address of the folder of results.
        model, version, sha256: that answers; sha256 of its graph.
        models: the folder of exported models, the same on all machines.
        task: that is answered.
        options: of the task, as texts.
        pixels: how images are decoded and resized.
        form: of the files.
        timeout_s: seconds in which an image must have been fetched.
    """

    out: str
    model: str
    version: str
    sha256: str
    models: str
    task: str
    options: dict[str, str]
    pixels: Literal["fast", "exact"]
    form: Form = "parquet"
    timeout_s: float = 30.0


class Part(NamedTuple):
    """A part: the record batch `number` of the plan `plan`, both as in the name of its file."""

    plan: int
    number: int

    def name(self, form: str) -> str:
        """Return the name of its file. A part that is done twice replaces its file by an equal one."""
        return f"part-{self.plan:04d}-{self.number:07d}.{form}"


class Done(NamedTuple):
    """A part whose file is complete: how many rows it has, and how many of them are errors."""

    part: Part
    rows: int
    failed: int


class Pool(NamedTuple):
    """The actors of a run on a cluster.

    Attributes:
        address: of the cluster.
        workers: how many actors.
        threads: engine threads of each; an actor takes as many CPUs.
        gpus: of each actor.
    """

    address: str
    workers: int
    threads: int
    gpus: int


def threads_each(nodes: Sequence[tuple[float, float]], actors: int) -> int:
    """Return the most CPUs that each of some actors can have, wherever they are placed; 0: there are too few.

    Args:
        nodes: CPUs of each, and how many actors it may have at most.
        actors: how many there are to be.
    """
    most = int(max(cpus for cpus, _ in nodes))
    return next((n for n in range(most, 0, -1) if sum(min(cpus // n, room) for cpus, room in nodes) >= actors), 0)
