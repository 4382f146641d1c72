"""A service of one's own: up, and gone afterwards; and why it does not come up."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from loadtests.client import Request, fetch, run
from loadtests.compare.process import ServerError
from loadtests.serving import serving


def test_it_serves_and_ends(models, tmp_path):
    with serving(tmp_path / "log", {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "mobilenet_v2"}) as (address, pid):
        answer = json.loads(run(fetch(address, Request("GET", "/v1/models"))).body)
        assert [model["name"] for model in answer["models"]] == ["mobilenet_v2"]
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    assert not any(process.is_running() for process in processes)
    with socket.socket() as probe:
        assert probe.connect_ex((address.ip, address.port)) != 0


def test_a_service_that_dies_or_is_not_reached_is_an_error_with_its_log(models, tmp_path):
    settings = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "lenet5"}

    def kill_and_ask():
        with serving(tmp_path / "log", settings) as (address, pid):
            os.kill(pid, signal.SIGKILL)
            while True:
                run(fetch(address, Request("GET", "/readyz")))
                time.sleep(0.1)

    with pytest.raises(ServerError, match="died with exit code -9"):
        kill_and_ask()
    with pytest.raises(ServerError, match="not whole again after 60 s"), serving(tmp_path / "log", settings):
        raise TimeoutError("the server was not whole again after 60 s")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_tool_that_is_ended_ends_its_service(models, tmp_path, sent):
    code = (
        "import asyncio, signal, sys; from pathlib import Path; from loadtests.client import run; "
        "from loadtests.serving import serving\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which the background ignores
        "with serving(Path(sys.argv[1]), {}) as (_, pid):\n    print(pid, flush=True)\n    run(asyncio.sleep(60))\n"
    )
    settings = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "lenet5", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(tmp_path / "log")]
    with subprocess.Popen(command, env=os.environ | settings, stdout=subprocess.PIPE, text=True) as tool:
        service = psutil.Process(int(tool.stdout.readline()))
        tool.send_signal(sent)
        assert tool.wait(40) != 0
    assert not service.is_running()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ZOOSERVE_MODELS": "no-such-folder"}, "no-such-folder"),
        ({"ZOOSERVE_LOAD": "vgg99"}, "vgg99"),
        ({"ZOOSERVE_MAX_BATCH": "-1"}, "ZOOSERVE_MAX_BATCH"),
    ],
)
def test_why_it_does_not_come_up(models, tmp_path, settings, words):
    settings = {"ZOOSERVE_MODELS": str(models)} | settings
    with pytest.raises(ServerError, match=words), serving(tmp_path / "log", settings, patience=40):
        pass
