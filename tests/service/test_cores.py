"""Cores that may be used: control groups of both versions, of containers and of systemd, as made-up trees."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.cores import core_groups, usable_cores
from service.runtime import _oversubscribed, _threads
from service.settings import Settings
from tests.conftest import ROOT

V2 = "31 23 0:28 {} /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate"
V1 = "32 31 0:29 {} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct"
OTHER = "34 31 0:31 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
DISK = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw"
POD = "/kubepods.slice/kubepods-pod1.slice/cri-containerd-2.scope"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes a machine of 16 cores out of its groups, mounts and files."""

    def make(groups: str, mounts: list[str], files: dict[str, str]) -> Path:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
        for name, text in {"proc/self/cgroup": groups, "proc/self/mountinfo": "\n".join(mounts), **files}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text + "\n")
        return tmp_path

    return make


def v1(folder: str, quota: int, period: int = 100_000) -> dict[str, str]:
    files = {"cpu.cfs_quota_us": quota, "cpu.cfs_period_us": period}
    return {f"sys/fs/cgroup/cpu,cpuacct{folder}/{name}": str(value) for name, value in files.items()}


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "cores"),
    [
        pytest.param("0::/", [DISK, V2.format("/")], {"sys/fs/cgroup/cpu.max": "200000 100000"}, 2, id="container, 2"),
        pytest.param("0::/", [V2.format("/")], {"sys/fs/cgroup/cpu.max": "max 100000"}, 16, id="no quota, 2"),
        pytest.param("0::/", [V2.format("/")], {"sys/fs/cgroup/cpu.max": "50000 100000"}, 1, id="half a core, 2"),
        pytest.param("0::/", [V2.format("/")], {"sys/fs/cgroup/cpu.max": "250000 100000"}, 2, id="two and a half"),
        pytest.param(
            "0::/", [V2.format("/")], {"sys/fs/cgroup/cpu.max": "6400000 100000"}, 16, id="more than there are"
        ),
        pytest.param("0::/", [V2.format("/")], {"sys/fs/cgroup/cpu.max": "?"}, 16, id="unreadable"),
        pytest.param(
            "0::/system.slice/zooserve.service",
            [V2.format("/")],
            {"sys/fs/cgroup/system.slice/zooserve.service/cpu.max": "300000 100000"},
            3,
            id="systemd's CPUQuota",
        ),
        pytest.param(
            f"0::{POD}",
            [V2.format("/")],
            {f"sys/fs/cgroup{POD}/cpu.max": "max 100000", f"sys/fs/cgroup{Path(POD).parent}/cpu.max": "400000 100000"},
            4,
            id="the pod's, not the container's",
        ),
        pytest.param(
            f"0::{POD}",
            [V2.format("/")],
            {
                f"sys/fs/cgroup{POD}/cpu.max": "200000 100000",
                f"sys/fs/cgroup{Path(POD).parent}/cpu.max": "400000 100000",
            },
            2,
            id="the least of all",
        ),
        pytest.param(
            f"0::{POD}",
            [V2.format(POD)],
            {"sys/fs/cgroup/cpu.max": "200000 100000"},
            2,
            id="the host's name for the container's root",
        ),
        pytest.param(
            "0::/../../other", [V2.format("/")], {"sys/fs/cgroup/cpu.max": "200000 100000"}, 2, id="outside the root"
        ),
        pytest.param("4:cpu,cpuacct:/\n3:memory:/a", [OTHER, V1.format("/")], v1("", 200_000), 2, id="container, 1"),
        pytest.param("4:cpu,cpuacct:/", [V1.format("/")], v1("", -1), 16, id="no quota, 1"),
        pytest.param("4:cpu,cpuacct:/", [V1.format("/")], v1("", 50_000), 1, id="half a core, 1"),
        pytest.param("4:cpu,cpuacct:/", [V1.format("/")], v1("", 30_000, 10_000), 3, id="another period"),
        pytest.param(
            "4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/",
            [V1.format("/docker/abc"), V2.format("/").replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")],
            v1("", 200_000),
            2,
            id="docker's name for the container's root, 1",
        ),
        pytest.param(
            f"4:cpu,cpuacct:{POD}",
            [V1.format("/")],
            v1(POD, -1) | v1(str(Path(POD).parent), 400_000),
            4,
            id="nested, 1",
        ),
        pytest.param("3:memory:/", [OTHER], {}, 16, id="no group for the CPU"),
        pytest.param("", [], {}, 16, id="no groups"),
    ],
)
def test_quotas(machine, groups, mounts, files, cores):
    assert usable_cores(machine(groups, mounts, files)) == cores


def test_no_proc(tmp_path):
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))


def test_affinity_counts_too(machine, monkeypatch):
    root = machine("0::/", [V2.format("/")], {"sys/fs/cgroup/cpu.max": "800000 100000"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert usable_cores(root) == 1


@pytest.fixture
def group():
    """A real control group of this machine, of version 1 or 2, in which a process may have half as much as a core."""
    for name, files in (
        ("cpu/zooserve-test", {"cpu.cfs_quota_us": "50000"}),
        ("zooserve-test", {"cpu.max": "50000 100000"}),
    ):
        folder = Path("/sys/fs/cgroup", name)
        try:
            (folder / "deep").mkdir(parents=True, exist_ok=True)
            for file, text in files.items():
                (folder / file).write_text(text)
        except OSError:
            continue
        yield folder / "deep"
        (folder / "deep").rmdir()
        folder.rmdir()
        return
    pytest.skip("no control group can be made here")


def test_a_real_group(group):
    """A process in a group without a quota, inside one that has one."""
    code = "import pathlib, sys; from service.cores import usable_cores; import os\n"
    code += "pathlib.Path(sys.argv[1], 'cgroup.procs').write_text(str(os.getpid())); print(usable_cores())"
    command = [sys.executable, "-c", code, str(group)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    ("cores", "settings", "threads", "oversubscribed"),
    [
        (8, {}, 8, False),
        (8, {"workers": 2}, 4, False),
        (8, {"workers": 3}, 2, False),
        (2, {"workers": 4}, 1, True),
        (8, {"threads": 3, "workers": 2}, 3, False),
        (8, {"threads": 8, "workers": 2}, 8, True),
    ],
)
def test_all_threads_together_have_the_cores(monkeypatch, cores, settings, threads, oversubscribed):
    monkeypatch.setattr("service.runtime.usable_cores", lambda: cores)
    given = Settings(**settings)
    assert _threads(given) == threads
    assert bool(_oversubscribed(given)) is oversubscribed


@pytest.mark.parametrize(
    ("usable", "nodes", "siblings", "count", "expected"),
    [
        ("0-3", {}, {}, 2, ["0-1", "2-3"]),
        ("0-1", {}, {}, 1, ["0-1"]),
        ("0-4", {}, {}, 2, ["0-1", "2-4"]),
        ("0-7", {}, {i: f"{i % 4},{i % 4 + 4}" for i in range(8)}, 2, ["0-1,4-5", "2-3,6-7"]),
        ("0-7", {0: "0-3", 1: "4-7"}, {}, 2, ["0-3", "4-7"]),
        ("0-7", {0: "0,2,4,6", 1: "1,3,5,7"}, {}, 4, ["0,2", "4,6", "1,3", "5,7"]),
        ("0-7", {0: "0-5", 1: "6-7"}, {}, 3, ["0-2", "3-5", "6-7"]),
        ("0-7", {0: "0-3", 1: "4-7"}, {}, 1, ["0-7"]),
        ("2-3,6-7", {0: "0-3", 1: "4-7", 2: ""}, {}, 2, ["2-3", "6-7"]),
        ("0-7", {0: "0-1", 1: "2-3", 2: "4-5", 3: "6-7"}, {}, 2, ["0-1,4-5", "2-3,6-7"]),
        ("0-3", {0: "0-1"}, {}, 2, ["0-1", "2-3"]),
        ("0-1", {0: "a-b"}, {}, 2, ["0", "1"]),
    ],
)
def test_cores_are_shared_out(tmp_path, monkeypatch, usable, nodes, siblings, count, expected):
    def write(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True)
        path.write_text(text + "\n")

    for node, cores in nodes.items():
        write(tmp_path / f"sys/devices/system/node/node{node}/cpulist", cores)
    for core, text in siblings.items():
        write(tmp_path / f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list", text)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: numbers(usable), raising=False)
    assert core_groups(count, tmp_path) == [numbers(cores) for cores in expected]


def numbers(text: str) -> set[int]:
    pairs = [part.split("-") for part in text.split(",")]
    return {core for pair in pairs for core in range(int(pair[0]), int(pair[-1]) + 1)}
