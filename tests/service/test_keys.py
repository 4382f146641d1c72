"""Who may ask, who may load: keys from the environment and from a file, over HTTP and on their own."""

import os
from unittest.mock import Mock

import pytest

from service import keys
from service.errors import Reason, RequestError
from service.keys import Guard, Keys
from service.settings import SettingError
from tests.conftest import serving


@pytest.mark.parametrize(
    ("given", "headers", "known"),
    [
        ("one,two", {b"authorization": b"Bearer one"}, True),
        ("one,two", {b"authorization": b"bearer  two "}, True),
        ("one, two", {b"x-api-key": b"two"}, True),
        ("one", {b"authorization": b"Basic one"}, False),
        ("one", {b"authorization": b"Bearer a.gateway.token", b"x-api-key": b"one"}, True),
        ("one", {b"authorization": b"Bearer a.gateway.token", b"x-api-key": b"two"}, False),
        ("one", {b"x-api-key": b"on"}, False),
        ("one", {b"x-api-key": b""}, False),
        ("one", {b"authorization": b"Bearer"}, False),
        ("one", {}, False),
        ("", {b"x-api-key": b""}, False),
        ("clé", {b"x-api-key": "clé".encode()}, True),
    ],
)
def test_which_keys_are_known(given, headers, known):
    assert Keys(given).knows(headers) is known


@pytest.fixture
def key_file(tmp_path, monkeypatch):
    """A file of keys, and a function that makes `Keys` of it that look at it each time they are asked."""
    monkeypatch.setattr(keys, "_CHECK_EVERY", 0)
    path = tmp_path / "keys"

    def held(content: bytes) -> Keys:
        path.write_bytes(content)
        return Keys(f"@{path}")

    return path, held


def known(held: Keys, *asked: bytes) -> list[bytes]:
    return [key for key in asked if held.knows({b"x-api-key": key})]


@pytest.mark.parametrize(
    "content",
    [
        b"# the team's\nfirst\n\nsecond\n",
        b"\xef\xbb\xbffirst\n  # the team's\nsecond",
        b"\xef\xbb\xbf# the team's\r\nfirst\r\n\t# the team's\r\n  second  \r\n",
        b"first\rsecond\r\t #the team's",
    ],
    ids=["comment", "byte order mark", "Windows", "old Mac"],
)
def test_a_key_file_is_read_as_people_write_it(key_file, content):
    held = key_file[1](content)
    assert known(held, b"first", b"second") == [b"first", b"second"]
    assert not known(held, b"# the team's", b"#the team's", b"the team's", b"", b"\xef\xbb\xbffirst", b"first\r")


def test_a_key_file_is_read_again_when_it_changes(key_file):
    path, held = key_file[0], key_file[1](b"first\nsecond\n")
    path.write_bytes(b"first\nthirds\n")  # of the same size, perhaps at the same time
    assert known(held, b"first", b"second", b"thirds") == [b"first", b"thirds"]
    os.utime(path, ns=(1, 1))
    assert known(held, b"first")
    other = path.with_name("new")
    other.write_bytes(b"fourth\nfifths")
    os.utime(other, ns=(1, 1))
    other.replace(path)  # as Kubernetes does
    assert known(held, b"first", b"thirds", b"fourth") == [b"fourth"]


@pytest.mark.parametrize("content", [b"", b"\n", b"# first\n", b"\xef\xbb\xbf", None])
def test_a_key_file_without_keys_lets_nobody_in(key_file, caplog, content):
    path, held = key_file[0], key_file[1](b"first\n")
    guard = Guard(f"@{path}", f"@{path}")
    assert known(held, b"first")
    path.unlink() if content is None else path.write_bytes(content)
    for _ in range(3):
        assert not known(held, b"first", b"")
        for check, reason in ((guard.check, Reason.UNAUTHORISED), (guard.check_admin, Reason.UNAUTHORISED)):
            with pytest.raises(RequestError) as refusal:
                check({b"x-api-key": b"first"})
            assert refusal.value.reason is reason
    assert held
    assert not guard.open
    told = [record for record in caplog.records if "no request is admitted" in record.message]
    assert len(told) == 3, "each set of keys says it once"
    assert {record.levelname for record in told} == {"ERROR"}
    path.write_bytes(b"second\n")
    assert known(held, b"first", b"second") == [b"second"]
    guard.check_admin({b"x-api-key": b"second"})


@pytest.mark.parametrize("broken", ["folder", "fifo", "too large", "UTF-16", "unreadable"])
def test_a_key_file_that_cannot_be_read_changes_nothing(key_file, caplog, monkeypatch, broken):
    path, held = key_file[0], key_file[1](b"first\n")
    assert known(held, b"first")
    path.unlink()
    if broken == "folder":
        path.mkdir()
    elif broken == "fifo":
        os.mkfifo(path)
    else:
        path.write_bytes(
            {"too large": b"second\n" * 100_000, "UTF-16": "second".encode("utf-16")}.get(broken, b"second")
        )
    if broken == "unreadable":
        monkeypatch.setattr(keys, "open_regular", Mock(side_effect=PermissionError(13, "Permission denied")))
    assert known(held, b"first", b"second") == [b"first"]
    assert "the keys stay as they were" in caplog.text
    with pytest.raises(SettingError, match="cannot be used"):
        Keys(f"@{path}")
    monkeypatch.undo()
    monkeypatch.setattr(keys, "_CHECK_EVERY", 0)
    path.rmdir() if broken == "folder" else path.unlink()
    path.write_bytes(b"third")
    assert known(held, b"first", b"third") == [b"third"]


@pytest.mark.parametrize("given", [",", " , ,"])
def test_a_list_without_keys_is_refused(given):
    with pytest.raises(SettingError, match="hold no key"):
        Keys(given)


@pytest.mark.parametrize("content", [None, "", "# nothing\n"])
def test_a_key_file_must_hold_keys(tmp_path, content):
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingError, match="cannot be used" if content is None else "holds no key"):
        Keys(f"@{path}")


def test_an_administrator_may_do_all():
    guard = Guard("user", "admin-key")
    guard.check({b"x-api-key": b"admin-key"})
    guard.check_admin({b"x-api-key": b"admin-key"})
    for check, headers, reason in (
        (guard.check, {}, Reason.UNAUTHORISED),
        (guard.check_admin, {b"x-api-key": b"user"}, Reason.UNAUTHORISED),
        (Guard("user", "").check_admin, {b"x-api-key": b"user"}, Reason.FORBIDDEN),
        (Guard("", "").check_admin, {b"x-api-key": b""}, Reason.FORBIDDEN),
    ):
        with pytest.raises(RequestError) as refusal:
            check(headers)
        assert refusal.value.reason is reason


@pytest.fixture(scope="module")
def locked(models, tmp_path_factory):
    settings = {"ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_API_KEYS": "user", "ZOOSERVE_ADMIN_KEYS": "admin-key"}
    with serving(tmp_path_factory.mktemp("locked") / "log", ZOOSERVE_MODELS=str(models), **settings) as server:
        server.wait(200)
        yield server


@pytest.mark.parametrize(
    ("method", "path", "key", "status"),
    [
        ("GET", "/livez", "", 200),
        ("GET", "/readyz", "", 200),
        ("GET", "/metrics", "", 200),
        ("GET", "/v1/models", "", 401),
        ("GET", "/v1/models", "user", 200),
        ("GET", "/v1/models", "nobody", 401),
        ("POST", "/v1/classify", "", 401),
        ("POST", "/v1/classify", "nobody", 401),
        ("POST", "/v1/classify", "user", 400),
        ("POST", "/v1/classify", "admin-key", 400),
        ("POST", "/classify", "", 401),
        ("GET", "/", "", 307),
        ("GET", "/docs.json", "user", 200),
        ("POST", "/v1/models/reload", "", 401),
        ("POST", "/v1/models/reload", "user", 401),
        ("POST", "/v1/models/reload", "admin-key", 200),
        ("POST", "/v1/models/none/load", "admin-key", 404),
        ("POST", "/v1/models/none/unload", "admin-key", 404),
        ("GET", "/v1/models/lenet5/load", "admin-key", 405),
    ],
)
def test_every_route_asks_for_its_key(locked, method, path, key, status):
    response = locked.client.request(method, path, headers={"Authorization": f"Bearer {key}"} if key else {})
    assert response.status_code == status, response.text
    assert ("www-authenticate" in response.headers) == (status == 401)
    if status == 401:
        assert response.json()["reason"] == "unauthorised"


def test_keys_are_never_logged(locked):
    for key in ("admin-key", "user", "a-key-that-nobody-has"):
        for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}, {"Authorization": f"Basic {key}"}):
            for path in ("/v1/classify", "/v1/models/reload", "/v2/models/lenet5/infer", "/classify", "/none"):
                locked.client.post(path, content=b"x", headers=headers)
    log = locked.log.read_text()
    assert "a-key-that-nobody-has" not in log
    assert not {"admin-key", "user"} & set(log.split())


def test_reload_from_the_command_line(locked):
    from click.testing import CliRunner

    from service.commands.reload import reload

    def run(*arguments):
        return CliRunner().invoke(reload, ["--server", locked.url, *arguments])

    refused = run("lenet5")
    assert refused.exit_code == 1
    assert "key is needed" in refused.output
    assert run("lenet5", "--unload", "--key", "admin-key").output.split()[-3:] == ["lenet5", "1", "unloaded"]
    assert locked.client.get("/readyz").status_code == 200
    assert run("lenet5", "--key", "admin-key").output.split()[-3:] == ["lenet5", "1", "ready"]
    assert "no model `u3net`" in run("u3net", "--key", "admin-key").output
    nowhere = CliRunner().invoke(reload, ["--server", "http://127.0.0.1:9"])
    assert "cannot be reached" in nowhere.output


def test_without_an_administrator_nothing_is_loaded(server):
    response = server.client.post("/v1/models/lenet5/unload")
    assert response.status_code == 403
    assert "ZOOSERVE_ADMIN_KEYS" in response.json()["detail"]
