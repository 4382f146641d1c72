"""`zooserve fetch`: downloads what models are made from, and fills a mirror for machines without a route."""

import os
import shutil
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import click
import msgspec
from filelock import FileLock
from msgspec import Struct

from zoo import catalog
from zoo.cli import print_json
from zoo.files import replacing, sha256_of
from zoo.libraries import find_card
from zoo.licences import check_accepted
from zoo.model_card import AnyCard, ModelCard, Source
from zoo.sources import address, fetch_all
from zoo.sources.cache import Cache
from zoo.sources.http import without_credentials
from zoo.sources.mirror import ANSWERS, path_in_mirror
from zoo.sources.pins import pin_path

_SUMS = "SHA256SUMS"


class Fetched(Struct):
    """One file, as `--json` prints it.

    Attributes:
        model: for which it is; empty for sample photos.
        source: address of the file.
        path: where it is now: in the mirror's folder, or in the cache; of a local file, as those of the zoo's own
            networks are, where it was.
        size: in bytes.
    """

    model: str
    source: str
    path: str
    sha256: str
    size: int


@click.command(
    "fetch",
    epilog="""\b
Examples:
  zooserve fetch resnet50                            into the cache; a later export needs no network
  zooserve fetch yolov4_tiny resnet50 --to ./mirror  a mirror: copy it, or serve it with any web server
  ZOOSERVE_MIRROR=https://mirror.example zooserve export yolov4_tiny     there, without another route
""",
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder for a mirror, which $ZOOSERVE_MIRROR may name. [default: the cache only]",
)
@click.option("--accept-license", "accepted", multiple=True, metavar="SPDX", help="As of `zooserve export`.")
@click.option("--photos/--no-photos", default=True, help="Fetch the sample photos, too, on which exports are checked.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def fetch_models(
    names: tuple[str, ...], to: Path | None, accepted: tuple[str, ...], *, photos: bool, as_json: bool
) -> None:
    """Download what models are made from, without exporting them.

    With --to, the files are copied into the folder of a mirror, beside those that are there, with SHA256SUMS over all.
    """
    fetched: list[Fetched] = []
    for name in dict.fromkeys(names):
        card = find_card(name)
        check_accepted(card.name, card.licence, accepted)
        fetched += _fetch(card.name, card.sources, to, as_json=as_json)
        if photos:
            fetched += _fetch("", _expected(card), to, as_json=as_json)
    if photos:
        fetched += _fetch("", catalog.photo_sources(), to, as_json=as_json)
    fetched = list({(one.source, one.path): one for one in fetched}.values())
    mirrored = [one for one in fetched if to is not None and Path(one.path).is_relative_to(to)]
    if to is not None:
        _write_sums(to, mirrored)
    if as_json:
        print_json(fetched)
        return
    for one in fetched:
        if one.model:
            left = "" if to is None or one in mirrored else "; a local file, which has no place in a mirror"
            click.echo(f"{one.model}: {one.path}, {one.size / 1e6:.1f} MB, sha256 {one.sha256}{left}")
    if to is not None:
        total = sum(one.size for one in mirrored) / 1e6
        count = f"{len(mirrored)} file{'s' if len(mirrored) != 1 else ''}"
        click.echo(f"{to}: {count}, {total:.1f} MB; name it with ZOOSERVE_MIRROR")


def _expected(card: AnyCard) -> dict[str, Source]:
    """Return the sources of the photos on which a card expects something."""
    expected = card.expect if isinstance(card, ModelCard) else ()
    return {name: source for one in expected for name, source in catalog.sample_sources(one.photo).items()}


def _fetch(model: str, sources: Mapping[str, Source], to: Path | None, *, as_json: bool) -> Iterable[Fetched]:
    files = fetch_all(sources, progress=not as_json)
    for name, source in sources.items():
        path = files[name]
        if to is not None:
            path = _copy(path, source, to)
        yield Fetched(model, address(source), str(path), sha256_of(path), path.stat().st_size)


def _copy(file: Path, source: Source, to: Path) -> Path:
    """Copy a file, and what is kept in the cache about it, to where a mirror has them."""
    place = next((there for one in source.places() if (there := path_in_mirror(one))), None)
    if place is None:  # a local file, which a mirror has no address for
        return file
    _put(file, to / place)
    cache = Cache()
    for path in (pin_path(source), *(answer for one in source.places() for answer in _answers(one))):
        if (kept := cache.answer(path)) is not None:
            _write(BytesIO(without_credentials(kept.decode(errors="replace")).encode()), to / ANSWERS / path)
    return to / place


def _answers(source: Source) -> Iterable[str]:
    """Return the paths in the cache of what was said about a file of a hub or of a release."""
    cache = Cache()
    for folder in ("hub", "releases"):
        for path in (cache.root / folder).rglob("*.json"):
            kept = path.read_bytes()
            if source.url and msgspec.json.encode(source.url) in kept:
                yield path.relative_to(cache.root).as_posix()


def _put(file: Path, target: Path) -> None:
    with file.open("rb") as content:
        _write(content, target)


def _write(content: BinaryIO, target: Path) -> None:
    with replacing(target) as copy:
        shutil.copyfileobj(content, copy, 1 << 20)
        os.fchmod(copy.fileno(), 0o644)  # whoever fills a mirror, a web server is to read it


def _write_sums(to: Path, fetched: Iterable[Fetched]) -> None:
    """Write the hashes of all files of a mirror, old and new, as `sha256sum -c` reads them."""
    to.mkdir(parents=True, exist_ok=True)
    sums = to / _SUMS
    with FileLock(to / ".lock"):
        lines = sums.read_text().splitlines() if sums.is_file() else []
        known = {path: digest for digest, _, path in (line.partition("  ") for line in lines)}
        known |= {Path(one.path).relative_to(to).as_posix(): one.sha256 for one in fetched}
        with replacing(sums) as file:
            file.write("".join(f"{digest}  {path}\n" for path, digest in sorted(known.items())).encode())
