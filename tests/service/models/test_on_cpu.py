"""A graph, loaded for a CPU: whose kernels serve where OpenVINO's plug-in is installed, in a process of its own."""

import os
from pathlib import Path
from shutil import copytree

import msgspec
import pytest

from service.engine.kernels import measure_kernels
from service.engine.profile import measure
from service.engine.stop import Stop
from service.engine.workers import Workers
from service.models import on_cpu
from service.models.model import LoadedModel
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.service.engine.clock import Clock
from zoo.served_card import read_served_card, write_served_card

OPENVINO, OWN = "OpenVINOExecutionProvider", "CPUExecutionProvider"


def load_twice(folder: Path, cache: Path, share: float, plugins: str) -> list[tuple[str, list[tuple[str, bool, bool]]]]:
    """Load a model where OpenVINO's runs take a share of ONNX Runtime's time; say who serves, and what was found."""
    os.environ["XDG_CACHE_HOME"] = str(cache)

    def measure(candidates, inputs, cores):
        with pytest.MonkeyPatch.context() as patch:
            clock = Clock(patch, "service.engine.kernels")
            own, other = candidates
            timed = [
                own._replace(alone=clock.run(1.0, own.alone), narrow=clock.run(1.0, own.narrow)),
                other._replace(alone=clock.run(share, other.alone), narrow=clock.run(share, other.narrow)),
            ]
            return measure_kernels(timed, inputs, cores)

    on_cpu.measure_kernels = measure
    found, workers = [], Workers(1)
    for _ in range(2):  # measured, then recalled
        model = LoadedModel(folder, Stop(), Settings(device="cpu", plugins=plugins), workers, Metrics())
        found.append((model.provider, [(row.provider, row.golden, row.used) for row in model.profile.kernels]))
    workers.close()
    return found


@pytest.mark.parametrize(
    ("loads", "budget", "measured"),
    [
        ([0.1, 0.1], 0, 1),
        ([9.0, 9.0], 0, 1),
        ([9.0, 0.1], 0, 2),
        ([9.0, 0.1, 0.1], 0, 2),
        ([0.1, 9.0], 0, 1),
        ([9.0, 0.1], 1, 1),  # what a load takes was reserved
    ],
)
def test_what_was_measured_on_a_busy_machine_is_measured_again_on_a_quiet_one(
    models, tmp_path, monkeypatch, loads, budget, measured
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runs = []
    counted = lambda *arguments: (runs.append(1), measure(*arguments))[1]  # noqa: E731
    monkeypatch.setattr(on_cpu, "measure", counted)
    workers, settings = Workers(1), Settings(device="cpu", memory_mb=budget)
    for load in loads:
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load * (os.cpu_count() or 1), 0.0, 0.0))
        model = LoadedModel(models / "lenet5" / "1", Stop(), settings, workers, Metrics())
    workers.close()
    assert len(runs) == measured
    assert model.profile.disturbed == (loads[0] > 1 and measured == 1)


def expecting_another_class(folder: Path, copy: Path) -> Path:
    """Copy a model's folder, and let it expect class 0 of its golden photos."""
    copytree(folder, copy)
    card = read_served_card(copy / "card.json")
    golden = [
        msgspec.structs.replace(each, predictions=(msgspec.structs.replace(each.predictions[0], class_id=0),))
        for each in card.golden
    ]
    write_served_card(msgspec.structs.replace(card, golden=tuple(golden)), copy / "card.json")
    return copy


@pytest.mark.parametrize(
    ("share", "right", "setting", "provider", "rows"),
    [
        (0.5, True, "auto", OPENVINO, [(OWN, True, False), (OPENVINO, True, True)]),
        (2.0, True, "auto", OWN, [(OWN, True, True), (OPENVINO, True, False)]),
        (0.5, False, "auto", OWN, [(OWN, True, True), (OPENVINO, False, False)]),
        (0.5, True, "off", OWN, []),
    ],
)
def test_the_kernels_that_were_chosen_serve(openvino, models, tmp_path, share, right, setting, provider, rows):
    folder = models / "mobilenet_v2" / "1"
    if not right:
        folder = expecting_another_class(folder, tmp_path / "mobilenet_v2" / "1")
    assert openvino(load_twice, folder, tmp_path / "cache", share, setting) == [(provider, rows)] * 2
