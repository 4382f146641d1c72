"""Heads of requests, byte by byte: what two servers could read differently is refused, and heads have limits."""

import json

import pytest

from service.http.server.connections import MAX_PIPELINED
from service.http.server.heads import MAX_FIELDS, MAX_HEADERS
from tests.service.http.conftest import status_of

END = b"connection: close\r\n\r\n"
GET = b"GET /livez HTTP/1.1\r\nhost: x\r\n"
POST = b"POST /v1/classify HTTP/1.1\r\nhost: x\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (GET + END, 200),
        (b"GET /livez HTTP/1.1\r\n" + END, 400),
        (b"GET /livez HTTP/1.1\r\nhost: x\r\nHOST: x\r\n" + END, 400),
        (b"GET http://x/livez HTTP/1.1\r\n" + END, 400),
        (b"GET http://y/livez HTTP/1.1\r\nhost: x\r\n" + END, 200),
        (b"GET http://y/livez HTTP/1.1\r\nhost: x\r\nhost: y\r\n" + END, 400),
        (b"GET http://y HTTP/1.1\r\nhost: x\r\n" + END, 307),
        (b"GET http://y?a=b HTTP/1.1\r\nhost: x\r\n" + END, 307),
        (b"GET /livez HTTP/1.0\r\n\r\n", 200),
        (b"GET /livez HTTP/1.0\r\nhost: x\r\n\r\n", 200),
        (b"GET /livez HTTP/1.0\r\nhost: x\r\nhost: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nhost:\r\n" + END, 200),
        (b"GET /livez HTTP/1.1\r\nhost: a b\r\n" + END, 400),
        (b"GET /livez HTTP/1.1\r\nhost: x/y\r\n" + END, 400),
        (b"GET /livez HTTP/1.1\r\nhost: user@x\r\n" + END, 400),
        (b"GET /livez HTTP/1.1\r\nhost: [::1]:3000\r\n" + END, 200),
        (b"GET /livez HTTP/2.0\r\nhost: x\r\n" + END, 505),
        (b"GET /livez HTTP/1.9\r\nhost: x\r\n" + END, 400),
        (b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n" + END, 405),
    ],
)
def test_a_request_needs_exactly_one_valid_host(wire, request_, status):
    answer = wire.ask(request_)
    assert status_of(answer) == status, answer
    if status in (400, 405, 505):
        head, _, body = answer.partition(b"\r\n\r\n")
        assert json.loads(body)["reason"] == "bad_request"
        assert b"connection: close" in head


@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize("path", [b"/classify/", b"/pipeline/", b"/livez/", b"/v1/classify/", b"/v2/", b"/docs/"])
def test_no_path_leads_to_an_address_that_the_client_has_named(wire, method, path):
    """Behind a proxy that ends TLS, it would lead from `https` to `http`, and take the key along."""
    answer = wire.ask(method + b" " + path + b" HTTP/1.1\r\nhost: elsewhere\r\n" + END)
    assert status_of(answer) == 404
    assert b"elsewhere" not in answer


SMUGGLED = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + END


@pytest.mark.parametrize(
    "framing",
    [
        b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc",
        b"content-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        b"content-length: 3, 3\r\n\r\nabc",
        b"content-length: +3\r\n\r\nabc",
        b"content-length: -1\r\n\r\n",
        b"content-length: 0x3\r\n\r\nabc",
        b"content-length: 99999999999999999999\r\n\r\nabc",
        b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
        b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"transfer-encoding: gzip\r\n\r\n0\r\n\r\n",
        b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"transfer-encoding\t: chunked\r\n\r\n0\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\n3;a\nb\r\nabc\r\n0\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        b"x: a\r\n b\r\ncontent-length: 3\r\n\r\nabc",
        b"x : a\r\ncontent-length: 3\r\n\r\nabc",
        b"x: a\0b\r\ncontent-length: 3\r\n\r\nabc",
        b"x: a\nb: c\r\ncontent-length: 3\r\n\r\nabc",
    ],
)
def test_request_smuggling_is_refused(wire, framing):
    answer = wire.ask(POST + framing + SMUGGLED)
    assert status_of(answer) in (400, 501), answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"lenet5" not in answer


def test_a_trailer_is_not_a_header(wire, digit):
    body = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(digit), digit)
    answer = wire.ask(POST + b"connection: close\r\nx-request-id: mine\r\n" + body + b"x-request-id: other\r\n\r\n")
    assert status_of(answer) == 200, answer
    assert b"x-request-id: mine" in answer
    assert b"x-request-id: other" not in answer


LONG = b"a" * MAX_HEADERS
CHUNKS = b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (GET + b"x: " + LONG[:60_000] + b"\r\n" + END, 200),
        (GET + b"x: " + LONG + b"\r\n" + END, 431),
        (GET + b"x: " + LONG + LONG[:40_000] + b"\r\n" + END, 431),
        (GET + LONG + b": x\r\n" + END, 431),
        (GET + b"x: %b\r\n" % LONG[:1000] * 70 + END, 431),
        (GET + b"x:\r\n" * (MAX_FIELDS - 3) + END, 200),
        (GET + b"x:\r\n" * MAX_FIELDS + END, 431),
        (GET + b"x:\r\n" * 50_000 + END, 431),
        (b"GET /livez?" + LONG[:60_000] + b" HTTP/1.1\r\nhost: x\r\n" + END, 200),
        (b"GET /livez?" + LONG + b" HTTP/1.1\r\nhost: x\r\n" + END, 414),
        (b"GET /" + LONG * 2 + b" HTTP/1.1\r\nhost: x\r\n" + END, 414),
        (POST + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: " + LONG + b"\r\n\r\n", 431),
        (
            POST
            + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
            + b"x:\r\n" * 300
            + b"\r\n",
            431,
        ),
    ],
)
@pytest.mark.parametrize("cut", [0, 1000, 65536])
def test_too_large_heads_are_refused(wire, request_, status, cut):
    pieces = [request_[at : at + cut] for at in range(0, len(request_), cut)] if cut else [request_]
    answer = wire.ask(*pieces)
    if status == 200 or answer:  # what was still on its way may have reset the connection
        assert status_of(answer) == status or (status == 414 and status_of(answer) == 431), answer[:300]


@pytest.mark.parametrize("offer", [b"", b"connection: upgrade\r\nupgrade: h2c\r\n"], ids=["plain", "upgrade"])
@pytest.mark.parametrize("cut", [100_000, 60_000, 1000])
def test_a_pipelined_head_has_the_same_limit(wire, cut, offer):
    second = b"GET /livez HTTP/1.1\r\nhost: x\r\n" + offer + b"x: " + LONG + LONG[:20_000] + b"\r\n\r\n"
    request_ = GET + b"\r\n" + second
    answer = wire.ask(*[request_[at : at + cut] for at in range(0, len(request_), cut)])
    if answer:  # what was still on its way may have reset the connection
        assert status_of(answer) == 200
        assert answer.count(b"HTTP/1.1 200") == 1
        assert b"HTTP/1.1 431" in answer


@pytest.mark.parametrize(
    ("query", "status"),
    [
        (b"&" * 60_000, 422),
        (b"a&" * 30_000, 422),
        (b"top_k=1&" * 64, 422),
        (b"top_k=1&" * 60 + b"top_k=2", 200),
        (b"%", 422),
        (b"x" * 60_000, 422),
        (b"top_k=" + b"9" * 50_000, 422),
    ],
)
def test_a_query_with_too_many_options_is_refused(wire, digit, query, status):
    head = b"POST /v1/classify?" + query + b" HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n" % len(digit) + END
    answer = wire.ask(head + digit)
    assert status_of(answer) == status, answer
    assert len(answer) < 2000


def test_pipelined_requests_are_answered_in_order_up_to_a_limit(wire):
    few = wire.ask(GET + b"\r\n" + (GET + b"\r\n") * 10 + GET + END)
    assert few.count(b"HTTP/1.1 200 ") == 12
    many = wire.ask((GET + b"\r\n") * 5000 + GET + END)
    assert many.count(b"HTTP/1.1 200 ") <= MAX_PIPELINED + 1
    assert many.count(b"HTTP/1.1 400 ") <= 1
    assert not many.rpartition(b"HTTP/1.1 400 ")[2].count(b"HTTP/1.1 200"), "the refusal comes last"


def test_earlier_answers_are_sent_before_a_refusal(wire, digit):
    whole = POST + b"content-length: %d\r\n\r\n" % len(digit) + digit
    answer = wire.ask(whole + b"GET /livez HTTP/1.1\r\n\r\n")
    assert status_of(answer) == 200
    assert b"predictions" in answer
    assert answer.index(b"HTTP/1.1 400 ") > answer.index(b"predictions")
