"""`zooserve score`: all images of a folder, a glob or a list, on this machine or on a Ray cluster."""

from pathlib import Path
from typing import cast

import click
import msgspec

from scoring.progress import shown
from scoring.run import Cluster, run
from scoring.spec import Form, Spec
from scoring.storage import Folder
from service.errors import RequestError
from service.settings import SettingError, read_settings, remarks
from service.tasks import TASKS, Operation, can_answer, options_of
from zoo.cli import models_option, task_options
from zoo.extras import require
from zoo.files import shown as printable
from zoo.pipeline_card import find_pipeline
from zoo.served_card import ServedCard
from zoo.store import Store


@click.command(
    epilog="""
\b
Examples:
  zooserve score mobilenet_v2 photos/ --out results/
  zooserve score yolov4_tiny 'photos/**/*.jpg' --out results/ -o score_threshold=0.5
  zooserve score yolov4_tiny list.csv --column url --out results/ --format jsonl
  zooserve score yolov4_tiny s3://bucket/photos --out s3://bucket/results --ray auto --workers 8
"""
)
@click.argument("model")
@click.argument("source")
@click.option(
    "--out", required=True, metavar="FOLDER", help="For the results: a folder, or an address such as s3://..."
)
@task_options
@click.option("--task", type=click.Choice(list(TASKS)), help="What to answer. [default: the model's task]")
@click.option("--column", default="path", show_default=True, help="Of a list, that has the addresses.")
@click.option("--format", "form", type=click.Choice(["parquet", "jsonl"]), default="parquet", show_default=True)
@click.option(
    "--part-size", default=256, show_default=True, type=click.IntRange(1, 100_000), help="Images in a file of results."
)
@click.option("--retry-failed", is_flag=True, help="Answer the parts anew that have errors.")
@click.option(
    "--timeout",
    "timeout_s",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Seconds in which an image must have been fetched.",
)
@click.option(
    "--ray", "address", metavar="ADDRESS|local", help="Work on this Ray cluster (`auto`: the one found here)."
)
@click.option("--workers", type=click.IntRange(1), help="Actors on the cluster. [default: as many as nodes]")
@click.option("--gpus", type=click.IntRange(1), help="Actors with a GPU each, in place of --workers.")
@click.option(
    "--patience",
    "patience_s",
    default=1800.0,
    show_default=True,
    type=click.FloatRange(1),
    help="Seconds without progress, after which a cluster is given up.",
)
@models_option()
@click.option("--json", "as_json", is_flag=True, help="Lines of JSON, at most one a second; the last is the manifest.")
def score(
    *,
    model: str,
    source: str,
    out: str,
    options: dict[str, str],
    task: str | None,
    column: str,
    form: Form,
    part_size: int,
    retry_failed: bool,
    timeout_s: float,
    address: str | None,
    workers: int | None,
    gpus: int | None,
    patience_s: float,
    models: str | None,
    as_json: bool,
) -> None:
    """Answer all images of SOURCE with MODEL, and write the answers into a folder.

    SOURCE is a folder, a glob, an image, or a list of addresses (.txt, .csv, .jsonl, .parquet); s3://, gs:// and others
    too, and https:// in lists. An image that cannot be answered is a row with its error. What has its row is not done
    again: after any end, and for a source that has grown, the same command continues.
    """
    if address is None and (workers or gpus):
        raise click.UsageError("--workers and --gpus go with --ray")
    if workers and gpus:
        raise click.UsageError("--workers and --gpus: give one, an actor has either a GPU or CPUs alone")
    if wrong := [text for text in (out, *options, *options.values()) if not _is_utf8(text)]:
        raise click.UsageError(f"{printable(wrong[0])}: expected UTF-8")
    for line in remarks():
        click.echo(f"Warning: {line}", err=True)
    if address is not None:
        require("ray")
    spec = _spec(model, models, out, task, options, form, timeout_s)
    cluster = Cluster(address, workers, gpus, patience_s) if address is not None else None
    with shown(as_json=as_json) as show:
        manifest = run(spec, source, column, part_size, cluster, show, retry_failed=retry_failed)
    if as_json:
        click.echo(msgspec.json.encode(manifest))
    else:
        failed = f", {manifest.failed} of them errors (--retry-failed tries again)" if manifest.failed else ""
        click.echo(f"{manifest.spec.out}: {manifest.images} rows{failed}; {manifest.runs[-1].images} are new", err=True)


def _is_utf8(text: str) -> bool:
    """Return whether an argument's bytes were UTF-8; those that were not are surrogates in it."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _spec(
    name: str, models: str | None, out: str, task: str | None, options: dict[str, str], form: Form, timeout_s: float
) -> Spec:
    """Check what is asked for before anything is listed or loaded."""
    try:
        settings = read_settings()
    except SettingError as error:
        raise click.ClickException(str(error)) from error
    root = Path(models or settings.models).absolute()
    if find_pipeline(name, root) is not None and not (root / name).is_dir():
        raise click.ClickException(f"{name} is a pipeline, and images are scored with one model: name one of its two")
    card = Store(root).latest(name).card
    if not isinstance(card, ServedCard):
        raise click.ClickException(f"{name} takes no images, or its card cannot be read: `zooserve verify {name}`")
    operation = cast("Operation", task or card.task)
    if not can_answer(card, operation):
        raise click.UsageError(f"{name} cannot {operation}: it is a model for {card.task}")
    try:
        if reason := TASKS[operation].unsupported_reason(options_of(operation, options), card):
            raise click.UsageError(reason)
    except RequestError as error:
        raise click.UsageError(error.detail) from None
    where = Folder(out).full
    return Spec(where, name, card.version, card.sha256, str(root), operation, options, settings.pixels, form, timeout_s)
