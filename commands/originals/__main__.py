"""`python -m commands.originals`: compares served models with the checkpoints' own libraries, photo by photo.

It needs the extras `export`, `ultralytics` and `libreyolo`; what is not installed is named and left out.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import msgspec
from rich.console import Console
from rich.table import Table

from commands.originals.differences import Difference, compare_pixels
from commands.originals.pixels import (
    TIMM,
    TORCHVISION,
    TORCHVISION_DETECTORS,
    libreyolo_pixels,
    timm_pixels,
    torchvision_pixels,
)
from commands.originals.ultralytics import ULTRALYTICS, compare_ultralytics
from zoo.errors import ExportError


def compare(only: tuple[str, ...] = ()) -> list[Difference]:
    """Compare all families, or those whose names are given. What is not installed is reported on stderr."""
    rows: list[Difference] = []

    def add(family: str, make: Callable[[], list[Difference]]) -> None:
        if only and family not in only:
            return
        try:
            rows.extend(make())
        except (ImportError, ExportError) as error:
            click.echo(f"left out: {family}: {error}", err=True)

    for name in TORCHVISION:
        add("torchvision", lambda name=name: compare_pixels(*torchvision_pixels(name)))  # type: ignore[misc]
    for name in TIMM:
        add("timm", lambda name=name: compare_pixels(*timm_pixels(name)))  # type: ignore[misc]
    for name in TORCHVISION_DETECTORS:
        add("torchvision_detection", lambda name=name: compare_pixels(*torchvision_pixels(name)))  # type: ignore[misc]
    add("libreyolo", lambda: [row for one in libreyolo_pixels() for row in compare_pixels(*one)])
    with TemporaryDirectory(prefix="zooserve-") as folder:
        add("ultralytics", lambda: compare_ultralytics(ULTRALYTICS, Path(folder)))
    return rows


@click.command()
@click.argument("families", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def main(families: tuple[str, ...], *, as_json: bool) -> None:
    """Print the largest differences between served models and the originals, of all FAMILIES or of those given."""
    rows = compare(families)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in (
        "MODEL",
        "REFERENCE",
        "PIXELS ARE",
        "GREY LEVELS",
        "OBJECTS",
        "MISSING",
        "SCORE",
        "BOX",
        "MASK IOU",
    ):
        table.add_column(heading)
    for row in rows:
        table.add_row(
            *("" if (value := getattr(row, name)) is None else str(value) for name in row.__struct_fields__[:3]),
            *("" if (value := getattr(row, name)) is None else f"{value:g}" for name in row.__struct_fields__[3:]),
        )
    Console(highlight=False, width=140, soft_wrap=True).print(table)


if __name__ == "__main__":
    main()
