"""`zooserve add`: imports a model file of the user, and shows an answer of the model.

`export.importer` exports the model, `service` answers with it. They and torch are imported only when the command is
called.
"""

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
import msgspec
from msgspec import Struct
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from export.converters import need_torch
from zoo import catalog
from zoo.card import LARGEST_SIDE
from zoo.cli import drawn_into, print_json
from zoo.licences import check_accepted
from zoo.store import Store

if TYPE_CHECKING:
    from export.importer.draft import Draft, Finding

_PHOTO = "coffee"


class Added(Struct):
    """The result, as `--json` prints it.

    Attributes:
        name: of the model.
        card: path of its card.
        folder: path of the exported model.
        facts: what is known about the model, with the source of each fact.
        tried: a score for each normalisation, if several were tried.
        picture: path of the drawn answer; empty for a graph that takes tensors.
        answer: what `zooserve predict --json` prints for the photo; null for a graph that takes tensors.
    """

    name: str
    card: str
    folder: str
    facts: list["Finding"]
    tried: dict[str, float] = {}
    picture: str = ""
    answer: msgspec.Raw = msgspec.Raw(b"null")


class Triple(click.ParamType[tuple[float, float, float]]):
    """Three numbers, or one for all three."""

    name = "R,G,B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) not in {1, 3}:
            self.fail(f"{value!r}: expected three numbers, such as 123.675,116.28,103.53, or one", param, ctx)
        return numbers * 3 if len(numbers) == 1 else numbers


class Size(click.ParamType[tuple[int, int]]):
    """`224`, or `640x384` (width x height); becomes height and width."""

    name = "WIDTHxHEIGHT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", str(value))
        if found is None:
            self.fail(f"{value!r}: expected a side in pixels, such as 224, or 640x384 (width x height)", param, ctx)
        height, width = int(found[2] or found[1]), int(found[1])
        if not 0 < min(height, width) <= max(height, width) <= LARGEST_SIDE:
            self.fail(f"{value!r}: expected sides of 1 to {LARGEST_SIDE} pixels", param, ctx)
        return height, width


@click.command(
    epilog="""\b
Examples:
  zooserve add my.onnx --labels names.txt --license MIT
  zooserve add my.onnx --task detect --photo street.jpg --license LicenseRef-own
  zooserve add yolov8n.onnx --accept-license AGPL-3.0-only
  zooserve add net.onnx --size 224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --license MIT
  zooserve add resnet.pth --architecture resnet50 --labels names.txt --license LicenseRef-own
  zooserve add style.onnx --task image --size 256 --license MIT
  zooserve add gru.onnx --task tensors --sample rows.npz --license LicenseRef-own
  zooserve add yolo.weights --cfg yolo.cfg --labels names.txt --license LicenseRef-own
  zooserve add net.caffemodel --prototxt deploy.prototxt --labels names.txt --license LicenseRef-own
"""
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--task",
    type=click.Choice(["classify", "detect", "segment", "pose", "obb", "image", "tensors"]),
    help="What it does. [default: guessed; `image`: answers with an image; `tensors`: served as it is]",
)
@click.option(
    "--labels",
    help="A .txt file with one class name per line, a .json list, or imagenet1k, coco80, voc21, digits, salient.",
)
@click.option("--name", help="What to call it. [default: the file's name]")
@click.option("--license", "licence", metavar="SPDX", help="Of the weights; LicenseRef-own where they are yours.")
@click.option("--accept-license", "accepted", multiple=True, metavar="SPDX", help="As of `zooserve export`.")
@click.option(
    "--photo",
    "photos",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="To try it on, beside the sample photos. May be given several times; the first is shown with its answer.",
)
@click.option(
    "--resize",
    type=click.Choice(["crop", "letterbox", "letterbox_top_left", "stretch"]),
    help="How an image becomes the input.",
)
@click.option("--size", type=Size(), help="Of the input, where it is free.")
@click.option("--mean", type=Triple(), help="Subtracted from pixels in 0..255; or in 0..1, as --std is then.")
@click.option("--std", type=Triple(), help="Pixels less the mean are divided by it; below 1 it is of pixels in 0..1.")
@click.option("--channels", type=click.Choice(["rgb", "bgr", "grey"]), help="Their order.")
@click.option("--layout", type=click.Choice(["nchw", "nhwc"]), help="Of an ONNX file's input. [default: its shape's]")
@click.option("--output", help="Which output of an ONNX file is the answer, where there are several.")
@click.option(
    "--sample",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --task tensors: an .npz with real inputs, at least 3 rows of each. [default: noise]",
)
@click.option("--family", help="The library of --architecture, or `ultralytics`. [default: the first that knows it]")
@click.option("--architecture", help="What a .pt, .pth or .safetensors file is a checkpoint of.")
@click.option("--cfg", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Of Darknet's .weights.")
@click.option(
    "--prototxt",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Of Caffe's .caffemodel.",
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="[default: $ZOOSERVE_CARDS, else ./cards]"
)
@click.option("--models", type=click.Path(file_okay=False, path_type=Path), help="As of `zooserve export`.")
@click.option(
    "--annotate",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=drawn_into,
    help="[default: ./<name>.png]",
)
@click.option("--yes", is_flag=True, help="Write without asking, over an older card too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs; implies --yes.")
def add(
    *,
    file: Path,
    accepted: tuple[str, ...],
    photos: tuple[Path, ...],
    family: str | None,
    architecture: str | None,
    cfg: Path | None,
    prototxt: Path | None,
    sample: Path | None,
    name: str | None,
    out: Path | None,
    models: Path | None,
    annotate: Path | None,
    yes: bool,
    as_json: bool,
    **stated_options: Any,
) -> None:
    """Import a model of your own: write its card, export it and show its answer.

    Your options come first, then what the file contains; the rest is assumed and printed. If an ONNX file does not say
    how its pixels are normalised, the usual ways are tried on sample photos and yours (--photo), each plain and
    mirrored. The one with which the network distinguishes the photos best is taken. Check the drawn answer.
    """
    need_torch()
    from export.importer import adding  # noqa: PLC0415 - takes seconds
    from export.importer.options import ImportOptions  # noqa: PLC0415
    from export.importer.pixels import in_bytes  # noqa: PLC0415

    name = name or adding.name_of(file)
    target = (out or catalog.own_folder()) / f"{name}.toml"
    store = Store(models)
    adding.check_name(name, target, store, replace=yes or as_json)
    stated = ImportOptions(name, photos=photos, **in_bytes(stated_options))
    console = Console(stderr=True, quiet=as_json)
    with TemporaryDirectory(prefix="zooserve-") as scratch, console.status(escape(f"{file}: looking")) as status:
        draft = adding.propose(
            file,
            stated,
            Path(scratch),
            family=family,
            architecture=architecture,
            cfg=cfg,
            prototxt=prototxt,
            sample=sample,
        )
        check_accepted(stated.name, draft.card.licence, accepted)
        tried = adding.settle(draft, photos, on_step=status.update)
        status.stop()
        if not as_json:
            _show(draft, tried)
        if not (yes or as_json):
            click.confirm(f"Write {target} and export it?", default=True, abort=True, err=True)
        status.start()
        photo, drawing = photos[0] if photos else catalog.sample(_PHOTO), annotate or Path(f"{stated.name}.png")

        def ask(trial: Store) -> bytes:
            """Show an answer of the model before it is published."""
            if draft.card.task == "tensors":
                return b""
            status.stop()
            return answer_photo(stated.name, photo, drawing, trial, as_json=as_json)

        folder, answer = adding.publish(
            draft,
            file,
            target,
            store,
            scratch=Path(scratch),
            accepted=accepted,
            ask=ask,
            on_step=status.update,
        )
    again = f"`zooserve export {_reference(stated.name, target)}` makes it again."
    if draft.card.task == "tensors":
        if as_json:
            print_json(Added(stated.name, str(target), str(folder), draft.findings))
        else:
            click.echo(f"\nWrote {target} and {folder}.")
            click.echo(f"`zooserve serve` answers it at /v2/models/{stated.name}/infer, {again}")
        return
    if as_json:
        answered = msgspec.Raw(answer)
        print_json(Added(stated.name, str(target), str(folder), draft.findings, tried, str(drawing), answered))
        return
    click.echo(f"\nWrote {target} and {folder}; {drawing} shows an answer.")
    click.echo(f"`zooserve serve` serves it, {again}")


def answer_photo(name: str, photo: Path, drawing: Path, store: Store, *, as_json: bool) -> bytes:
    """Answer a photo as a server would, draw the answer into a file and print it.

    Returns:
        The answer as JSON if `as_json`, which then is not printed; else nothing.

    Raises:
        ClickException: the model cannot be loaded, or the photo cannot be answered.
    """
    from service.commands.load import load_model  # noqa: PLC0415 - takes a second
    from service.commands.predict import show_result  # noqa: PLC0415
    from service.errors import RequestError  # noqa: PLC0415
    from service.vision.draw import draw  # noqa: PLC0415

    model, predictor, _ = load_model(name, str(store.root))
    try:
        data = photo.read_bytes()
        result = predictor.predict(data, model, {})
    except (OSError, RequestError) as error:
        raise click.ClickException(f"{photo}: {error.strerror if isinstance(error, OSError) else error}") from error
    if not as_json:
        show_result(photo, result)
    draw(data, result, skeleton=model.card.skeleton).save(drawing)
    click.echo(f"drawn into {drawing}", err=True)
    return msgspec.json.encode(result) if as_json else b""


def _reference(name: str, card: Path) -> str | Path:
    """Return how other commands refer to a card: by name if it is in the user's folder of cards, else by path."""
    return name if card.parent.resolve() == catalog.own_folder().resolve() else card


def _show(draft: "Draft", tried: dict[str, float]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in (draft.card.name.upper(), "", "KNOWN FROM"):
        table.add_column(heading, overflow="fold")
    for finding in draft.findings:
        table.add_row(*finding)
        if finding.what == "pixels":
            for normalisation, value in tried.items():
                table.add_row("", f"  {value:.3f} {normalisation}", "")
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 160  # in a pipe, lines are not wrapped
    console.print(table, "")
