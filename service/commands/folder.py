"""`zooserve predict --server`: the command line of `zooserve_client.predict_folder_to_file`."""

from collections.abc import Mapping
from pathlib import Path
from time import monotonic

import click
from rich import progress as bars
from rich.console import Console
from zooserve_client import (
    Client,
    FolderProgress,
    ResultsFileError,
    UnreachableError,
    ZooserveError,
    predict_folder_to_file,
)

_RETRIES = 20  # of an image: the deadline ends them sooner


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
    """Answer the images of a folder that have no line in `out` yet, and show the progress.

    The arguments are those of the command. An image's deadline includes retries while the server is full or cannot be
    reached.

    Returns:
        Whether every line is an answer.

    Raises:
        ClickException: it cannot begin or continue; the results so far are in `out`.
    """
    try:
        client = Client(url, api_key=api_key, deadline=deadline, retries=_RETRIES)
    except ValueError as error:
        raise click.UsageError(f"--server: {error}") from error
    columns = (
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[rate]:.1f}/s"),
        bars.TextColumn("{task.fields[failed]} failed"),
        bars.TimeRemainingColumn(),
    )
    try:
        with client, bars.Progress(*columns, console=Console(stderr=True)) as shown:
            bar, start = shown.add_task("", visible=False, failed=0, rate=0.0), monotonic()

            def show(now: FolderProgress) -> None:
                rate = now.asked / max(monotonic() - start, 1e-9)
                shown.update(bar, visible=True, total=now.total, completed=now.done, failed=now.failed, rate=rate)

            done = predict_folder_to_file(
                client,
                model,
                folder,
                out,
                options,
                concurrency=concurrency,
                retry_failed=retry_failed,
                on_progress=show,
            )
    except ValueError as error:
        raise click.UsageError(f"--option {error}; --help lists the command's") from error
    except UnreachableError as error:
        raise click.ClickException(
            f"{error.detail}. The results so far are in {out}; the same command continues."
        ) from error
    except (ResultsFileError, OSError, ZooserveError) as error:
        raise click.ClickException(str(error)) from error
    again = " (--retry-failed asks again)" if done.failed else ""
    click.echo(f"{out}: {done.done} images, {done.asked} of them asked now, {done.failed} failed{again}", err=True)
    return not done.failed
