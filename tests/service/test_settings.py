"""Settings from the environment, and a request's options."""

import contextlib

import click
import pytest
from click.testing import CliRunner

from service.commands.serve import serve
from service.commands.settings_table import table
from service.errors import Reason, RequestError
from service.settings import PREFIX, SettingError, read_settings, refuse_unprotected, remarks
from service.tasks import options_of
from zoo.variables import is_service_link


def test_defaults_are_what_the_table_says():
    settings = read_settings({})
    for name, default, text, choices in table():
        set_again = read_settings({name: default} if default else {})
        assert set_again == settings
        assert text.endswith(".")
        assert choices


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("DEVICE", "auto | cpu | cuda | tensorrt"),
        ("ACCESS_LOG", "true | false"),
        ("WORKERS", "whole number, 1 to 64"),
        ("TIMEOUT_MS", "whole number, 1 to 3600000 ms"),
        ("RECEIVE_S", "0.01 to 3600 s"),
        ("MAX_BODY_MB", "0.001 to 1024 MB"),
        ("MODELS", "text"),
    ],
)
def test_help_shows_the_choices_of_every_setting(name, choices):
    row = next(row for row in table() if row.name == PREFIX + name)
    assert row.choices == choices
    shown = " ".join(CliRunner().invoke(serve, ["--help"], env={"COLUMNS": "120"}).output.split())
    assert f"[{choices}; default: {row.default or 'empty'}]" in shown


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("ZOOSERVE_DEVICE", "cpu", "device", "cpu"),
        ("ZOOSERVE_MAX_BATCH", "8", "max_batch", 8),
        ("ZOOSERVE_MAX_BODY_MB", "0.5", "max_body_mb", 0.5),
        ("ZOOSERVE_MAX_BODY_MB", ".5", "max_body_mb", 0.5),
        ("ZOOSERVE_MODELS", " elsewhere ", "models", "elsewhere"),
        ("ZOOSERVE_THREADS", "", "threads", 0),
    ],
)
def test_a_variable_sets_its_field(name, value, field, expected):
    assert getattr(read_settings({name: value}), field) == expected


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ZOOSERVE_DEVICE", "tpu", "one of"),
        ("ZOOSERVE_WORKERS", "0", "from 1 to 64"),
        ("ZOOSERVE_MAX_MEGAPIXELS", "nan", "from 0.001 to 1000"),
        ("ZOOSERVE_TIMEOUT_MS", "soon", "whole number"),
    ],
)
def test_a_wrong_variable_is_named_with_its_range(name, value, message):
    with pytest.raises(SettingError, match=f"{name}={value}.*{message}"):
        read_settings({name: value})


# All that Kubernetes sets for the Services `zooserve` and `zooserve-grpc`.
LINKS = {
    "ZOOSERVE_SERVICE_HOST": "10.0.0.2",
    "ZOOSERVE_SERVICE_PORT": "80",
    "ZOOSERVE_SERVICE_PORT_HTTP": "80",
    "ZOOSERVE_PORT": "tcp://10.0.0.2:80",
    "ZOOSERVE_PORT_80_TCP": "tcp://10.0.0.2:80",
    "ZOOSERVE_GRPC_SERVICE_HOST": "fd00::1",
    "ZOOSERVE_GRPC_PORT": "tcp://[fd00::1]:8001",
    "ZOOSERVE_GRPC_PORT_8001_TCP_PROTO": "tcp",
    "ZOOSERVE_GRPC_PORT_8001_TCP_PORT": "8001",
    "ZOOSERVE_GRPC_PORT_8001_TCP_ADDR": "fd00::1",
    "ZOOSERVE_GRPC_PORT_8001_UDP": "udp://[fd00::1]:8001",
    "PORT": "tcp://10.0.0.3:80",
}


@pytest.mark.parametrize(("name", "value"), LINKS.items())
def test_what_kubernetes_sets_for_a_service_is_no_setting_and_said(name, value):
    assert is_service_link(name, value)
    assert read_settings({name: value}) == read_settings({})
    (line,) = remarks({name: value})
    assert name in line
    assert "enableServiceLinks: false" in line


@pytest.mark.parametrize(("value", "port"), [("tcp://10.0.0.3:80", 3000), ("8080", 8080), ("", 3000)])
def test_the_port_is_no_link_either(monkeypatch, value, port):
    monkeypatch.setenv("PORT", value)
    assert serve.make_context("serve", []).params["port"] == port


def test_a_wrong_port_is_named(monkeypatch):
    monkeypatch.setenv("PORT", "30000000")
    with pytest.raises(click.BadParameter, match="30000000"):
        serve.make_context("serve", [])


def test_all_links_have_one_line():
    assert len(remarks(LINKS)) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ZOOSERVE_GRPC_PORT", "tcp://10.0.0.1"),
        ("ZOOSERVE_GRPC_PORT", "800l"),
        ("ZOOSERVE_TIMEOUT_MS", "tcp://10.0.0.1:8001"),
    ],
)
def test_a_typo_stays_an_error(name, value):
    with pytest.raises(SettingError, match=f"{name}={value}"):
        read_settings({name: value})


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("ZOOSERVE_WORKER", "ZOOSERVE_WORKERS"),
        ("ZOOSERVE_MAX_BODY", "ZOOSERVE_MAX_BODY_MB"),
        ("ZOOSERVE_TIMEOUT", "ZOOSERVE_TIMEOUT_MS"),
        ("ZOOSERVE_LOG_FORMAT", "ZOOSERVE_LOG"),
        ("ZOOSERVE_PORT", "PORT"),
        ("ZOOSERV_WORKERS", "ZOOSERVE_WORKERS"),
        ("zooserve_max_queue", "ZOOSERVE_MAX_QUEUE"),
        ("ZOOSERVE_PREDICTOR_NAME", None),
    ],
)
def test_a_variable_that_nothing_reads_is_named_with_the_nearest_setting(name, near):
    meant = f"Is {near} meant?" if near else "`zooserve serve --help` lists all settings."
    assert remarks({name: "1"}) == [f"{name} is ignored: there is no such setting. {meant}"]
    refuse_unprotected({name: "1"})


@pytest.mark.parametrize(
    ("name", "value"),
    [("ZOOSERVE_API_KEY", "1"), ("ZOOSERVE_LOG", "json"), ("ZOOSERVE_APIKEYS", " "), ("ZOO", "1"), *LINKS.items()],
)
def test_what_is_read_elsewhere_or_empty_or_of_others_is_not_named(name, value):
    assert not [line for line in remarks({name: value}) if "no such setting" in line]
    refuse_unprotected({name: value})


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("ZOOSERVE_APIKEYS", "ZOOSERVE_API_KEYS"),
        ("ZOOSERVE_API_KESY", "ZOOSERVE_API_KEYS"),
        ("ZOOSERVE_KEYS", "ZOOSERVE_API_KEYS"),
        ("ZOOSERVE_ADMINKEYS", "ZOOSERVE_ADMIN_KEYS"),
        ("ZOOSERVE_TLS_CERT", "ZOOSERVE_TLS_CERTIFICATE"),
        ("ZOOSERVE_CERTIFICATE", "ZOOSERVE_TLS_CERTIFICATE"),
        ("ZOOSERV_API_KEYS", "ZOOSERVE_API_KEYS"),
        ("zooserve.api-keys", "ZOOSERVE_API_KEYS"),
        ("ZOOSERVE_AUTH_TOKEN", None),
        ("ZOOSERVE_SECRET", None),
    ],
)
def test_what_looks_like_a_key_or_tls_and_is_not_read_ends_the_start(name, near):
    with pytest.raises(SettingError) as refused:
        refuse_unprotected({name: "hidden value"})
    assert (f"{name}: is {near} meant?" if near else f"{name} ") in str(refused.value)
    assert "hidden value" not in str(refused.value)


@pytest.mark.parametrize(("by_others", "keys", "refused"), [(True, "", True), (False, "", False), (True, "a", False)])
def test_the_key_that_clients_send_does_not_protect_a_server_that_others_reach(by_others, keys, refused):
    environment = {"ZOOSERVE_API_KEY": "sesame", "ZOOSERVE_API_KEYS": keys}
    expected = pytest.raises(SettingError, match="ZOOSERVE_API_KEY: is ZOOSERVE_API_KEYS meant")
    with expected if refused else contextlib.nullcontext():
        refuse_unprotected(environment, reached_by_others=by_others)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("classify", {"top_k": "-1"}, "`top_k=-1`: expected a whole number from 1 to 1000."),
        ("classify", {"top_k": "3.5"}, "`top_k=3.5`: expected a whole number from 1 to 1000."),
        ("classify", {"topk": "3"}, "There is no option `topk` here. The options are `top_k`, `localize`, `heatmap`."),
        ("detect", {"score_threshold": "nan"}, "`score_threshold=nan`: expected a number from 0 to 1."),
        ("detect", {"iou_threshold": "inf"}, "`iou_threshold=inf`: expected a number from 0 to 1."),
        ("detect", {"max_detections": "1" + "0" * 40}, "expected a whole number from 1 to 1000."),
        ("segment", {"mask": "gif"}, "`mask=gif`: expected one of"),
    ],
)
def test_a_wrong_option_is_named_with_its_range(task, options, message):
    with pytest.raises(RequestError) as refused:
        options_of(task, options)
    assert refused.value.reason is Reason.BAD_OPTION
    assert message in refused.value.detail


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (".5", 0.5),
        ("1.", 1.0),
        ("+1", 1.0),
        (" .5", 0.5),
        ("5e-1", 0.5),
        ("-0", 0.0),
        ("0.5", 0.5),
        (0.5, 0.5),
        (1, 1.0),
    ],
)
def test_a_number_may_be_written_in_any_usual_form(text, number):
    """A plus sign in a query arrives as a space."""
    assert options_of("detect", {"score_threshold": text}).score_threshold == number


@pytest.mark.parametrize(
    "text", ["nan", "inf", "0x1", "0_1", "1_0", ".", "", "+", "--1", "0,5", "\u0661", "1e400", ". 5"]
)
def test_what_is_no_number_is_refused_as_it_was_written(text):
    with pytest.raises(RequestError) as refused:
        options_of("detect", {"score_threshold": text})
    assert refused.value.detail == f"`score_threshold={text}`: expected a number from 0 to 1."
