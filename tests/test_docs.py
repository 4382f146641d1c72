"""README and docs/ stay true: their commands are run, and what they answer is what the pages say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import serving
from zoo import catalog

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text()
HTTP = (ROOT / "docs/http.md").read_text()
BLOCK = re.compile(r"```(sh|python)\n(.*?)```\n\n```(json|text)\n(.*?)```", re.DOTALL)
OF_OTHERS = {  # pages whose examples have tests of their own, and what those examples have in common
    "models.md": re.compile("my.onnx|mobilenet_v2_256|--to mirror"),  # tests/test_models_page.py
    "load-testing.md": re.compile(""),  # tests/loadtests
}


def examples(page: Path) -> list[tuple[str, str, str]]:
    """A page's commands with their languages and answers, without those that are others' to test."""
    blocks = [(match[1], match[2].strip(), match[4].strip()) for match in BLOCK.finditer(page.read_text())]
    others = OF_OTHERS.get(page.name)
    return [block for block in blocks if others is None or not others.search(block[1])]


EXAMPLES = [example for page in PAGES for example in examples(page)]


def same(one, other) -> bool:
    """Equal; numbers may differ as much as they do between processors."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == pytest.approx(other, rel=0.01, abs=0.002) if isinstance(one, float) else one == other


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in OF_OTHERS], ids=lambda page: page.name)
def test_every_command_that_is_shown_has_its_answer(page):
    assert len(examples(page)) == len(re.findall("```(?:sh|python)\n", page.read_text()))


def test_there_are_examples_at_all():
    assert len(EXAMPLES) >= 10


@pytest.mark.parametrize(("language", "command", "answer"), EXAMPLES, ids=[e[1].splitlines()[0][:50] for e in EXAMPLES])
def test_a_command_answers_as_shown(server, models, language, command, answer):
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "ZOOSERVE_MODELS": str(models),
    }
    command = command.replace("localhost:3000", server.url.removeprefix("http://"))
    command = command.replace("curl ", "curl --silent --noproxy '*' ")
    arguments = [sys.executable, "-W", "ignore", "-c", command] if language == "python" else ["sh", "-c", command]
    done = subprocess.run(
        arguments, check=True, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=120
    )
    if answer.startswith("{"):
        assert same(json.loads(answer), json.loads(done.stdout))
    else:
        assert [line.rstrip() for line in done.stdout.splitlines()] == [line.rstrip() for line in answer.splitlines()]


def test_the_command_with_a_key_opens_a_server_that_asks_for_it(models, tmp_path):
    (command,) = [command for _, command, _ in EXAMPLES if "Bearer" in command]
    (key,) = re.findall(r"`ZOOSERVE_API_KEYS=(\w\S*?)`", HTTP)
    settings = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "mobilenet_v2", "ZOOSERVE_API_KEYS": key}
    with serving(tmp_path / "log", **settings) as server:
        server.wait(200)
        command = command.replace("localhost:3000", server.url.removeprefix("http://"))
        command = command.replace("curl ", "curl --silent --noproxy '*' -o /dev/null -w '%{http_code}' ")
        other = command.replace("Authorization: Bearer", "X-API-Key:")
        codes = [
            subprocess.run(["sh", "-c", one], cwd=ROOT, capture_output=True, text=True, check=True).stdout
            for one in (command, other, command.replace(key, "another"))
        ]
    assert codes == ["200", "200", "401"]


def test_the_table_of_models_is_the_default_zoo():
    names = re.findall(r"^\| `(\w+)` \| (\w+)( \(default\))? \|", README, re.MULTILINE)
    cards = [catalog.find(name) for name in catalog.names()]
    assert sorted((name, task, bool(default)) for name, task, default in names) == sorted(
        (card.name, card.task, card.task_default) for card in cards if card.default
    )


def test_the_two_commands_are_there():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", README, re.MULTILINE):
        assert f"\n{target}:" in makefile


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120


def test_the_figures_are_those_that_the_command_printed():
    printed = (ROOT / "loadtests/results/compare.md").read_text()
    rows = {}
    row = r"^\| (\w+) +\| +(fast|pillow) \| +([\d.]+) / [\d.]+, \d+ \|" + r" +[\d.]+ / ([\d.]+), (\d+) \|" * 2
    for server, pixels, *cells in re.findall(row, printed, re.MULTILINE):
        alone, p99_at_8, rate_at_8, p99_at_32, rate_at_32 = map(float, cells)
        rows[server, pixels] = [alone, rate_at_8, round(p99_at_8), rate_at_32, round(p99_at_32)]
    shown = re.findall(r"^\| \**([A-Z]?[\w ]+?)\** \|" + r" \**([\d.]+)\** \|" * 5 + "$", README, re.MULTILINE)
    assert len(shown) == 8
    for name, *cells in shown:
        assert [float(cell) for cell in cells] == rows[name.lower().replace(" ", ""), "fast"], name
    exact = re.search(
        r"alone in ([\d.]+) ms and with 8 clients (\d+)\s+images/s; .* ([\d.]+) ms \((\w+)\) and (\d+)", README
    )
    alone, rate, alone_of_peer, peer, rate_of_peer = exact.groups()
    assert [float(alone), float(rate)] == rows["zooserve", "pillow"][:2]
    peers = {key[0]: row for key, row in rows.items() if key[1] == "pillow" and key[0] != "zooserve"}
    assert min(peers, key=lambda name: peers[name][0]) == peer.lower()
    assert [float(alone_of_peer), float(rate_of_peer)] == [
        min(row[0] for row in peers.values()),
        max(row[1] for row in peers.values()),
    ]
    loop = re.search(r"bare loop `zooserve` .*?, (\d+) \|", printed)
    assert f"reaches {loop[1]} images/s" in README


@pytest.mark.parametrize("page", ["deploy/README.md", "docs/tuning.md"])
def test_the_version_of_cuda_is_that_of_the_lock(page):
    (locked,) = re.findall(
        r"^nvidia-cuda-runtime==(\d+)", (ROOT / "requirements/serve-gpu.txt").read_text(), re.MULTILINE
    )
    assert set(re.findall(r"CUDA (\d+)", (ROOT / page).read_text())) == {locked}


def test_the_runbook_has_the_table_of_faults():
    printed = (ROOT / "loadtests/results/faults.md").read_text()
    table = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(table) > 10
    assert "\n".join(table) in (ROOT / "deploy/README.md").read_text()


def test_scoring_has_the_figures_that_were_printed():
    page = (ROOT / "docs/scoring.md").read_text()
    results = ROOT / "loadtests/results"

    def printed(name: str, model: str) -> Any:
        return json.loads((results / name).read_text())["details"][f"throughput {model}"]

    fast = printed("scoring_throughput.json", "mobilenet_v2")
    slow = printed("scoring_throughput_yolo.json", "yolov4_tiny")
    for words in (
        f"mobilenet_v2 ({fast['local']['rate']:.1f} of {fast['bare']['rate']:.1f} images/s)",
        f"yolov4_tiny ({slow['local']['rate']:.1f} of {slow['bare']['rate']:.1f})",
        f"| 0.95 | {fast['local']['ratio']:.3f}, {slow['local']['ratio']:.3f} |",
        f"mobilenet_v2 ({fast['nodes']['rate']:.1f} images/s), yolov4_tiny ({slow['nodes']['rate']:.1f})",
        f"| 0.92 | {fast['nodes']['ratio']:.3f}, {slow['nodes']['ratio']:.3f} |",
    ):
        assert words in page
    memory = json.loads((results / "scoring_memory.json").read_text())["details"]["memory"]
    for name in ("driver_mb", "actors_mb"):
        assert "{:.0f} and {:.0f} MB".format(*memory[name]) in page


def test_other_figures_are_those_that_commands_printed():
    scenarios = (ROOT / "loadtests/results/scenarios.md").read_text()
    goodput = re.search(r"\| zooserve \|   fast \| +[\d.]+ \| +([\d.]+) \|", scenarios)
    assert f"{float(goodput[1]):.0%}".replace("%", " %") in (ROOT / "docs/tuning.md").read_text()
