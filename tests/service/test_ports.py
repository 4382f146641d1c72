"""A server listens where it says, and nowhere else: nobody but its clients reaches it."""

import psutil
import pytest

from tests.conftest import free_port, serving


@pytest.mark.parametrize("settings", [{}, {"ZOOSERVE_FRONTS": "2"}, {"ZOOSERVE_WORKERS": "2"}], ids=str)
def test_no_other_port_is_open(models, tmp_path, settings):
    grpc = free_port()
    settings = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_GRPC_PORT": str(grpc)} | settings
    with serving(tmp_path / "log", **settings) as server:
        server.wait(200)
        root = psutil.Process(server.process.pid)
        listening = {
            connection.laddr.port
            for process in (root, *root.children(recursive=True))
            for connection in process.net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
    assert listening == {int(server.url.rpartition(":")[2]), grpc}
