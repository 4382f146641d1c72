"""Reports and tables as they end up in files."""

import json

import pytest
from jsonschema import Draft202012Validator

from loadtests.report import (
    SCHEMA_FILE,
    Measurement,
    ReportError,
    TestedServer,
    machine,
    markdown_table,
    read_json,
    report,
    schema,
    versions,
    without_secrets,
    write_json,
)

MEASURED = Measurement(name="8 clients", clients=8, seconds=3.0, requests=9, errors=1, rate_per_s=8 / 3, p50_ms=1.25)
SERVER = TestedServer("https://vision.example/zoo", "https", "classify", "mobilenet_v2", "1")


def a_report(**more):
    found = {"rate": 1 / 3, "of": [1, None]}
    return report("compare", ["--peers", "a b"], machine(), {"x": "1"}, {"rounds": 3}, found, **more)


def test_report(tmp_path):
    write_json(tmp_path / "deep" / "out.json", a_report(target=SERVER, measurements=[MEASURED]))
    text = (tmp_path / "deep" / "out.json").read_bytes()
    assert json.loads(text)["details"] == {"rate": 0.3333, "of": [1, None]}
    back = read_json(tmp_path / "deep" / "out.json")
    assert back.command == "python -m loadtests.compare --peers 'a b'"
    assert (back.versions, back.settings, back.target) == ({"x": "1"}, {"rounds": 3}, SERVER)
    assert (back.measurements[0].rate_per_s, back.measurements[0].p50_ms) == (2.6667, 1.25)
    assert back.date.endswith("+00:00")
    assert back.machine.cores >= 1
    assert back.machine.memory_gb > 0
    assert back.machine.processor


def test_the_schema_in_the_repository_is_that_of_the_structs(tmp_path):
    kept = SCHEMA_FILE.read_text()
    assert kept == schema(), "run `python -m loadtests.report > loadtests/report.schema.json`"
    validator = Draft202012Validator(json.loads(kept))
    write_json(tmp_path / "out.json", a_report(measurements=[MEASURED]))
    good = json.loads((tmp_path / "out.json").read_text())
    validator.validate(good)
    for broken in ({"schema_version": 1}, {"tool": 3}, {"measurements": [{"name": "without figures"}]}):
        assert not validator.is_valid(good | broken)


@pytest.mark.parametrize("path", sorted((SCHEMA_FILE.parent / "results").glob("*.json")), ids=lambda path: path.name)
def test_results_in_the_repository_are_of_this_schema(path):
    Draft202012Validator(json.loads(SCHEMA_FILE.read_text())).validate(json.loads(path.read_text()))
    others = {"scenarios": "compare", "machine": "compare"}  # all else is called as its tool, or begins so
    assert others.get(path.stem, path.stem).startswith(read_json(path).tool)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no json", "not a report"),
        ("[1]", "not a report"),
        ('{"test": "soak"}', "schema_version 1, expected 2"),
        ('{"schema_version": 3}', "schema_version 3, expected 2"),
        ('{"schema_version": 2, "tool": "soak"}', "missing required field"),
        (None, "No such file"),
    ],
)
def test_what_is_no_report(tmp_path, text, words):
    if text is not None:
        (tmp_path / "x.json").write_text(text)
    with pytest.raises(ReportError, match=words):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["--api-key", "s3", "--url", "http://h/p"], ["--api-key", "...", "--url", "http://h/p"]),
        (["--api-key=s3", "--clients=8"], ["--api-key=...", "--clients=8"]),
        (["--api-key", "--api-key", "x"], ["--api-key", "...", "x"]),
        (["--proxy-password", "s3"], ["--proxy-password", "..."]),
        (["--url=https://me:s3@h:1/p", "http://s3@h"], ["--url=https://h:1/p", "http://h"]),
        (["--json", "key.json"], ["--json", "key.json"]),
    ],
)
def test_a_command_is_kept_without_its_secrets(given, kept):
    assert without_secrets(given) == kept
    done = report("measure", given, machine(), {}, {})
    assert "s3" not in done.command


def test_versions_leave_out_what_is_not_installed():
    found = versions(["numpy", "no-such-package-at-all"])
    assert list(found) == ["numpy"]
    assert found["numpy"][0].isdigit()


def test_markdown_table():
    assert markdown_table(["server", "rate"], [["a", "1.5"], ["longer name", "200.25"]]).splitlines() == [
        "| server      |   rate |",
        "| ----------- | -----: |",
        "| a           |    1.5 |",
        "| longer name | 200.25 |",
    ]
