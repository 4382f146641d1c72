"""Which servers a URL names, where load may go without being confirmed, and the options that all commands share."""

import ast
import pickle
import socket

import click
import psutil
import pytest
from click.testing import CliRunner

from loadtests.measure.__main__ import main as measure
from loadtests.soak.__main__ import main as soak
from loadtests.target import Target, TargetError, target_options


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://127.0.0.1:3000", ("http", "127.0.0.1", 3000, "", "127.0.0.1:3000")),
        ("http://localhost", ("http", "localhost", 80, "", "localhost")),
        ("https://localhost/", ("https", "localhost", 443, "", "localhost")),
        ("https://localhost:80/vision/", ("https", "localhost", 80, "/vision", "localhost:80")),
        ("http://127.0.0.2:81/a/b", ("http", "127.0.0.2", 81, "/a/b", "127.0.0.2:81")),
        ("grpc://127.0.0.1", ("grpc", "127.0.0.1", 8001, "", "127.0.0.1:8001")),
        ("grpcs://127.0.0.1:9000", ("grpcs", "127.0.0.1", 9000, "", "127.0.0.1:9000")),
        ("http://[::1]:3000", ("http", "::1", 3000, "", "[::1]:3000")),
    ],
)
def test_url(url, parts):
    target = Target.parse(url)
    assert (target.scheme, target.host, target.port, target.prefix, target.authority) == parts
    assert target.path("/v1/models") == f"{parts[3]}/v1/models"
    assert Target.parse(target.url) == target
    assert target.ip in ("127.0.0.1", "127.0.0.2", "::1")
    assert (target.ssl_context() is not None) == (target.scheme in ("https", "grpcs"))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("127.0.0.1:3000", "expected http://HOST:PORT"),
        ("", "expected http://HOST:PORT"),
        ("ftp://127.0.0.1", "expected http://HOST:PORT"),
        ("http://", "expected http://HOST:PORT"),
        ("http://127.0.0.1:many", "expected http://HOST:PORT"),
        ("http://127.0.0.1/v1?model=x", "expected http://HOST:PORT"),
        ("http://me:secret@127.0.0.1", "--api-key"),
        ("grpc://127.0.0.1:8001/vision", "no path prefix"),
        ("http://no-such-host.invalid", "has no address"),
        ("http://10.0.0.1:3000", "--remote"),
        ("https://192.0.2.7", "not this machine"),
        ("http://0.0.0.0", "--remote"),
    ],
)
def test_no_target(url, words):
    with pytest.raises(TargetError) as error:
        Target.parse(url)
    assert words in str(error.value)
    assert "secret" not in str(error.value)


def test_a_name_of_another_machine(monkeypatch):
    """All addresses of a name are looked at: it may have one of this machine and one of another."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 0)) for ip in ("127.0.0.1", "192.0.2.7")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(TargetError, match="--remote"):
        Target.parse("http://two.example")
    assert Target.parse("http://two.example", remote=True).ip == "127.0.0.1"


def test_this_machine_s_own_addresses():
    for each in psutil.net_if_addrs().values():
        for one in each:
            if one.family == socket.AF_INET:
                assert Target.parse(f"http://{one.address}:3000").ip == one.address


def test_the_key_is_sent_and_not_shown():
    target = Target.parse("http://127.0.0.1:3000", api_key=" sesame ")
    assert target.headers == {"Authorization": "Bearer sesame"}
    assert "sesame" not in f"{target} {target!r} {target.url}"
    assert pickle.loads(pickle.dumps(target)) == target
    with pytest.raises(TargetError, match="line breaks"):
        Target.parse("http://127.0.0.1:3000", api_key="two\r\nX-Lines: 1")


def show():
    @click.command()
    @target_options()
    @click.option("--clients", default=1)
    def command(target, clients):
        click.echo([target.url, target.headers, target.task, target.model, clients])

    return command


@pytest.mark.parametrize(
    ("arguments", "environment", "shown"),
    [
        ([], {}, ["http://127.0.0.1:3000", {}, "", "", 1]),
        (["--clients", "2", "--task", "detect", "--model", "m"], {}, ["http://127.0.0.1:3000", {}, "detect", "m", 2]),
        ([], {"ZOOSERVE_API_KEY": "a"}, ["http://127.0.0.1:3000", {"Authorization": "Bearer a"}, "", "", 1]),
        (["--url", "http://192.0.2.7:1", "--remote"], {}, ["http://192.0.2.7:1", {}, "", "", 1]),
    ],
)
def test_options(arguments, environment, shown):
    done = CliRunner().invoke(show(), arguments, env=environment)
    assert done.exit_code == 0, done.output
    assert ast.literal_eval(done.output) == shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--url", "http://192.0.2.7:1"], "confirm with --remote"),
        (["--url", "https://127.0.0.1", "--ca-file", "{file}"], "no certificates"),
        (["--task", "guess"], "classify|detect|segment"),
    ],
)
def test_wrong_options(arguments, words, tmp_path):
    (tmp_path / "file").write_text("nothing")
    done = CliRunner().invoke(show(), [word.format(file=tmp_path / "file") for word in arguments])
    assert done.exit_code == 2
    assert words in done.output.replace("', '", "|")


@pytest.mark.parametrize(
    ("command", "schemes", "task"),
    [
        (measure, "http, https, grpc or grpcs,", "the first that the server has"),
        (soak, "http or https,", "every one that the server has"),
    ],
    ids=["measure", "soak"],
)
def test_help_says_what_a_command_speaks_and_asks(command, schemes, task):
    said = {one.name: one.help for one in command.params}
    assert f"Of the server: {schemes} " in said["url"]
    assert said["task"] == f"[default: {task}]"
