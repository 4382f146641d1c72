"""The compose file: accepted by an engine where there is one, and hardened as the image is meant to run."""

import re
import shutil
import subprocess

import pytest
import yaml

from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


def _has_compose() -> bool:
    docker = shutil.which("docker")
    version = [docker or "docker", "compose", "version"]
    return docker is not None and subprocess.run(version, check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not _has_compose(), reason="docker's compose plugin is not installed")
@pytest.mark.parametrize("profile", [[], ["--profile", "gpu"]])
def test_docker_accepts_it(profile):
    command = ["docker", "compose", "--file", str(DEPLOY / "compose.yaml"), *profile, "config", "--quiet"]
    process = subprocess.run(command, check=False, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_hardened(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "user"} & service.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_but_the_loopback(name):
    assert SERVICES[name]["ports"]
    for port in SERVICES[name]["ports"]:
        assert port.startswith("127.0.0.1:")


def test_no_two_want_the_same_port():
    ports = [re.search(r"(\d+)\}?:\d+$", port)[1] for service in SERVICES.values() for port in service["ports"]]
    assert len(set(ports)) == len(ports)


@pytest.mark.parametrize("name", [name for name in SERVICES if "build" not in SERVICES[name]])
def test_images_are_pinned(name):
    assert re.search(r":v?\d+\.\d+\.\d+$", SERVICES[name]["image"])


@pytest.mark.parametrize("name", [name for name in SERVICES if "build" in SERVICES[name]])
def test_targets_are_in_the_dockerfile(name):
    build = SERVICES[name]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    assert re.search(rf"^FROM \S+ AS {build['target']}$", (DEPLOY / "Dockerfile").read_text(), re.M)
    assert "healthcheck" not in SERVICES[name]  # the image brings its own


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there(name):
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        assert source in COMPOSE["volumes"] or (DEPLOY / source).is_dir()


def test_prometheus_asks_the_services_by_their_names():
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (job,) = [job for job in configuration["scrape_configs"] if job["job_name"] == "zooserve"]
    assert set(job["dns_sd_configs"][0]["names"]) == {name for name in SERVICES if "build" in SERVICES[name]}
    assert {job["dns_sd_configs"][0]["port"]} == {
        int(SERVICES[n]["ports"][0].split(":")[-1]) for n in ("zooserve", "gpu")
    }


def test_the_gpu_is_asked_for_by_its_profile_only():
    assert SERVICES["gpu"]["profiles"] == ["gpu"]
    (device,) = SERVICES["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert all("profiles" not in service for name, service in SERVICES.items() if name != "gpu")
