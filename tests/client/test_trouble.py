"""Servers that are full, slow, gone or no zooserve: what is tried again, for how long, and what is said in the end."""

import contextlib
import io
import re
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import httpx
import psutil
import pytest
from PIL import Image
from zooserve_client import AsyncClient, Client, DeadlineError, UnreachableError, ZooserveError
from zooserve_client.call import Attempts, _milliseconds

from tests.client.conftest import Asked
from tests.conftest import free_port, serving


@pytest.fixture
def digit(models):
    return (models / "lenet5/1/golden/digit_7.png").read_bytes()


def noise(side: int) -> bytes:
    """An image that takes its time."""
    out = io.BytesIO()
    Image.effect_noise((side, side), 80).save(out, "PNG", compress_level=1)
    return out.getvalue()


@contextlib.contextmanager
def answering(*chunks: bytes, every: float = 0.0):
    """A listener that sends the same bytes to whoever connects, piece by piece, and keeps the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connections = []
        done = threading.Event()

        def send(connection):
            with contextlib.suppress(OSError):
                connection.recv(65536)
                for chunk in chunks:
                    connection.sendall(chunk)
                    done.wait(every)

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    connections.append(listener.accept()[0])
                    threading.Thread(target=send, args=(connections[-1],)).start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", connections
        done.set()
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()
        for connection in connections:
            connection.close()


def test_a_full_queue_is_retried_after_retry_after(models, tmp_path, digit):
    settings = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_MAX_QUEUE": "1"}
    large, over = noise(3000), threading.Event()
    statuses = []
    with serving(tmp_path / "log", **settings) as full:
        full.wait(200)

        def occupy():
            with httpx.Client(timeout=60, trust_env=False) as other:
                while not over.is_set():
                    other.post(f"{full.url}/v1/classify", content=large)

        others = [threading.Thread(target=occupy) for _ in range(3)]
        for other in others:
            other.start()
        try:
            with Client(full.url, retries=0) as asked:
                refused = until_refused(asked, digit)
            assert (refused.status, refused.reason) == (429, "queue_full")
            assert refused.retry_after >= 1
            threading.Timer(1.5, over.set).start()
            note = {"response": [lambda response: statuses.append((time.monotonic(), response.status_code))]}
            while 429 not in [status for _, status in statuses]:
                statuses.clear()
                assert not over.is_set()
                with httpx.Client(event_hooks=note) as http:
                    assert Client(full.url, http=http, deadline=60, retries=30).classify(digit).labels[0] == "7"
        finally:
            over.set()
            for other in others:
                other.join()
    assert statuses[-1][1] == 200
    pauses = [after - before for (before, _), (after, _) in pairwise(statuses)]
    assert min(pauses) >= 1


def until_refused(asked: Client, image: bytes) -> ZooserveError:
    for _ in range(200):
        try:
            asked.classify(image)
        except ZooserveError as error:
            return error
    pytest.fail("the queue was never full")


def test_calls_survive_a_restart_of_the_server(models, tmp_path, digit):
    settings = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "lenet5"}
    outcomes = {Client: [], AsyncClient: []}
    with serving(tmp_path / "first", **settings) as first:
        first.wait(200)
        port = int(first.url.rpartition(":")[2])

        def ask(kind):
            images = (digit for _ in range(400))
            asked = Asked(kind, first.url, deadline=100, retries=100)
            outcomes[kind] = asked.predict_many("classify", images, concurrency=2, top_k=1)

        asking = [threading.Thread(target=ask, args=(kind,)) for kind in outcomes]
        for each in asking:
            each.start()
        time.sleep(0.3)
        for process in [first.process, *psutil.Process(first.process.pid).children(recursive=True)]:
            process.kill()
            process.wait()
    with pytest.raises(UnreachableError):
        Client(first.url, retries=1).classify(digit)
    assert all(each.is_alive() for each in asking)
    with serving(tmp_path / "second", port=port, **settings):
        for each in asking:
            each.join(100)
    for answers in outcomes.values():
        assert [getattr(outcome, "labels", outcome) for outcome in answers] == [["7"]] * 400


def test_an_error_does_not_show_the_password_of_an_address(digit):
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(UnreachableError, match=re.escape(f"http://{address}: ")) as raised:
        Client(f"http://me:secret@{address}", retries=0).classify(digit)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("chunks", "every"),
    [((), 0), ((b"HTTP/1.1 200 OK\r\n",), 0), ((b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", *[b"{"] * 98), 0.1)],
    ids=["silent", "half a head", "a byte at a time"],
)
def test_the_deadline_ends_every_wait(client, digit, chunks, every):
    with answering(*chunks, every=every) as (url, _):
        start = time.monotonic()
        with pytest.raises(DeadlineError, match=r"no answer within 0\.5 s") as late:
            client(url, deadline=30).classify(digit, deadline=0.5)
        assert 0.5 <= time.monotonic() - start < 10
        assert (late.value.status, late.value.reason) == (None, "deadline")


def test_the_deadline_is_sent_to_the_server(client, server):
    with pytest.raises(DeadlineError):
        client(server.url).classify(noise(5000), deadline=0.03)


def answers(*responses: httpx.Response):
    """A transport that gives these answers in turn, and the requests that it got."""
    left, requests = list(responses), []

    def answer(request):
        requests.append(request)
        return left.pop(0)

    return httpx.MockTransport(answer), requests


GOOD = {"model": "m", "version": "1", "task": "classify", "image": {"width": 1, "height": 1}, "predictions": []}


@pytest.mark.parametrize("status", [429, 502, 503])
def test_retried_statuses_and_the_headers_of_retries(status):
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)
    transport, requests = answers(
        httpx.Response(status, headers={"retry-after": "0"}),
        httpx.Response(status, headers={"retry-after": soon}),
        httpx.Response(status, headers={"retry-after": "nonsense"}),
        httpx.Response(200, json=GOOD),
    )
    with httpx.Client(transport=transport) as http:
        Client("http://x", http=http, deadline=20, api_key="k").classify(b"x", top_k=3, localize=True, model="m")
    told = [int(request.headers["x-request-timeout-ms"]) for request in requests]
    assert 20_000 >= told[0] >= told[1] > told[2] > told[3] > 17_000
    assert requests[0].headers["authorization"] == "Bearer k"
    assert str(requests[0].url) == "http://x/v1/classify?model=m&top_k=3&localize=true"


@pytest.mark.parametrize("status", [400, 404, 413, 422, 500, 504])
def test_other_statuses_are_not_retried(status):
    transport, requests = answers(httpx.Response(status, text="no"))
    with httpx.Client(transport=transport) as http, pytest.raises(ZooserveError, match="no") as refused:
        Client("http://x", http=http).classify(b"x")
    assert (len(requests), refused.value.status, refused.value.reason) == (1, status, "")
    assert isinstance(refused.value, DeadlineError) == (status == 504)


def test_retries_end_and_never_sleep_past_the_deadline():
    busy = [httpx.Response(503, headers={"retry-after": "0"}) for _ in range(4)]
    transport, requests = answers(*busy)
    with httpx.Client(transport=transport) as http, pytest.raises(ZooserveError, match="503"):
        Client("http://x", http=http, retries=3).classify(b"x")
    assert len(requests) == 4
    transport, requests = answers(httpx.Response(503, headers={"retry-after": "7"}))
    start = time.monotonic()
    with httpx.Client(transport=transport) as http, pytest.raises(ZooserveError, match="503") as refused:
        Client("http://x", http=http, deadline=5).classify(b"x")
    assert time.monotonic() - start < 5  # the seven that the server asks for are not waited
    assert refused.value.retry_after == 7


def test_pauses_grow_and_differ():
    attempts = [Attempts(1000, 20) for _ in range(50)]
    for longest in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5):
        pauses = [each.pause(UnreachableError("gone")) for each in attempts]
        assert longest / 2 <= min(pauses) < max(pauses) <= longest
        assert len(set(pauses)) > 10


@pytest.mark.parametrize("body", ["<html>hello</html>", "[]", '{"model": "m"}', "null"])
def test_an_answer_that_is_not_zooserves_is_an_error(client, body):
    reply = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
    with answering(reply) as (url, _), pytest.raises(ZooserveError, match="is the server zooserve"):
        client(url).classify(b"x")


@pytest.mark.parametrize("url", ["localhost:3000", "ftp://x", "http://", "http:///x", "http://x:abc", "http://[::1"])
def test_an_invalid_url_is_an_error(url):
    with pytest.raises(ValueError, match="expected http://HOST:PORT"):
        Client(url)
    with pytest.raises(ValueError, match="url=") as refused:
        Client(url.replace("//", "//me:secret@"))
    assert "secret" not in str(refused.value)


def test_blanks_around_a_url_and_capitals_in_it_do_not_matter(client, server):
    """A file's line ends with a break."""
    assert client(f" {server.url}\n".replace("http", "HTTP")).ready()


@pytest.mark.parametrize("deadline", [0, -1, float("nan")])
def test_a_deadline_must_be_above_zero(client, deadline):
    with pytest.raises(ValueError, match="above 0"):
        client("http://127.0.0.1:1").classify(b"x", deadline=deadline)


def test_connections_are_reused(models, digit):
    reply = b"HTTP/1.1 503 Busy\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n"
    with answering(reply, reply, reply, every=0.2) as (url, connections):
        with Client(url, retries=2) as asked, pytest.raises(ZooserveError, match="503"):
            asked.classify(digit)
        assert len(connections) == 1


def test_an_http_client_that_was_passed_in_stays_open(server, digit):
    with httpx.Client() as http:
        with Client(server.url, http=http) as asked:
            asked.classify(digit, model="lenet5")
        assert not http.is_closed


def test_an_async_call_can_be_cancelled(server):
    import asyncio

    async def ask():
        with answering() as (url, _):
            async with AsyncClient(url) as asked:
                outcomes = asked.predict_many("classify", [b"x"] * 100, concurrency=4)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.3):
                        await anext(outcomes)
                await outcomes.aclose()
        return len(asyncio.all_tasks())

    assert asyncio.run(ask()) == 1


@pytest.mark.parametrize(
    ("header", "stages"),
    [
        ("queue;dur=0.5, infer;dur=12", {"queue": 0.5, "infer": 12.0}),
        ('edge;dur=3;desc="HIT", infer;dur=12', {"edge": 3.0, "infer": 12.0}),
        ('cdn-cache; desc=HIT, edge; dur="1.5", x;dur=, y;dur=soon, infer;desc=a;dur=2', {"edge": 1.5, "infer": 2.0}),
        ("", {}),
    ],
)
def test_stages_of_a_proxy_do_no_harm(header, stages):
    assert _milliseconds(header) == stages
