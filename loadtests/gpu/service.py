"""Step 7: JPEGs over HTTP to the service in processes of its own, by numbers of front processes and of clients."""

import os
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec

from loadtests.album import shrink
from loadtests.client import Limits, Request, fetch, run
from loadtests.distributed import distributed_load
from loadtests.gpu.bench import Bench, Timing
from loadtests.gpu.nvml import Seen
from loadtests.gpu.plan import Plan
from loadtests.serving import serving
from loadtests.stats import clients_name, summarise
from loadtests.target import Target
from zoo.served_card import ServedCard
from zoo.store import Store

_WARM_UP = 1.0  # seconds
_CLIENTS = (1, 32, 64, 96)
_QUICK_CLIENTS = (1, 4)
_PATIENCE = 60.0  # seconds that a server gets to be ready: the first one measures what pays
_SENDING = 4  # cores for each process that sends


def measure(bench: Bench, plan: Plan) -> None:
    """Serve both models with the number of fronts that the part names; 0: one process does all."""
    way = {"0": "one process", "1": "1 front"}.get(plan.part, f"{plan.part} fronts")
    for name in plan.models:
        try:
            _served(bench, plan, name, way)
        except Exception as error:  # it did not start, or died
            bench.fail(name, way, "-", error)


def _served(bench: Bench, plan: Plan, name: str, way: str) -> None:
    settings = {
        "ZOOSERVE_MODELS": str(Path(plan.root).resolve()),
        "ZOOSERVE_LOAD": name,
        "ZOOSERVE_DEVICE": plan.device,
        "ZOOSERVE_FRONTS": plan.part,
    }
    entry = Store(Path(plan.root)).latest(name)
    assert isinstance(entry.card, ServedCard)  # noqa: S101 - see `plan.chosen`
    golden = [entry.path / "golden" / golden.photo for golden in entry.card.golden]
    jpeg = shrink(next((path for path in golden if path.stem == "astronaut"), golden[0]))
    headers = {"Content-Type": "image/jpeg"}
    request = Request("POST", f"/v1/{entry.card.task}?model={name}", headers, jpeg)
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "log", settings, _PATIENCE) as (address, _):
        on = bench if plan.device == "cuda" else bench.off_gpu()
        provider, jpegs = _served_by(address, name)
        on, way = replace(on, provider=provider), way + jpegs
        distributed_load(address, [request], concurrency=8, limits=Limits(_WARM_UP), processes=1)
        for clients in _QUICK_CLIENTS if plan.quick else _CLIENTS:
            on.attempt(name, way, clients_name(clients), partial(_load, on, address, request, clients))


def _load(bench: Bench, address: Target, request: Request, clients: int) -> Timing:
    seen = Seen()
    processes = max(1, len(os.sched_getaffinity(0)) // _SENDING)
    load = distributed_load(
        address,
        [request],
        concurrency=clients,
        limits=Limits(bench.seconds, timeout=30.0),
        processes=processes,
        meanwhile=bench.gpu.watch(seen),  # of the load alone: starting the processes takes as long
    )
    summary = summarise(load)
    note = "" if not summary.errors else f"{summary.errors} errors: {summary.statuses | summary.failures}"
    return Timing(summary.rate, summary.p50, summary.p99, seen=seen, note=note)


def _served_by(address: Target, name: str) -> tuple[str, str]:
    """Which provider serves the model, and who decodes JPEGs where there was a choice, as the service says."""
    answer = msgspec.json.decode(run(fetch(address, Request("GET", f"/v1/models/{name}"), timeout=10.0)).body)
    row = (answer.get("profile") or {}).get("jpegs")
    return answer.get("provider") or "-", "" if row is None else f", JPEGs on the {'GPU' if row['used'] else 'CPU'}"
