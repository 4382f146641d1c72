"""Answers all images of a folder with a server, and writes the results to a file. For `zooserve predict --server`."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, cast, get_args

from filelock import FileLock, Timeout

from zooserve_client.call import Option, Task
from zooserve_client.client import Client
from zooserve_client.errors import UnreachableError, ZooserveError
from zooserve_client.images import images_in
from zooserve_client.results import Result
from zooserve_client.results_file import ResultsFile, ResultsFileError

# All other images would be refused for the same reason, so these end the whole call.
_FATAL = frozenset({"unauthorised", "forbidden", "unknown_model", "bad_option", "not_acceptable"})
_RESERVED = frozenset({"model", "deadline", "concurrency"})


@dataclass(frozen=True)
class FolderProgress:
    """The progress of a folder.

    Attributes:
        total: number of images that have a line or will get one.
        done: number of images that have a line, also from earlier calls.
        failed: number of these lines that are errors.
        asked: number of images that this call has sent.
    """

    total: int
    done: int
    failed: int
    asked: int


def predict_folder_to_file(
    client: Client,
    model: str,
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: Mapping[str, Option] = MappingProxyType({}),
    *,
    concurrency: int = 8,
    retry_failed: bool = False,
    on_progress: Callable[[FolderProgress], None] = lambda _: None,
) -> FolderProgress:
    """Answer the images of a folder that have no line in `out` yet.

    Each line is JSON: `file` (the image's path in the folder) with the server's answer or an `error`. After the call
    the lines are sorted by path. To continue after an interruption, make the same call again.

    Args:
        client: of the server; its deadline and retries are those of each image.
        model: that answers.
        folder: of images, also in subfolders; see `images_in`.
        out: the results file.
        options: of the model's task, such as `top_k`.
        concurrency: number of concurrent requests.
        retry_failed: ask again for images whose line is an error.
        on_progress: called before the first image and after each.

    Returns:
        The progress at the end.

    Raises:
        ValueError: an option is not one of a task.
        NotADirectoryError: there is no such folder.
        ResultsFileError: `out` is not such a file, or another process is writing it.
        ZooserveError: the server cannot be reached, has no such model, or refuses every image for the same reason.
            The results so far are in `out`.
        OSError: a folder cannot be listed, or `out` cannot be read or written.
    """
    if reserved := options.keys() & _RESERVED:
        raise ValueError(f"{min(reserved)} is not an option of a task")
    root, path = Path(folder), Path(out)
    files = {image.relative_to(root).as_posix(): image for image in images_in(root)}
    task = _task_of(client, model)
    with _locked(path), ResultsFile(path, model) as results:
        if retry_failed:
            failed = results.failed()
            results.keep([name for name in results if name not in failed])
        asked = {name: image for name, image in files.items() if name not in results}
        how: dict[str, Any] = {"model": model, **options}
        outcomes = client.predict_many(task, asked.values(), concurrency=concurrency, **how)
        progress = _write(results, zip(asked, outcomes, strict=True), len(asked), on_progress)
        results.keep(sorted(results, key=PurePosixPath))  # the order of `images_in`: images may have been added later
        return progress


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Lock a results file while the context lasts; raises `ResultsFileError` if another process has the lock."""
    lock = FileLock(out.with_name(f".{out.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ResultsFileError(f"{out} is being written by another process.") from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink()  # safe: no process waits for the lock
        lock.release()


def _task_of(client: Client, model: str) -> Task:
    """Return the task of a model; raises `ZooserveError` if the server has no such model for images."""
    tasks = {each["name"]: each.get("task", "") for each in client.models()}
    if model not in tasks:
        raise ZooserveError(f"The server has no model {model}, but {', '.join(sorted(tasks)) or 'none'}.")
    if tasks[model] not in get_args(Task):
        raise ZooserveError(f"{model} answers no images (its task: {tasks[model] or 'not known'}).")
    return cast("Task", tasks[model])


def _write(
    results: ResultsFile,
    outcomes: Iterable[tuple[str, Result | ZooserveError]],
    count: int,
    on_progress: Callable[[FolderProgress], None],
) -> FolderProgress:
    """Write a line for each outcome; raises errors that concern all images."""
    total, failed = len(results) + count, len(results.failed())
    progress = FolderProgress(total, len(results), failed, 0)
    on_progress(progress)
    for asked, (name, outcome) in enumerate(outcomes, start=1):
        if isinstance(outcome, Result):
            results.add(name, outcome.to_dict())
        elif isinstance(outcome, UnreachableError) or outcome.reason in _FATAL:
            raise outcome
        else:
            error = {"status": outcome.status, "reason": outcome.reason, "detail": outcome.detail}
            results.add(name, {"error": error})
            failed += 1
        progress = FolderProgress(total, len(results), failed, asked)
        on_progress(progress)
    return progress
