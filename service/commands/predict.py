"""`zooserve predict`: the same answers as a server's, without one. For a folder it can ask a server (see `folder`)."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import click
import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from service.commands.load import load_model, load_pipeline
from service.errors import RequestError
from service.results import CocoPose, Cropped, Embedding, Instance, Pose, Prediction, Result, RotatedBox, Segment
from service.settings import remarks
from service.tasks import TASKS, Operation, can_answer
from service.vision.draw import draw
from zoo.cli import drawn_into, models_option, task_options
from zoo.served_card import ServedCard


@click.command(
    epilog="""
\b
Examples:
  zooserve predict mobilenet_v2 cat.jpg
  zooserve predict yolov4_tiny street.jpg --annotate boxes.png
  zooserve predict yolov4_tiny *.jpg --json -o score_threshold=0.5
  zooserve predict u2netp portrait.jpg -o mask=none
  zooserve predict mobilenet_v2 cat.jpg -o localize=true -o heatmap=true --annotate where.png
  zooserve predict mobilenet_v2 cat.jpg --task embed --json -o normalize=true
  zooserve predict pets cat.jpg               a pipeline: each cat and dog, and its breed
  zooserve predict yolov4_tiny photos/ --server http://localhost:3000 --out results.jsonl
"""
)
@click.argument("model")
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@task_options
@click.option("--task", type=click.Choice(list(TASKS)), help="What to answer. [default: the model's task]")
@click.option(
    "--annotate",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=drawn_into,
    help="Draw the answer into this file.",
)
@models_option()
@click.option("--json", "as_json", is_flag=True, help="One JSON object per photo and line, as HTTP answers it.")
@click.option("--server", metavar="URL", help="Ask this server, for all images of the folder PHOTOS.")
@click.option("--api-key", envvar="ZOOSERVE_API_KEY", help="Of that server. [env: ZOOSERVE_API_KEY]")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Its answers, one per line; those there are kept.",
)
@click.option("--retry-failed", is_flag=True, help="Ask the server again for what failed.")
@click.option("--concurrency", type=click.IntRange(1, 256), default=8, show_default=True, help="Requests at once.")
@click.option(
    "--deadline",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds for each image, with retries.",
)
def predict(
    model: str,
    photos: tuple[Path, ...],
    options: dict[str, str],
    task: str | None,
    annotate: Path | None,
    models: str | None,
    as_json: bool,
    server: str | None,
    api_key: str | None,
    out: Path | None,
    retry_failed: bool,
    concurrency: int,
    deadline: float,
) -> None:
    """Answer photos with MODEL, a model or a pipeline, without a server.

    With --server, PHOTOS is a folder, and its answers become lines of --out, in the order of the files. What has its
    line is not asked again: after an interruption, the same command continues.

    The exit code is 1 if a photo could not be answered; the others are still answered.
    """
    if annotate and len(photos) > 1:
        raise click.UsageError("--annotate draws one photo: give one")
    if server:
        if out is None or len(photos) > 1 or not photos[0].is_dir():
            raise click.UsageError("--server needs --out, and one folder of photos")
        if annotate or as_json or models or task:
            raise click.UsageError("--annotate, --json, --models and --task are not for --server")
        for line in remarks():
            click.echo(f"Warning: {line}", err=True)
        from service.commands.folder import predict_folder  # noqa: PLC0415 - a slow import

        complete = predict_folder(
            server,
            model,
            photos[0],
            out,
            options,
            api_key=api_key,
            deadline=deadline,
            concurrency=concurrency,
            retry_failed=retry_failed,
        )
        sys.exit(not complete)
    if out or retry_failed:
        raise click.UsageError("--out and --retry-failed go with --server")
    answer, skeleton = _answers(model, models, task, options, drawn=annotate is not None)
    failed = False
    for photo in photos:
        try:
            data = photo.read_bytes()
            result = answer(data)
        except (OSError, RequestError) as error:
            failed = True
            click.echo(f"{photo}: {error.strerror if isinstance(error, OSError) else error}", err=True)
            continue
        if as_json:
            click.echo(msgspec.json.encode(result))
        else:
            show_result(photo, result)
        if annotate:
            draw(data, result, skeleton=skeleton).save(annotate)
            click.echo(f"drawn into {annotate}", err=True)
    sys.exit(failed)


def _answers(
    name: str, models: str | None, task: str | None, options: Mapping[str, object], *, drawn: bool
) -> tuple[Callable[[bytes], Result], Sequence[tuple[int, int]]]:
    """Load a model or a pipeline. Return what answers images with it, and the skeleton of its keypoints."""
    pipeline = load_pipeline(name, models)
    if pipeline is not None:
        if task:
            raise click.UsageError(f"--task: {name} is a pipeline; its card says what is asked")
        return lambda data: pipeline.answer(data, options), pipeline.skeleton
    loaded, predictor, _ = load_model(name, models)
    operation = _operation(loaded.card, task, drawn=drawn)
    return lambda data: predictor.predict(data, loaded, options, operation), loaded.card.skeleton


def _operation(card: ServedCard, task: str | None, *, drawn: bool) -> Operation:
    """Return the task to be answered, if the model answers it, and if its answer can be drawn where that is asked."""
    operation = cast("Operation", task or card.task)
    if not can_answer(card, operation):
        needs = TASKS[operation].needs
        why = f"its graph has no output {needs}" if needs else f"it is a model for {card.task}"
        raise click.UsageError(f"{card.name} cannot {operation}: {why}")
    if drawn and not TASKS[operation].drawn:
        raise click.UsageError(f"--annotate: an answer to {operation} cannot be drawn; --json prints it")
    return operation


def show_result(photo: Path, result: Result) -> None:
    """Print one answer as a table."""
    click.echo(f"{photo} ({result.image.width} x {result.image.height}):")
    table = Table(box=None)
    rows = [_cells(prediction) for prediction in result.predictions]
    for name in rows[0] if rows else ["nothing found"]:
        table.add_column(name.upper(), justify="left" if name == "label" else "right")
    for row in rows:
        table.add_row(*row.values())
    Console(markup=False, emoji=False).print(table, highlight=False)


def _cells(prediction: Prediction) -> dict[str, str]:
    if isinstance(prediction, Embedding):
        vector = np.asarray(prediction.embedding)
        first = " ".join(f"{value:.4f}" for value in vector[:4])
        return {"embedding": f"{vector.size} numbers: {first} ...", "length": f"{np.linalg.norm(vector):.4f}"}
    if isinstance(prediction, CocoPose):
        return {"category_id": str(prediction.category_id), "score": f"{prediction.score:.3f}"}
    cells = {"label": prediction.label}
    if not isinstance(prediction, Segment):
        cells["score"] = f"{prediction.score:.3f}"
    if isinstance(prediction, Segment | Instance):
        cells["area"] = f"{prediction.area:.1%}"
    if isinstance(prediction, RotatedBox):
        values = (*prediction.center, *prediction.size, math.degrees(prediction.angle))
        named = zip(("x", "y", "width", "height", "degrees"), values, strict=True)
        return cells | {name: f"{value:.1f}" for name, value in named}
    box = None if isinstance(prediction, Segment) else prediction.box
    if box is not None:
        cells |= {name: f"{value:.1f}" for name, value in zip(("x0", "y0", "x1", "y1"), box, strict=True)}
    if isinstance(prediction, Cropped):
        cells["second"] = _second(prediction)
    if isinstance(prediction, Pose):
        clear = sum(score >= 0.5 for _, _, score in prediction.keypoints.values())
        cells["keypoints"] = f"{clear} of {len(prediction.keypoints)}"
    return cells


def _second(found: Cropped) -> str:
    """Say what the second model of a pipeline answered to an object's crop."""
    if found.second is None:
        return found.error.detail if found.error else f"not asked: {found.skipped}"
    cells = [" ".join(_cells(each).values()) for each in found.second.predictions]
    return ", ".join(cells) or "nothing found"
