"""The folder that a server is started in: its modules are not the server's, whoever wrote them."""

import pytest

from tests.conftest import serving

NAMES = ("service", "zoo", "bentoml", "onnxruntime", "uvloop", "queue", "logging", "sitecustomize")


@pytest.mark.parametrize("fronts", ["0", "1"])
def test_modules_of_the_current_folder_are_not_imported(models, tmp_path, fronts):
    folder, run = tmp_path / "folder", tmp_path / "run"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(run)!r}, 'a').write(__file__)\n")
    settings = {"ZOOSERVE_FRONTS": fronts, "ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "lenet5"}
    with serving(tmp_path / "log", cwd=folder, **settings) as server:
        server.wait(200)
        assert not run.exists(), run.read_text()
