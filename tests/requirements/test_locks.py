"""The locks say what pyproject.toml asks for, with hashes, and agree with each other. `make lock` renews them."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = {
    "serve-cpu": ["cpu", "grpc", "tracing"],
    "serve-gpu": ["gpu", "grpc", "tracing"],
    "export": ["export"],
    "loadtests": ["loadtests"],
    "ray": ["ray"],
    "dev": ["dev", "timm", "ultralytics", "libreyolo", "transformers", "yolox"],
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked(name: str) -> list[Requirement]:
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    return [Requirement(line.removesuffix("\\").strip()) for line in lines if re.match(r"[a-z0-9]", line)]


def wanted(extras: list[str]) -> list[Requirement]:
    """What the project and its extras ask for, those within extras included."""
    found = []
    for requirement in map(Requirement, [*PROJECT["dependencies"], *extra_of(extras)]):
        found += wanted(sorted(requirement.extras)) if requirement.name == PROJECT["name"] else [requirement]
    return found


def extra_of(extras: list[str]) -> list[str]:
    return [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]


@pytest.mark.parametrize(("name", "extras"), LOCKS.items())
def test_a_lock_has_what_pyproject_asks_for(name, extras):
    pins: dict[str, list[Version]] = {}
    for pin in locked(name):
        pins.setdefault(canonicalize_name(pin.name), []).append(Version(next(iter(pin.specifier)).version))
    for requirement in wanted(extras):
        versions = pins.get(canonicalize_name(requirement.name))
        assert versions, f"requirements/{name}.txt lacks {requirement.name}: run `make lock`"
        assert any(requirement.specifier.contains(version, prereleases=True) for version in versions), (
            f"requirements/{name}.txt has {requirement.name} {versions}, pyproject.toml wants {requirement}: "
            "run `make lock`"
        )


@pytest.mark.parametrize("name", [*LOCKS, "build", "no-deps"])
def test_every_requirement_is_pinned_and_hashed(name):
    blocks = re.split(r"\n(?=[a-z0-9])", (ROOT / "requirements" / f"{name}.txt").read_text().strip())
    for block in blocks:
        assert re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+", block), block
        assert "--hash=sha256:" in block, block


def test_locks_agree():
    versions: dict[tuple[str, str], set[str]] = {}
    for name in LOCKS:
        for pin in locked(name):
            versions.setdefault((pin.name, str(pin.marker or "")), set()).add(str(pin.specifier))
    assert {key: found for key, found in versions.items() if len(found) > 1} == {}
