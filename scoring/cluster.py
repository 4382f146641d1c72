"""Scores parts on a Ray cluster with Ray Data: a pool of actors, each with a model.

A row of the dataset is the number of a part: no address and no image goes through Ray's object store, and what an actor
has done is its file. So the state of a run is the files alone, and Ray is told to forget: an actor that dies is
replaced, but its calls are not repeated by Ray, which would wait for the actor even where no node is left that could
take it. Instead the parts that have no file afterwards are given out again, until there are none, or until a round
brings no new file.
"""

import logging
import os
import queue
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext, from_items
from ray.exceptions import RayError

from scoring.scorer import AHEAD, Scorer
from scoring.spec import Done, Part, Pool, Spec, threads_each
from scoring.storage import StorageError
from service.cores import usable_cores
from service.engine.device_errors import BrokenDeviceError
from zoo.errors import ZooError
from zoo.variables import public

_ROUND = 20_000  # parts that Ray Data gets at once: each is a block, which takes the driver 1 ms and 6 kB
_FRUITLESS = 3  # rounds in a row that may do no part: an actor may die by chance in the last one
_END = object()


class ClusterError(ZooError):
    """The cluster cannot do the work; the message says why, and what to do."""


@contextmanager
def connected(address: str, workers: int | None, gpus: int | None) -> Iterator[Pool]:
    """Connect to a cluster, or start one on this machine (`local`), and share it out.

    Args:
        address: of the cluster.
        workers: how many actors; None: as many as nodes. Each has as many CPUs as all of them can have.
        gpus: how many actors with a GPU each; None: they have CPUs alone.

    Raises:
        ClusterError: it does not answer, or has less than was asked for.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    given: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    if address == "local":
        given |= {"num_cpus": usable_cores(), "include_dashboard": False}
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1  # a dead actor is an error of its blocks: `score_there` gives them out again
    _ERRORS.install()
    with redirect_stdout(sys.stderr):  # where Ray prints what its nodes say; standard output is for results
        try:
            # Ray keeps a job's variables as they are, and its dashboard shows them.
            ray.init(address=address, runtime_env={"env_vars": public(os.environ)}, **given)
        except (ConnectionError, RayError, RuntimeError, ValueError) as error:
            raise ClusterError(f"--ray {address}: {error}") from error
        try:
            yield _pool(address, workers, gpus)
        finally:
            ray.shutdown()


def _pool(address: str, workers: int | None, gpus: int | None) -> Pool:
    listed: Any = ray.nodes  # has no types
    nodes = [node["Resources"] for node in listed() if node["Alive"]]
    able = [node for node in nodes if node.get("GPU" if gpus else "CPU", 0) >= 1]
    if not able:
        raise ClusterError(f"--ray {address}: no node has a {'GPU' if gpus else 'CPU'}")
    if gpus:
        if gpus > (has := int(sum(node["GPU"] for node in able))):
            raise ClusterError(f"--gpus {gpus}: the cluster has {has}")
        return Pool(address, gpus, max(1, threads_each([(node.get("CPU", 0), node["GPU"]) for node in able], gpus)), 1)
    asked = workers or len(able)
    threads = threads_each([(node["CPU"], asked) for node in able], asked)
    if threads < 1:
        raise ClusterError(f"--workers {asked}: the cluster has {int(sum(node['CPU'] for node in able))} CPUs")
    return Pool(address, asked, threads, 0)


def score_there(spec: Spec, parts: Sequence[Part], pool: Pool, patience_s: float) -> Iterator[Done]:
    """Score parts with a pool of actors; yield what is done, each part once.

    Args:
        spec: what is scored.
        parts: that have no file yet.
        pool: the actors.
        patience_s: seconds without any part that is done, after which it is given up.

    Raises:
        ClusterError: nothing was done for so long, or the actors died on every part that is left, several times.
        StorageError: an actor cannot load the model, or cannot write a file.
    """
    left, fruitless = dict.fromkeys(parts), 0
    while left:
        before = len(left)
        for done in _round(spec, list(left)[:_ROUND], pool, patience_s):
            if done.part in left:
                del left[done.part]
                yield done
        fruitless = fruitless + 1 if len(left) == before else 0
        if fruitless == _FRUITLESS:
            names = ", ".join(part.name(spec.form) for part in list(left)[:3])
            raise ClusterError(
                f"{before} parts are left ({names}), and the actors that are given them die: {_ERRORS.last}. Look for "
                "too little memory, or an image that ends the process; Ray's logs are in /tmp/ray/session_latest/logs"
            )


class _Errors(logging.Handler):
    """Keeps the last error that Ray Data logs. It would print the traceback of each actor that dies."""

    last = "no reason was given"

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            self.last = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"

    def install(self) -> None:
        logger = logging.getLogger("ray.data")
        logger.handlers, logger.propagate = [self], False


_ERRORS = _Errors(logging.ERROR)


def _round(spec: Spec, parts: list[Part], pool: Pool, patience_s: float) -> Iterator[Done]:
    # Ray 2.60 deprecates these two arguments and has nothing in their place; 2.64 will not have them.
    warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
    rows = [{"plan": part.plan, "number": part.number} for part in parts]
    dataset = from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Actor,
        batch_size=None,
        fn_constructor_args=(spec, pool.threads),
        num_cpus=pool.threads,
        num_gpus=pool.gpus or None,
        max_restarts=-1,
        max_task_retries=0,
        compute=ActorPoolStrategy(
            size=pool.workers,
            max_tasks_in_flight_per_actor=AHEAD,
            max_concurrent_calls_per_actor=AHEAD,
            enable_true_multi_threading=True,
        ),
    )
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def read() -> None:
        try:
            for row in dataset.iter_rows():
                answers.put(row)
        except BaseException as error:  # delivered to the thread that waits
            answers.put(error)
        answers.put(_END)

    # A thread of its own: waiting for Ray Data has no time-out.
    threading.Thread(target=read, name="ray-data", daemon=True).start()
    while True:
        try:
            row = answers.get(timeout=patience_s)
        except queue.Empty:
            raise ClusterError(
                f"no part was done in {patience_s:g} s. `ray status` says what the cluster waits for; the same command "
                "continues."
            ) from None
        if row is _END:
            return
        if isinstance(row, BaseException):
            # Of an actor's traceback, the last line says what is wrong.
            raise ClusterError(str(row).strip().rpartition("\n")[2] or type(row).__name__) from row
        if row["error"]:
            raise StorageError(row["error"])
        yield Done(Part(row["plan"], row["number"]), row["rows"], row["failed"])


class _Actor:
    """Scores parts in a process of the cluster."""

    def __init__(self, spec: Spec, threads: int) -> None:
        self._scorer = Scorer(spec, threads)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Score the parts of a block, of which there is one.

        Errors that concern all parts are rows too: Ray Data is told to ignore what is raised, as a dead actor is that.
        """
        found = [
            self._score(Part(int(plan), int(number)))
            for plan, number in zip(batch["plan"], batch["number"], strict=True)
        ]
        return {name: [row[name] for row in found] for name in found[0]}

    def _score(self, part: Part) -> dict[str, Any]:
        row = {"plan": part.plan, "number": part.number, "rows": 0, "failed": 0, "error": ""}
        try:
            done = self._scorer.score(part)
        except BrokenDeviceError:
            os._exit(1)  # another actor, perhaps on another GPU, does the part
        except ZooError as error:
            return row | {"error": str(error)}
        except Exception as error:
            return row | {"error": f"{type(error).__name__}: {error}"}
        return row | {"rows": done.rows, "failed": done.failed}
