"""Metrics in memory that several processes share: real processes write, are killed, and are started again."""

import os
import subprocess
import sys
from pathlib import Path

import prometheus_client.values
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.supervisor import new_memory
from service.telemetry.counts import Counts
from service.telemetry.metrics import Metrics
from tests.conftest import ROOT

WRITER = """
import sys
from service.telemetry.counts import Counts
from service.telemetry.metrics import Metrics
counts = Counts(sys.argv[2:], int(sys.argv[1]))
metrics = Metrics(counts)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


class Writer:
    """A process with a place in the memory; it does what it is told, line by line."""

    def __init__(self, place: int, memory: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(place), *memory],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, close_fds=False,
        )  # fmt: skip
        self.do("pass")

    def do(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(params=["memory", "files"])
def memory(request, tmp_path, monkeypatch):
    """Room for three processes: without a name, or as files where there is no such memory."""
    if request.param == "files":
        monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    paths = [new_memory() for _ in range(6)]
    assert all(path.startswith("/proc/self/fd/" if request.param == "memory" else str(tmp_path)) for path in paths)
    yield paths
    for path in paths:
        if request.param == "memory":
            os.close(int(path.rpartition("/")[2]))


@pytest.fixture
def start(memory, monkeypatch):
    """Starts writers, whose parent this process is, and ends them."""
    writers = []

    def start(place: int) -> Writer:
        writers.append(Writer(place, memory))
        return writers[-1]

    # Gauges count of processes that have the same parent as the one that reads; here the reader is the parent.
    monkeypatch.setattr(os, "getppid", os.getpid)
    yield start
    for writer in writers:
        writer.kill()


@pytest.fixture
def read(memory):
    """What all places say, as samples by name and labels."""
    reader = Counts(memory, 2)

    def read() -> dict[str, float]:
        registry = CollectorRegistry()
        registry.register(reader)
        text = generate_latest(registry).decode()
        return {
            name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
        }

    read.processes = reader.processes
    return read


def test_counts_and_gauges_are_added_up_each_in_its_way(start, read):
    one, other = start(0), start(1)
    for writer, moment in ((one, 1), (other, 2)):
        writer.do(f"metrics.rejected.labels('m', 'deadline').inc({moment})")
        writer.do(f"metrics.queue_depth.labels('m').set({moment})")
        writer.do(f"metrics.gc_longest.set({moment})")
        writer.do(f"metrics.model_ready.labels('m').set({moment - 1})")
        writer.do(f"metrics.model_state['m', 'ready'].set({moment})")
        writer.do(f"metrics.batch_size.labels('m').observe({4 * moment})")
    samples = read()
    assert samples['zooserve_rejected_total{model="m",reason="deadline"}'] == 3
    assert samples['zooserve_queue_depth{model="m"}'] == 3, "the sum"
    assert samples["zooserve_gc_longest_pause_seconds"] == 2, "the greatest"
    assert samples['zooserve_model_ready{model="m"}'] == 0, "the least"
    assert samples['zooserve_model_state{model="m",state="ready"}'] == 2, "what was said last"
    buckets = {name: value for name, value in samples.items() if name.startswith("zooserve_batch_size_bucket")}
    assert list(buckets.values()) == [0, 0, 1, 2, 2, 2, 2, 2, 2, 2], "each with those below it"
    assert (samples['zooserve_batch_size_count{model="m"}'], samples['zooserve_batch_size_sum{model="m"}']) == (2, 12)


def test_a_killed_process_leaves_its_counts_and_no_gauges(start, read, memory):
    writers = [start(0), start(1)]
    for writer in writers:
        writer.do("metrics.rejected.labels('m', 'deadline').inc()")
        writer.do("metrics.queue_depth.labels('m').set(5)")
        writer.do("metrics.model_ready.labels('m').set(int(sys.argv[1]))")
    assert read()['zooserve_model_ready{model="m"}'] == 0
    assert len(read.processes()) == 2
    writers[0].kill()
    samples = read()
    assert samples['zooserve_rejected_total{model="m",reason="deadline"}'] == 2
    assert samples['zooserve_queue_depth{model="m"}'] == 5
    assert samples['zooserve_model_ready{model="m"}'] == 1
    assert [process.pid for process in read.processes()] == [writers[1].process.pid]


def test_its_successor_goes_on_counting_in_its_place(start, read, memory):
    def sizes() -> list[int]:
        return [Path(path).stat().st_size for path in memory]

    before = sizes()
    for life in range(1, 6):
        writer = start(0)
        assert 'zooserve_queue_depth{model="m"}' not in read(), "what the dead one said of itself"
        writer.do("metrics.queue_depth.labels('m').set(1)")
        writer.do("metrics.rejected.labels('m', 'deadline').inc()")
        assert read()['zooserve_queue_depth{model="m"}'] == 1
        assert read()['zooserve_rejected_total{model="m",reason="deadline"}'] == life
        before = before if life > 1 else sizes()
        writer.kill()
    assert sizes() == before


def test_it_grows_with_the_labels(start, read, memory):
    writer = start(0)
    writer.do("[metrics.stage.observe(1, f'model {n}', 'decode') for n in range(200)]")
    writer.do("metrics.stage.observe(1, 'model 0', 'decode')")  # whose place is in the part before it grew
    counts = [read()[f'zooserve_stage_seconds_count{{model="model {n}",stage="decode"}}'] for n in (0, 199)]
    assert counts == [2, 1]
    assert Path(memory[0]).stat().st_size > 65536


def test_a_place_that_is_being_emptied_says_nothing(read, memory):
    os.truncate(memory[1], 0)
    os.truncate(memory[3], 2)
    read()
    assert [process.pid for process in read.processes()] == [os.getpid()], "the reader at the third"


def test_one_process_says_the_same_with_and_without_it(memory, monkeypatch):
    monkeypatch.setattr(prometheus_client.values, "ValueClass", prometheus_client.values.ValueClass)

    def text(metrics: Metrics) -> dict:
        metrics.requests["classify", "m", "200"].inc(3)
        metrics.request.observe(0.3, "classify", "m")
        metrics.stage.observe(0.002, "m", "decode")
        metrics.stage.observe(70, "m", "decode")
        metrics.queue_depth.labels("m").set(2)
        metrics.model_info.labels("m", "1", "CPU", "fp32", 'a"b\\\n').set(1)
        metrics.ready.set(1)
        said = {}
        for family in text_string_to_metric_families(metrics.render().decode()):
            samples = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in family.samples}
            if not family.name.startswith("process_"):
                said[family.name] = family.type, family.documentation, samples
        return said

    plain = text(Metrics())
    shared = text(Metrics(Counts(memory, 0)))
    for name, said in shared.items():
        assert plain[name] == said, name
    # What has no sample yet is not named where several say it.
    assert {name for name in plain.keys() - shared.keys() if plain[name][2]} == set()


def test_one_that_is_killed_in_the_middle_of_writing_breaks_nothing(start, read):
    name, before = 'zooserve_rejected_total{model="m",reason="deadline"}', 0.0
    for _ in range(5):
        writer = start(0)
        writer.process.stdin.write("while True: metrics.rejected.labels('m', 'deadline').inc()\n")
        writer.process.stdin.flush()
        while (count := read().get(name, 0.0)) < before + 100:
            assert writer.process.poll() is None
        writer.kill()
        before = read()[name]
        assert before == int(before) >= count


@pytest.mark.parametrize("seconds", [0.0, 0.00025, 0.000251, 0.3, 30, 31])
def test_times_are_counted_as_the_library_counts_them(seconds):
    metrics = Metrics()
    metrics.request.observe(seconds, "classify", "ours")
    metrics.request["classify", "theirs"].observe(seconds)
    (family,) = [family for family in metrics.collect() if family.name == "zooserve_request_seconds"]
    ours, theirs = (
        [(s.name, s.labels.get("le"), s.value) for s in family.samples if s.labels["model"] == model]
        for model in ("ours", "theirs")
    )
    assert ours == theirs
