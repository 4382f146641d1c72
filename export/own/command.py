"""`zooserve add`: a model of one's own, from its file to a card and an answer. Imports torch when it is called."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from export.converters import need_torch
from zoo import catalog
from zoo.card import LARGEST_SIDE
from zoo.licences import check_accepted
from zoo.store import Store

if TYPE_CHECKING:
    from export.own.draft import Draft, Fact

_PHOTO = "coffee"


class Added(Struct):
    """What became of the file, as `--json` prints it. `answer` is what `zooserve predict --json` says of the photo.

    A graph that takes tensors answers no photo.
    """

    name: str
    card: str
    folder: str
    facts: list["Fact"]
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
  zooserve add gru.onnx --task tensors --sample rows.npz --license LicenseRef-own
  zooserve add yolo.weights --cfg yolo.cfg --labels names.txt --license LicenseRef-own
  zooserve add net.caffemodel --prototxt deploy.prototxt --labels names.txt --license LicenseRef-own
"""
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--task",
    type=click.Choice(["classify", "detect", "segment", "tensors"]),
    help="What it does. [default: guessed; `tensors`: served as it is]",
)
@click.option(
    "--labels",
    help="A .txt file with one class name per line, a .json list, or imagenet1k, coco80, voc21, digits, salient.",
)
@click.option("--name", help="What to call it. [default: the file's name]")
@click.option("--license", "licence", metavar="SPDX", help="Of the weights; LicenseRef-own where they are yours.")
@click.option("--accept-license", "accepted", multiple=True, metavar="SPDX", help="As of `zooserve export`.")
@click.option("--photo", "photos", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--resize",
    type=click.Choice(["crop", "letterbox", "letterbox_top_left", "stretch"]),
    help="How a picture becomes the input.",
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
@click.option("--annotate", type=click.Path(dir_okay=False, path_type=Path), help="[default: ./<name>.png]")
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
    **wished: Any,
) -> None:
    """Look at a model of your own, write its card, export it and show its answer.

    What the file says is read from it, what you say is taken, and the rest is assumed and said. Where an ONNX file
    leaves open how it wants its pixels, the usual ways are tried on sample photos and yours (--photo), each plain and
    mirrored: the one with which the network tells them apart best is taken. Look at the picture that is drawn.
    """
    need_torch()
    from export.own import adding  # noqa: PLC0415, takes seconds

    name = name or adding.name_of(file)
    target = (out or catalog.own_folder()) / f"{name}.toml"
    adding.check_name(name, target, replace=yes or as_json)
    wishes = adding.Wishes(name, photos=photos, **adding.in_bytes(wished))
    console = Console(stderr=True, quiet=as_json)
    store = Store(models)
    with TemporaryDirectory(prefix="zooserve-") as scratch, console.status(f"{file}: looking") as status:
        draft = adding.propose(
            file,
            wishes,
            Path(scratch),
            family=family,
            architecture=architecture,
            cfg=cfg,
            prototxt=prototxt,
            sample=sample,
        )
        check_accepted(wishes.name, draft.card.licence, accepted)
        tried = adding.settle(draft, photos, on_step=status.update)
        status.stop()
        if not as_json:
            _show(draft, tried)
        if not (yes or as_json):
            click.confirm(f"Write {target} and export it?", default=True, abort=True, err=True)
        status.start()
        photo, picture = photos[0] if photos else catalog.sample(_PHOTO), annotate or Path(f"{wishes.name}.png")

        def ask(trial: Store) -> bytes:
            """Show an answer of the model before it is published."""
            if draft.card.task == "tensors":
                return b""
            status.stop()
            return adding.answer(wishes.name, photo, picture, trial, as_json=as_json)

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
    again = f"`zooserve export {_reference(wishes.name, target)}` makes it again."
    if draft.card.task == "tensors":
        if as_json:
            _print_json(Added(wishes.name, str(target), str(folder), draft.facts))
        else:
            click.echo(f"\nWrote {target} and {folder}.")
            click.echo(f"`zooserve serve` answers it at /v2/models/{wishes.name}/infer, {again}")
        return
    if as_json:
        answered = msgspec.Raw(answer)
        _print_json(Added(wishes.name, str(target), str(folder), draft.facts, tried, str(picture), answered))
        return
    click.echo(f"\nWrote {target} and {folder}; {picture} shows an answer.")
    click.echo(f"`zooserve serve` serves it, {again}")


def _reference(name: str, card: Path) -> str | Path:
    """How other commands are told of a card: by its name where they look for cards, else by its path."""
    return name if card.parent.resolve() == catalog.own_folder().resolve() else card


def _print_json(added: Added) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(added), indent=2).decode())


def _show(draft: "Draft", tried: dict[str, float]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in (draft.card.name.upper(), "", "KNOWN FROM"):
        table.add_column(heading, overflow="fold")
    for fact in draft.facts:
        table.add_row(*fact)
        if fact.what == "pixels":
            for way, value in tried.items():
                table.add_row("", f"  {value:.3f} {way}", "")
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160  # in a pipe, a table keeps its columns
    console.print(table, "")
