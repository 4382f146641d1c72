"""The sections on results and on other load generators of docs/load-testing.md: each command runs and prints its lines.

Tools that are not installed are skipped, and named. Their figures are any; their words are those in the document.
"""

import base64
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.album import jpeg
from loadtests.recipes.perf_analyzer_input import input_data
from tests.conftest import free_port, serving

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/load-testing.md").read_text()
SECTIONS = "".join(re.findall(r"^## (?:Results|Other load generators)\n.*?(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
BLOCKS = re.findall(r"```sh\n(.*?)```(?:\n\n```text\n(.*?)```)?", SECTIONS, re.DOTALL)
TOOLS = ("perf_analyzer", "k6", "oha", "hey", "wrk")
QUICK = "--seconds 0.3 --windows 3 --warm-up 0 --stability 100%"
NUMBER = re.compile(r"(?<![\w(<])±?\d[\d.,]*(?:ms|µs|us|s|KB)?(?!\w)%?")
WORDS = r"(?:yes|no|faster|slower|within noise|too noisy to judge)"


def tool_of(command: str) -> str:
    """The program that the last line of a block runs."""
    return command.strip().splitlines()[-1].split()[0]


def pattern(line: str) -> re.Pattern[str]:
    """What a line of the document is like: its words, with any figures and any verdicts."""
    parts = re.split(rf"({NUMBER.pattern}|\b{WORDS}\b|\s+|\.{{3,}}|-{{3,}})", line.strip())
    kinds = []
    for part in parts:
        if not part:
            continue
        if re.fullmatch(NUMBER, part):
            kinds.append(r"(?:±?[\d.,]+(?:ms|µs|us|s|m|KB)*%?|unknown)")
        elif re.fullmatch(WORDS, part):
            kinds.append(WORDS)
        elif part.isspace():
            kinds.append(r"\s+")
        elif part[:3] in ("...", "---"):
            kinds.append(re.escape(part[0]) + "+")
        else:
            kinds.append(re.escape(part))
    return re.compile("".join(kinds))


@pytest.fixture(scope="module")
def running(models, tmp_path_factory):
    """A server with HTTP and gRPC; the ports of both."""
    port, grpc = free_port(), free_port()
    settings = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "mobilenet_v2,yolov4_tiny"}
    log = tmp_path_factory.mktemp("recipes") / "log"
    with serving(log, port=port, ZOOSERVE_GRPC_PORT=str(grpc), **settings) as server:
        server.wait(200)
        yield port, grpc


@pytest.fixture(scope="module")
def run(running, tmp_path_factory):
    """Runs a block of the document, on that server and for a moment; returns what it printed."""
    port, grpc = running
    folder = tmp_path_factory.mktemp("folder")
    for name in ("docs", "loadtests"):
        (folder / name).symlink_to(ROOT / name)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "K6_NO_USAGE_REPORT": "true",
        "no_proxy": "*",
    }

    def run(command: str) -> str:
        command = command.replace("localhost:3000", f"localhost:{port}").replace("localhost:8001", f"localhost:{grpc}")
        command = command.replace("loadtests.measure ", f"loadtests.measure {QUICK} ")
        done = subprocess.run(
            ["sh", "-ec", command],
            check=False,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        if "GLIBC" in done.stdout:
            pytest.skip("perf_analyzer needs a later glibc than this system's")
        assert done.returncode == 0, done.stdout
        if (folder / "before.json").exists():
            shutil.copy(folder / "before.json", folder / "after.json")
        return done.stdout

    run("python -m loadtests.measure --url http://localhost:3000 --clients 1 --json before.json")
    return run


def test_each_tool_of_the_table_has_a_recipe():
    assert {tool_of(command) for command, _ in BLOCKS} == {"python", *TOOLS}
    for tool in TOOLS:
        assert f"\n| [{tool}](https://" in SECTIONS


@pytest.mark.parametrize(
    ("command", "answer"), BLOCKS, ids=[block[0].strip().splitlines()[-1][:60] for block in BLOCKS]
)
def test_a_recipe_runs_and_prints_what_is_shown(run, command, answer):
    tool = tool_of(command)
    if shutil.which(tool) is None and tool != "python":
        pytest.skip(f"{tool} is not installed")
    printed = run(command)
    for line in filter(str.strip, answer.splitlines()):
        assert pattern(line).search(printed), f"{line!r} is not in\n{printed}"


@pytest.mark.skipif(shutil.which("k6") is None, reason="k6 is not installed")
@pytest.mark.parametrize("options", ["-e P99_MS=0.01", "-e MODEL=no_such_model"])
def test_k6_fails_where_it_should(run, options):
    with pytest.raises(AssertionError, match="thresholds"):
        run(
            f"k6 run --quiet -e URL=http://localhost:3000 -e CLIENTS=1 -e DURATION=1s {options} loadtests/recipes/k6.js"
        )


def test_the_options_of_k6_are_those_that_its_script_reads():
    script = (ROOT / "loadtests/recipes/k6.js").read_text()
    listed = set(re.findall(r"^//   ([A-Z_0-9]+) ", script, re.MULTILINE))
    read = set(re.findall(r"env\('([A-Z_0-9]+)'", script)) | set(re.findall(r"__ENV\.([A-Z_0-9]+)", script))
    assert listed == read
    used = set(re.findall(r"-e ([A-Z_0-9]+)=", SECTIONS))
    assert used <= listed


def test_an_image_for_perf_analyzer_has_its_length_before_it():
    image = jpeg("coffee").data
    tensor = json.loads(input_data(image))["data"][0]["image"]
    element = base64.b64decode(tensor["content"]["b64"])
    assert tensor["shape"] == [1]
    assert element == struct.pack("<I", len(image)) + image


@pytest.mark.parametrize("line", ["| 1 client | 86.7 | yes |", "  Requests/sec: 71.6", "p(90)=142.31ms max=1.2s"])
def test_a_line_matches_itself_with_other_figures_only(line):
    assert pattern(line).search(line.replace("7", "3").replace("yes", "no"))
    assert not pattern(line).search(line.swapcase())
