"""`zooserve export`: from checkpoints to published folders. Imports torch only when there is something to convert."""

import errno
from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir
from typing import Literal

import click
import msgspec
from msgspec import Struct
from rich.console import Console

from export.converters import need_torch
from export.provenance import Precision, is_current, is_variant_current, variant_name
from zoo import catalog
from zoo.cli import print_json
from zoo.errors import CardError, StoreError, ZooError, refused_by_system
from zoo.extras import missing
from zoo.libraries import find_card
from zoo.model_card import require_images
from zoo.served_card import Agreement
from zoo.store import Store


class Comparison(Struct):
    """A variant compared with its fp32 model, each as (fp32, variant).

    Attributes:
        size: of the file, in bytes.
        milliseconds: per image, on one thread of a CPU.
    """

    size: tuple[int, int]
    milliseconds: tuple[float, float]


class Report(Struct, omit_defaults=True):
    """What became of one model, as `--json` prints it.

    Attributes:
        seconds: per step.
        unmeasured: the device that a variant is for, where its agreement was measured on another.
    """

    name: str
    state: Literal["exported", "up to date", "failed"]
    version: str = ""
    path: str = ""
    size: int = 0
    parity: dict[str, float] = {}
    seconds: dict[str, float] = {}
    agreement: Agreement | None = None
    beside_fp32: Comparison | None = None
    unmeasured: str = ""
    error: str = ""


@click.command(
    epilog="""\b
Examples:
  zooserve export --default                  the models that `make serve` serves
  zooserve export resnet50 vit_b_16          any classifier or segmenter of torchvision
  zooserve export ./cards/my_model.toml      your card
  zooserve export yolov8n --accept-license AGPL-3.0-only
  zooserve export mobilenet_v2 --precision int8   publishes mobilenet_v2-int8 beside it
  zooserve export yolov4_tiny --force        convert again, though nothing has changed
  zooserve export --all --json               all cards, with a report for programs

The exit code is 1 if one of the models failed; the others are published nevertheless.
"""
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--default", is_flag=True, help="All models whose card says `default = true`.")
@click.option("--all", "all_", is_flag=True, help="All models that have a card.")
@click.option(
    "--models",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to publish. [default: $ZOOSERVE_MODELS, else ./models]",
)
@click.option(
    "--accept-license",
    "accepted",
    multiple=True,
    metavar="SPDX",
    help="Accept a licence that is not permissive, by its SPDX identifier. May be given several times.",
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(["fp16", "int8"]),
    multiple=True,
    help="Publish a variant of lower precision, too: fp16 for GPUs, int8 for CPUs. May be given twice.",
)
@click.option(
    "--class-scores",
    is_flag=True,
    help="Detectors answer all classes' scores of each box, too: for evaluations that give a box several labels.",
)
@click.option("--force", is_flag=True, help="Export models that are up to date, too.")
@click.option("--verbose", is_flag=True, help="Let the ONNX exporter talk, and show where an error arose.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def export(
    *,
    names: tuple[str, ...],
    default: bool,
    all_: bool,
    models: Path | None,
    accepted: tuple[str, ...],
    precisions: tuple[Precision, ...],
    class_scores: bool,
    force: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Fetch, convert, check and publish models.

    A model's checkpoint is fetched and checked against its sha256, its network is built and converted to ONNX with pre-
    and postprocessing inside, ONNX Runtime's answers are compared with the network's on real photos, and what the card
    expects to be found there must be found. Only then is `<models>/<name>/<version>/` written. A model whose folder is
    intact and was made from the same card, by the same converter and the same versions of its libraries, is left alone.

    Where the licence of the code or of the weights is not permissive, nothing is fetched until it was accepted by name;
    card.json remembers that.

    A variant is converted from the published fp32 graph, calibrated on photos, and compared with it on others: it is
    published as NAME-fp16 or NAME-int8 if its answers stay within the card's bound.
    """
    if sum((bool(names), default, all_)) != 1:
        raise click.UsageError("say what to export: NAME..., --default or --all")
    if not names:
        names = tuple(_with_card(all_=all_))
    console = Console(stderr=True, highlight=False)
    store = Store(models)
    reports: list[Report] = []
    told = 0
    for name in dict.fromkeys(names):
        report = _export(
            name, store, accepted, class_scores=class_scores, force=force, verbose=verbose, console=console
        )
        reports.append(report)
        if report.state != "failed":
            reports += [
                _export_variant(name, precision, store, force=force, verbose=verbose, console=console)
                for precision in dict.fromkeys(precisions)
            ]
        while not as_json and told < len(reports):
            click.echo(_line(reports[told]), err=reports[told].state == "failed")
            told += 1
    if as_json:
        print_json(reports)
    if any(report.state == "failed" for report in reports):
        raise click.exceptions.Exit(1)


def _with_card(*, all_: bool) -> Iterator[str]:
    """Yield the names of all models that have a card, or of the default ones; also of those whose card is not valid."""
    for name in catalog.names():
        try:
            if all_ or catalog.find(name).default:
                yield name
        except CardError:  # its export says what is wrong with it
            yield name


def _export(
    name: str,
    store: Store,
    accepted: tuple[str, ...],
    *,
    class_scores: bool,
    force: bool,
    verbose: bool,
    console: Console,
) -> Report:
    try:
        card = find_card(name)
        if class_scores:
            card = msgspec.structs.replace(require_images(card), class_scores=True)
        if not force and is_current(card, store):
            folder = store.path(card.name, card.version)
            return Report(name, "up to date", version=card.version, path=str(folder))
        need_torch()
        with console.status(f"{name}: importing torch") as status:
            from export.pipeline import export_model  # noqa: PLC0415, takes seconds

            def on_step(step: str) -> None:
                status.update(f"{name}: {step}")
                if step == "fetch":  # which shows a bar of its own
                    status.stop()
                else:
                    status.start()

            accepted += _accepted_before(card.name, store)
            done = export_model(card, store, accepted=accepted, on_step=on_step, verbose=verbose)
    except Exception as error:
        return _failure(name, error, verbose=verbose, console=console)
    return Report(
        name,
        "exported",
        version=card.version,
        path=str(done.folder),
        size=done.card.size,
        parity=done.card.parity.max_difference,
        seconds={step: round(seconds, 3) for step, seconds in done.seconds.items()},
    )


def _export_variant(
    name: str, precision: Precision, store: Store, *, force: bool, verbose: bool, console: Console
) -> Report:
    try:
        card = require_images(find_card(name))
        published = variant_name(card.name, precision)
        if not force and is_variant_current(card, precision, store):
            folder = store.path(published, card.version)
            return Report(published, "up to date", version=card.version, path=str(folder))
        need_torch()
        with console.status(f"{published}: importing torch") as status:
            from export.variant import export_variant  # noqa: PLC0415, takes seconds

            done = export_variant(card, precision, store, on_step=lambda step: status.update(f"{published}: {step}"))
    except Exception as error:
        return _failure(f"{name}-{precision}", error, verbose=verbose, console=console)
    return Report(
        published,
        "exported",
        version=card.version,
        path=str(done.folder),
        size=done.card.size,
        agreement=done.card.agreement,
        beside_fp32=Comparison((done.base.size, done.card.size), done.milliseconds),
        unmeasured=done.card.unmeasured,
    )


def _failure(name: str, error: Exception, *, verbose: bool, console: Console) -> Report:
    """Report a failure, a bug of zooserve included: it does not stop the other models."""
    if verbose:
        console.print_exception()
    said = str(error) if isinstance(error, ZooError) else f"{type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError):
        said = missing(error) or said
    if isinstance(error, OSError):
        said = refused_by_system(error)
        if error.filename is None and error.errno == errno.ENOSPC:  # the store's errors name their file
            said += f": graphs are written to {gettempdir()} first, and TMPDIR names another folder"
    return Report(name, "failed", error=said)


def _accepted_before(name: str, store: Store) -> tuple[str, ...]:
    try:
        entry = store.latest(name)
    except StoreError:
        return ()
    return entry.card.accepted if entry.card else ()


def _line(report: Report) -> str:
    if report.state == "failed":
        return report.error if report.error.startswith(report.name) else f"{report.name}: {report.error}"
    if report.state == "up to date":
        return f"{report.name} {report.version}: up to date, {report.path}"
    if report.beside_fp32 and report.agreement:
        unmeasured = f"; not measured on {report.unmeasured}, which it is for" if report.unmeasured else ""
        (size, smaller), (slow, fast) = report.beside_fp32.size, report.beside_fp32.milliseconds
        return (
            f"{report.name} {report.version}: {report.path}, {smaller / 1e6:.1f} MB (fp32 {size / 1e6:.1f}), "
            f"{fast:.1f} ms per image on one thread of this CPU (fp32 {slow:.1f}), keeps "
            f"{report.agreement.agreement:.1%} of fp32's sure answers on {report.agreement.photos} photos, "
            f"shifted by {report.agreement.shift:.3f}{unmeasured}"
        )
    steps = ", ".join(f"{step} {seconds:.1f}" for step, seconds in report.seconds.items())
    parity = ", ".join(f"{output} {difference:.1e}" for output, difference in report.parity.items())
    total = sum(report.seconds.values())
    return (
        f"{report.name} {report.version}: {report.path}, {report.size / 1e6:.1f} MB in {total:.1f} s ({steps}), "
        f"differs from the reference by up to {parity}"
    )
