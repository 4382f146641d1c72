"""`zooserve predict --server`: a folder's pictures, answered by a server, into a file that can be gone on with."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from time import monotonic
from typing import Any, cast, get_args

import click
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from zooserve_client import Client, Result, Task, UnreachableError, ZooserveError, pictures_in

from service.commands.lines import Lines, LinesError

_RETRIES = 20  # of a picture: the deadline ends them sooner
# What every other picture would be answered as well.
_HOPELESS = frozenset({"unauthorised", "forbidden", "unknown_model", "bad_option", "not_acceptable"})


def predict_folder(
    url: str,
    model: str,
    folder: Path,
    out: Path,
    options: Mapping[str, str],
    *,
    api_key: str | None,
    deadline: float,
    concurrency: int,
    retry_failed: bool,
) -> bool:
    """Answer those pictures of a folder that have no line in `out` yet.

    Each line is the server's answer with the picture's `file` (its path in the folder), or an `error`. They are in the
    files' order when all are there. What no picture is to blame for (no server, no key, no such model) ends the command
    without a line.

    Args:
        url: of the server.
        model: which answers.
        folder: with the pictures, in folders of any depth.
        out: the file of lines.
        options: of the model's task.
        api_key: where the server asks for one.
        deadline: seconds for each picture, in which a server that is full or gone is asked again and again.
        concurrency: how many requests are under way at once.
        retry_failed: ask again for those whose line is an error.

    Returns:
        Whether every line is an answer.

    Raises:
        ClickException: it cannot begin, or not go on; what is done is in `out`.
    """
    if taken := options.keys() & {"model", "deadline", "concurrency"}:
        raise click.UsageError(f"--option {min(taken)} is no option of a task; --help lists the command's")
    try:
        client = Client(url, api_key=api_key, deadline=deadline, retries=_RETRIES)
    except ValueError as error:
        raise click.UsageError(f"--server: {error}") from error
    try:
        files = {path.relative_to(folder).as_posix(): path for path in pictures_in(folder)}
        task = _task(client, model)
        with client, _alone(out), Lines(out, model) as lines:
            if retry_failed:
                failed = lines.failed()
                lines.keep([name for name in lines if name not in failed])
            asked = {name: path for name, path in files.items() if name not in lines}
            outcomes = client.predict_many(task, asked.values(), concurrency=concurrency, model=model, **options)
            _write(lines, zip(asked, outcomes, strict=True), len(lines) + len(asked))
            lines.keep(sorted(lines, key=PurePosixPath))  # as `pictures_in` sorts: some may have come later
            return _sum_up(lines, out, len(asked))
    except (LinesError, OSError) as error:
        raise click.ClickException(str(error)) from error
    except UnreachableError as error:
        raise click.ClickException(
            f"{error.detail}. What was answered is in {out}; the same command goes on."
        ) from error
    except ZooserveError as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Be the only one who writes a file; raises `ClickException` where another does."""
    lock = FileLock(out.with_name(f".{out.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise click.ClickException(f"{out} is being written by another zooserve predict.") from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink()  # nobody waits for it
        lock.release()


def _task(client: Client, model: str) -> Task:
    """The task of a model; raises `ClickException` where the server has no such model."""
    tasks = {each["name"]: each.get("task", "") for each in client.models()}
    if model not in tasks:
        raise click.ClickException(f"The server has no model {model}, but {', '.join(sorted(tasks)) or 'none'}.")
    if tasks[model] not in get_args(Task):
        raise click.ClickException(f"{model} answers no pictures (its task: {tasks[model] or 'not known'}).")
    return cast("Task", tasks[model])


def _write(lines: Lines, outcomes: Iterable[tuple[str, Result | ZooserveError]], total: int) -> None:
    """Write a line for each outcome as it comes, and show how far it is; raises what no picture is to blame for."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f}/s"),
        TextColumn("{task.fields[failed]} failed"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        failed, start = len(lines.failed()), monotonic()
        bar = progress.add_task("", total=total, completed=len(lines), failed=failed, rate=0.0)
        for done, (name, outcome) in enumerate(outcomes, start=1):
            if isinstance(outcome, UnreachableError) or (
                isinstance(outcome, ZooserveError) and outcome.reason in _HOPELESS
            ):
                raise outcome
            lines.add(name, outcome.to_dict() if isinstance(outcome, Result) else _error(outcome))
            failed += not isinstance(outcome, Result)
            progress.update(bar, advance=1, failed=failed, rate=done / (monotonic() - start))


def _error(error: ZooserveError) -> dict[str, Any]:
    return {"error": {"status": error.status, "reason": error.reason, "detail": error.detail}}


def _sum_up(lines: Lines, out: Path, asked: int) -> bool:
    failed = len(lines.failed())
    again = " (--retry-failed asks again)" if failed else ""
    click.echo(f"{out}: {len(lines)} pictures, {asked} of them asked now, {failed} failed{again}", err=True)
    return not failed
