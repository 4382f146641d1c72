"""`python -m loadtests.measure`: how fast a running server answers, at some loads. `make loadtest` calls it.

Each load is measured in windows until three that follow each other agree; the figures are about those three.
"""

import math
import mimetypes
from pathlib import Path

import click

from loadtests.album import Photo, album
from loadtests.disturbance import Disturbance, Watcher
from loadtests.exchange import Request
from loadtests.judge import Condition, exit_if_failed, fail_if_option, judge
from loadtests.measure.loads import ChosenLoad, Plan, measure
from loadtests.measure.tables import notes, table
from loadtests.options import counts, json_option, markdown_option, say, write_text
from loadtests.report import Measurement, machine, write_report
from loadtests.served import answering, served, unreachable
from loadtests.stats import STABILITY
from loadtests.target import Target, TargetError, target_options
from zoo.errors import ZooError
from zoo.extras import require

_PACKAGES = ("zooserve", "onnxruntime", "onnxruntime-gpu", "httptools", "uvloop")
_EXAMPLES = """
\b
Examples, with `make serve` running:
  python -m loadtests.measure                                    1, 8 and 32 clients
  python -m loadtests.measure --rate 50,100 --task detect        Poisson arrivals, whatever the answers take
  python -m loadtests.measure --clients 8 --json before.json     for `python -m loadtests.diff`
  python -m loadtests.measure --clients 8 --fail-if 'p99>50ms' --fail-if 'errors>0' --fail-if unstable
  python -m loadtests.measure --url grpc://127.0.0.1:8001        a server with ZOOSERVE_GRPC_PORT=8001
  python -m loadtests.measure --url https://vision.example.org/zoo --remote --ca-file ca.pem
"""


def _rates(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[float, ...]:
    try:
        found = [float(word) for word in (value or "").split(",") if word.strip()]
    except ValueError:
        found = []
    if value is not None and not (found and all(0.1 <= rate < math.inf for rate in found)):
        raise click.BadParameter(f"{value}: expected numbers from 0.1, with commas")
    return tuple(dict.fromkeys(found))


def _share(_context: click.Context, _parameter: click.Parameter, value: str) -> float:
    try:
        share = float(value.removesuffix("%")) / 100
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise click.BadParameter(f"{value}: expected a percentage, such as 5%")
    return share


@click.command(epilog=_EXAMPLES)
@target_options()
@click.option("--clients", callback=counts, help="At a time, each after its answer; with commas.  [default: 1,8,32]")
@click.option("--rate", "rates", callback=_rates, help="Requests per second at random moments; with commas.")
@click.option("--seconds", default=5.0, show_default=True, type=click.FloatRange(0.1, 3600), help="Of a window.")
@click.option("--windows", default=10, show_default=True, type=click.IntRange(1), help="Of a load, at most.")
@click.option(
    "--stability",
    default=f"{100 * STABILITY:g}%",
    show_default=True,
    callback=_share,
    help="Within which three windows that follow each other must agree.",
)
@click.option("--warm-up", default=1.0, show_default=True, type=click.FloatRange(0), help="Seconds that do not count.")
@click.option("--timeout", default=30.0, show_default=True, type=click.FloatRange(0.1), help="Of an answer, in s.")
@click.option(
    "--images",
    type=click.Path(exists=True, path_type=Path),
    help="A file or a folder (JPEG, PNG, WebP).  [default: sample photos]",
)
@json_option()
@markdown_option()
@fail_if_option()
def main(
    *,
    target: Target,
    clients: tuple[int, ...] | None,
    rates: tuple[float, ...],
    seconds: float,
    windows: int,
    stability: float,
    warm_up: float,
    timeout: float,
    images: Path | None,
    json_path: Path | None,
    markdown_path: Path | None,
    fail_if: tuple[Condition, ...],
) -> None:
    """Measure requests per second and latencies of a running server.

    The body of each request is the image itself; over gRPC, it is the tensor `image`. A load is measured in windows of
    --seconds; once three that follow each other agree in rate and median latency (and in p99, where a window has
    10,000 answers), it is stable. Where none do, it says so. Ends with 3 where a --fail-if applies.
    """
    where = machine()
    plan = Plan(seconds, windows, stability, warm_up, timeout)
    try:
        if target.grpc:
            require("grpc")
        photos = [_photo(images)] if images is not None and images.is_file() else album(images)
        target = served(target, timeout).choose(target)
        requests = [Request("POST", target.question, {"Content-Type": p.content_type}, p.data) for p in photos]
        server = answering(target, requests, timeout)
        clients = clients or (() if rates else (1, 8, 32))
        loads = [*(ChosenLoad(clients=n) for n in clients), *(ChosenLoad(offered_per_s=rate) for rate in rates)]
        found: list[Measurement] = []
        disturbances: dict[str, Disturbance] = {}
        watcher = Watcher(target)
        stopped = "stopped"
        try:  # what is complete counts
            for load in loads:
                watcher.start()
                found.append(measure(load, target, requests, plan, say))
                disturbances[load.name] = watcher.stop()
        except KeyboardInterrupt:
            pass
        except OSError as error:
            stopped = unreachable(target, error)
            if not found:
                raise TargetError(stopped) from error
    except (TargetError, ZooError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    if not found:
        raise click.Abort
    text = "\n\n".join([f"{server.model} {server.version}, {server.task}, at {server.url}", table(found)])
    text += "".join(f"\n\n{note}" for note in notes(found, disturbances, plan))
    click.echo(f"\n{text}")
    write_text(markdown_path, text)
    settings = {
        "clients": clients,
        "rates": rates,
        "seconds": seconds,
        "windows": windows,
        "stability": stability,
        "warm_up": warm_up,
        "timeout": timeout,
        "images": [photo.name for photo in photos],
    }
    details = {"disturbances": disturbances}
    write_report(json_path, "measure", where, _PACKAGES, settings, details, target=server, measurements=found)
    exit_if_failed(judge(fail_if, found))
    if len(found) < len(loads):
        raise click.ClickException(f"{stopped}, after {len(found)} of {len(loads)} loads")


def _photo(path: Path) -> Photo:
    kind, _ = mimetypes.guess_type(path)
    if kind is None or not kind.startswith("image/"):
        raise ValueError(f"{path} is no image: expected a file whose name ends in .jpg, .png, .webp or the like")
    return Photo(path.name, kind, path.read_bytes())


if __name__ == "__main__":
    main()
