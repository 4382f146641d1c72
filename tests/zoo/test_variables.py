"""Environment variables: every one that the project reads is known, and misspelt ones are named."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.variables import OF_STORE, misspelt_of_store, public, unknown

ROOT = Path(__file__).parent.parent.parent
SOURCES = ("zoo", "export", "service", "loadtests", "evaluation", "scoring", "commands", "client", "deploy")


def test_every_variable_that_the_project_names_is_known():
    from service.settings import Settings

    files = [
        path
        for folder in SOURCES
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".js", ".yaml", ".yml"} and path != ROOT / "zoo/variables.py"
    ]
    named = {name for path in files for name in re.findall(r"\bZOOSERVE_[A-Z0-9_]*[A-Z0-9]\b", path.read_text())}
    assert {"ZOOSERVE_MODELS", "ZOOSERVE_URL", "ZOOSERVE_WORKERS"} <= named
    settings = [name.upper() for name in Settings.__struct_fields__]
    assert [str(one) for one in unknown(dict.fromkeys(named, "1"), settings)] == []


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("ZOOSERVE_MODEL", "MODELS"),
        ("ZOOSERVE_CARD", "CARDS"),
        ("ZOOSERVE_CACHE_DIR", "CACHE"),
        ("ZOOSERV_MODELS", "MODELS"),
        ("ZOOSERVE_LOAD_S", None),
        ("ZOOSERVE_WORKERS", None),
        ("ZOOSERVE_MODELS", None),
        ("ZOOSERVE_API_KEYS", None),
    ],
)
def test_misspelt_variables_of_the_store_are_named(name, near):
    assert [one.near for one in misspelt_of_store({name: "1"})] == ([f"ZOOSERVE_{near}"] if near else [])


def test_no_setting_of_the_server_is_taken_for_a_misspelt_folder():
    from service.settings import Settings

    others = {f"ZOOSERVE_{name.upper()}": "1" for name in Settings.__struct_fields__}
    assert misspelt_of_store(others) == []
    assert set(OF_STORE) - {"MODELS"} <= {"CACHE", "CARDS", "MIRROR"}


@pytest.mark.parametrize("arguments", [["list"], ["export", "--help"], ["predict", "lenet5", "docs/coffee.jpg"]])
def test_a_command_names_a_misspelt_variable_once(tmp_path, arguments):
    environment = {"ZOOSERVE_MODLES": "elsewhere", "ZOOSERVE_CARDS": str(tmp_path)}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("zooserve")), *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("ZOOSERVE_MODLES is ignored") == 1
    assert "ZOOSERVE_MODELS meant?" in done.stdout + done.stderr


def test_other_machines_see_no_keys():
    hidden = ("API_KEYS", "ADMIN_KEYS", "API_KEY", "KEY", "TLS_KEY", "MIRROR")
    environment = {f"ZOOSERVE_{name}": "3" for name in (*hidden, "THREADS", "MODELS")} | {"HOME": "/home/a"}
    assert public(environment) == {"ZOOSERVE_THREADS": "3", "ZOOSERVE_MODELS": "3"}
