"""Which tests `make check` leaves out, which run alone, and which begin first, and why. For `tests/conftest.py`."""

from pathlib import Path

ROOT = Path(__file__).parent
BY_FIXTURE = {
    "models": "uses the exported models",
    "server": "starts a server",
    "course": "exports models and starts a server",
    "far": "starts a server and a proxy",
    "browser": "drives a browser",
    "prometheus": "starts Prometheus",
    "image": "builds an image",
    "cuda_stub": "starts a process for each case",
    "openvino": "starts a process for each case",
    "ray": "starts a Ray cluster",
    "with_nvimgcodec": "starts a process for each case",
}
BY_PATH = {  # of a file or folder
    "client/test_local.py": "starts servers and proxies",
    "client/test_trouble.py": "waits for retries",
    "commands": "converts networks",
    "evaluation/test_rotated.py": "imports torch",
    "evaluation/test_torchvision.py": "imports torch",
    "zooserve": "loads and exports models",
    "deploy/test_health_check.py": "starts a process for each case",
    "deploy/test_image.py": "builds an image",
    "deploy/test_prometheus.py": "starts promtool",
    "deploy/test_queries.py": "starts promtool",
    "export": "converts networks",
    "loadtests/compare": "starts servers and measures them",
    "fuzz": "fuzzes each parser",
    "loadtests/gpu": "runs every measurement once",
    "loadtests/loadgen": "runs LoadGen",
    "loadtests/test_pipeline.py": "starts a server",
    "loadtests/test_recipes.py": "runs other load generators",
    "loadtests/soak": "keeps a server busy",
    "loadtests/tiles": "starts a server",
    "loadtests/zoo_on_demand": "starts servers",
    "loadtests/test_client.py": "waits for timeouts",
    "loadtests/test_connections.py": "waits for timeouts",
    "loadtests/test_document.py": "runs every command of the document",
    "loadtests/test_distributed.py": "keeps a server busy",
    "loadtests/test_locustfile.py": "runs Locust",
    "loadtests/measure": "measures a server",
    "loadtests/test_reach.py": "makes a network namespace",
    "loadtests/test_served.py": "waits for timeouts",
    "loadtests/test_without_extra.py": "starts a process for each case",
    "requirements/test_install.py": "installs packages",
    "service/commands/test_reload.py": "starts a process for each case",
    "service/grpc/test_kserve.py": "starts a server",
    "service/http/v1/test_attack_bodies.py": "starts a server",
    "service/http/v1/test_figures.py": "starts a process for each case",
    "service/http/v1/test_instances.py": "starts servers",
    "service/oip/test_attack_infer.py": "starts a server",
    "service/oip/test_rest.py": "starts a server",
    "service/oip/test_tritonclient.py": "starts a server",
    "service/telemetry/test_counts.py": "starts processes",
    "service/test_hostile.py": "starts a server",
    "service/telemetry/test_processes.py": "starts servers",
    "service/test_readiness.py": "starts servers",
    "service/test_stop.py": "starts a server",
    "service/test_supervisor.py": "starts servers and kills them",
    "service/vision/test_heif.py": "decodes large images",
    "test_contributing.py": "converts a network",
    "test_docs.py": "runs every command of the documents",
    "test_models_page.py": "converts networks",
    "test_unasked.py": "starts a process for each case",
    "zoo/test_hub_files.py": "starts a process for each case",
    "zoo/test_labels.py": "imports torch",
    "zoo/test_libraries.py": "imports every library",
    "zoo/test_recipe.py": "imports torch",
    "zoo/test_variables.py": "starts a process for each case",
}

ALONE = {  # `make test` runs these one after the other, when no others run
    "loadtests/gpu/test_bench.py",
    "service/grpc/test_attack_calls.py",
    "service/http/server/test_attack_connections.py",
    "service/http/v1/test_attack_bodies.py",
    "service/models/test_model.py",
    "service/oip/test_attack_infer.py",
    "service/test_attack_store.py",
    "service/vision/test_attack_images.py",
}
"""They measure times, most of them how long others wait during an attack, or see what is left in a process."""

LONGEST = (
    "commands/test_accuracy.py",
    "commands/test_originals.py",
    "export/families/test_transformers.py",
    "scoring/test_cluster.py",
    "fuzz/test_targets.py",
    "service/test_supervisor.py",
    "loadtests/test_locustfile.py",
    "export/importer/test_published_files.py",
    "export/families/test_ultralytics.py",
    "export/families/test_torchvision_detection.py",
    "deploy/test_image.py",
    "loadtests/loadgen/test_command.py",
    "loadtests/measure/test_command.py",
    "export/families/test_libreyolo.py",
    "loadtests/tiles/test_tiles.py",
    "loadtests/zoo_on_demand/test_command.py",
    "export/ultralytics/test_predict.py",
)
"""They begin first, so that no process has one of them left when the others are done."""


def place(path: Path) -> int:
    """Where in the order of all files one is: those of `LONGEST` first."""
    name = path.relative_to(ROOT).as_posix()
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)


def runs_alone(path: Path) -> bool:
    """Whether a file's tests measure times that other tests would disturb."""
    return path.relative_to(ROOT).as_posix() in ALONE


def why_slow(path: Path, fixtures: set[str]) -> str:
    """Say why a test is slow; empty where it is not."""
    place = path.relative_to(ROOT)
    for part in (place, *place.parents):
        if reason := BY_PATH.get(part.as_posix()):
            return reason
    return next((reason for name, reason in BY_FIXTURE.items() if name in fixtures), "")


def left_out(path: Path, expression: str) -> bool:
    """Whether `pytest -m EXPRESSION` runs no test of a file or folder. May be false where it runs none."""
    if expression == "not slow":
        return bool(why_slow(path, set()))
    if expression == "not alone":
        return path.is_file() and runs_alone(path)
    return expression == "alone" and not any((ROOT / name).is_relative_to(path) for name in ALONE)
