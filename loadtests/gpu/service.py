"""End to end: the service in a process of its own, JPEGs over HTTP, closed loops at several concurrencies."""

import os
import sys
from functools import partial
from pathlib import Path

from msgspec import Struct, structs

from loadtests.gpu.bench import Bench, Timing
from loadtests.gpu.half import half
from loadtests.gpu.nvml import Seen
from loadtests.gpu.session import Model
from zoo.files import sha256_of
from zoo.store import Store

_WARM_UP = 2.0  # seconds


class Http(Struct, frozen=True):
    """How the service is loaded.

    Attributes:
        concurrency: of the closed loops, one after the other.
        workers: numbers of server processes, one server after the other.
        clients: processes that send.
        seconds: of each loop.
    """

    concurrency: tuple[int, ...]
    workers: tuple[int, ...]
    clients: int
    seconds: float


def end_to_end(bench: Bench, model: Model, root: Path, http: Http, jpeg: bytes) -> None:
    """Serve a model as it was exported and in half precision, and time both.

    Args:
        bench: keeps the rows.
        model: one of the store.
        root: of the store.
        http: how the service is loaded.
        jpeg: the photo that is sent.
    """
    for workers in http.workers:
        _served(bench, model, root, workers, http, jpeg, "as exported")
        if model.card.precision == "fp32":
            try:
                store = half_store(model)
            except Exception as error:  # whatever the conversion raises
                bench.fail("http", model.card.name, f"fp16, workers {workers}", "-", error)
            else:
                _served(bench, model, store, workers, http, jpeg, "fp16")


def half_store(model: Model) -> Path:
    """Make a store that holds the model in half precision, and return its root."""
    path = half(model.path, model.folder)
    card = structs.replace(model.card, sha256=sha256_of(path), size=path.stat().st_size, precision="fp16")
    golden = {f"golden/{g.photo}": model.path.parent / "golden" / g.photo for g in card.golden}
    root = model.folder / "store"
    Store(root).publish(card, {"model.onnx": path, **golden})
    return root


def _served(bench: Bench, model: Model, root: Path, workers: int, http: Http, jpeg: bytes, graph: str) -> None:
    way = f"{graph}, workers {workers}"
    try:
        from loadtests.client import Address, Limits, Request  # noqa: PLC0415 - rows say where packages are missing
        from loadtests.distributed import distributed_load  # noqa: PLC0415
        from loadtests.serving import serving  # noqa: PLC0415
        from loadtests.stats import summarise  # noqa: PLC0415
    except ImportError as error:
        bench.fail("http", model.card.name, way, "-", error)
        return
    card = model.card
    request = Request("POST", f"/v1/{card.task}?model={card.name}", {"Content-Type": "image/jpeg"}, jpeg)

    def load(address: Address, concurrency: int) -> Timing:
        limits, seen = Limits(http.seconds, timeout=30.0), Seen()
        watch = bench.gpu.watch(seen)  # of the load alone: starting the processes takes as long
        summary = summarise(
            distributed_load(
                address,
                [request],
                concurrency=concurrency,
                limits=limits,
                processes=http.clients,
                meanwhile=watch,
            )
        )
        failed = summary.statuses | summary.failures
        note = "" if not summary.errors else f"{summary.errors} errors: {failed}"
        return Timing(summary.rate, summary.p50, summary.p99, seen=seen, note=note)

    settings = {
        "ZOOSERVE_MODELS": str(root.resolve()),
        "ZOOSERVE_LOAD": card.name,
        "ZOOSERVE_DEVICE": model.device,
        "ZOOSERVE_WORKERS": str(workers),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [*libraries(), os.environ.get("LD_LIBRARY_PATH")])),
    }
    try:
        bench.check_time()
        with serving(model.folder / "service.log", settings) as (address, _):
            distributed_load(address, [request], concurrency=8, limits=Limits(_WARM_UP), processes=1)
            for concurrency in http.concurrency:
                work = partial(load, address, concurrency)
                bench.attempt("http", card.name, way, f"concurrency {concurrency}", work)
    except Exception as error:  # it did not start, or died, or there is no time
        bench.fail("http", card.name, way, "-", error)


def libraries() -> list[str]:
    """Folders of NVIDIA's libraries in wheels, wherever Python looks: ONNX Runtime only looks beside itself."""
    return [str(path) for base in sys.path if base for path in sorted(Path(base).glob("nvidia/*/lib"))]
