"""Several server processes behind one port: all answer, and their metrics are added up."""

import re

from tests.conftest import serving


def test_two_processes_are_one_service(models, photo, tmp_path):
    environment = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_WORKERS": "2"}
    with serving(tmp_path / "log", **environment) as server:
        server.wait(200)
        server.wait_for_log("1 of 1 models are ready", 2)  # /readyz is answered by either
        for name, label in [("digit_7", "7"), ("digit_0", "0")] * 20:
            # a connection of its own for each request, so that the kernel spreads them
            response = server.client.post("/v1/classify", content=photo(name), headers={"connection": "close"})
            assert response.json()["predictions"][0]["label"] == label
        text = server.client.get("/metrics").text
        (count,) = re.findall(
            r'^zooserve_requests_total\{code="200",model="lenet5",task="classify"\} (\S+)$', text, re.M
        )
        assert float(count) == 40
        (ready,) = re.findall(r'^zooserve_model_ready\{model="lenet5"\} (\S+)$', text, re.M)
        assert float(ready) == 1
        stages = re.findall(r'^zooserve_stage_seconds_count\{model="lenet5",stage="(\w+)"\} (\S+)$', text, re.M)
        assert {stage: float(number) for stage, number in stages} == dict.fromkeys(
            ("read", "decode", "queue", "infer", "postprocess", "encode"), 40
        )
