"""What `/metrics` says beside the counts: the processes' own figures, the models' states, and whose time is taken."""

import re
import shutil
import time
from collections.abc import Callable

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry.metrics import Metrics
from tests.conftest import serving


def scrape(server) -> dict[str, list]:
    families = text_string_to_metric_families(server.client.get("/metrics").text)
    samples: dict[str, list] = {}
    for family in families:
        for sample in family.samples:
            samples.setdefault(sample.name, []).append(sample)
    return samples


def value(samples: dict[str, list], name: str, **labels: str) -> float:
    (found,) = [s.value for s in samples.get(name, []) if labels.items() <= s.labels.items()]
    return found


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_process_tells_of_itself(server):
    samples = scrape(server)
    (process,) = psutil.Process(server.process.pid).children()
    assert value(samples, "process_resident_memory_bytes") == pytest.approx(process.memory_info().rss, rel=0.1)
    assert value(samples, "process_start_time_seconds") == pytest.approx(process.create_time(), abs=1)
    assert 0 < value(samples, "process_cpu_seconds_total") <= sum(process.cpu_times()[:2])
    assert value(samples, "process_open_fds") == pytest.approx(process.num_fds(), abs=5)
    assert value(samples, "zooserve_processes") == 1


def test_states_and_readiness(server):
    samples = scrape(server)
    states = {s.labels["state"]: s.value for s in samples["zooserve_model_state"] if s.labels["model"] == "lenet5"}
    assert states == {"loading": 0, "ready": 1, "failed": 0, "unloaded": 0, "on_demand": 0}
    assert value(samples, "zooserve_ready") == value(samples, "zooserve_live") == 1
    assert value(samples, "zooserve_model_refused_total", model="lenet5") == 0
    (build,) = samples["zooserve_build_info"]
    assert re.fullmatch(r"[0-9.]+", build.labels["onnxruntime"])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_model_whose_folder_is_removed_has_no_state_any_more(models, tmp_path, workers):
    """Else an alert about it would never end."""
    store = tmp_path / "models"
    for name in ("lenet5", "other"):
        shutil.copytree(models / "lenet5", store / name)
    (store / "other/1/card.json").write_text("{}")
    settings = {"ZOOSERVE_MODELS": str(store), "ZOOSERVE_WATCH_S": "0.1", "ZOOSERVE_WORKERS": str(workers)}
    with serving(tmp_path / "log", **settings) as server:
        server.wait(503)

        def states(name: str) -> dict[str, float]:
            found = [sample for each in range(4) for sample in scrape(server)["zooserve_model_state"]]
            return {s.labels["state"]: s.value for s in found if s.labels["model"] == name and s.value}

        eventually(lambda: states("other") == {"failed": 1})
        shutil.rmtree(store / "other")
        eventually(lambda: states("other") == {})
        assert states("lenet5") == {"ready": 1}


def test_the_time_of_answers_counts_and_that_of_refusals_does_not(server, photo):
    def counted() -> float:
        return sum(s.value for s in scrape(server).get("zooserve_request_seconds_count", []))

    before = counted()
    assert server.client.post("/v1/classify?model=lenet5", content=photo("digit_7")).status_code == 200
    assert server.client.post("/v1/classify?model=lenet5", content=b"not an image").status_code == 415
    assert counted() == before + 1


def test_several_processes_are_added_up_and_their_time_never_falls(models, tmp_path):
    environment = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_WORKERS": "2"}
    with serving(tmp_path / "log", **environment) as server:
        server.wait(200)
        server.wait_for_log("1 of 1 models are ready", 2)
        samples = scrape(server)
        processes = psutil.Process(server.process.pid).children()
        assert value(samples, "zooserve_processes") == len(processes) == 2
        resident = sum(process.memory_info().rss for process in processes)
        assert value(samples, "process_resident_memory_bytes") == pytest.approx(resident, rel=0.1)
        before = value(samples, "process_cpu_seconds_total")
        processes[0].kill()
        end = time.monotonic() + 30
        while processes[0].is_running() and time.monotonic() < end:
            time.sleep(0.2)
        server.client.close()  # its connection may have been that process's
        server.client = type(server.client)(base_url=server.url, timeout=60, trust_env=False)
        assert value(scrape(server), "process_cpu_seconds_total") >= before


def test_an_endpoint_that_is_read_often_is_cheap():
    machine = Metrics()._machine
    times = []
    for _ in range(20):
        start = time.perf_counter()
        list(machine.collect())
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1
