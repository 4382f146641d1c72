"""Everything that can be wrong with a request, posted to the running service.

It answers with the right status and with a message that helps, and still answers afterwards.
"""

import base64
import json
import socket
import struct
import time
import zlib

import httpx
import pytest


def bomb(width: int = 50_000, height: int = 50_000) -> bytes:
    """A PNG of a few hundred bytes whose header promises 2.5 gigapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.fixture(scope="module")
def jpeg(photo):
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.open(io.BytesIO(photo("coffee"))).convert("RGB").save(out, "JPEG", quality=90)
    return out.getvalue()


IMAGE = {"content-type": "image/jpeg"}
JSON = {"content-type": "application/json"}
CASES = {
    "zero bytes": (lambda jpeg: dict(content=b"", headers=IMAGE), "/v1/classify", 400, "no bytes"),
    "truncated": (lambda jpeg: dict(content=jpeg[: len(jpeg) // 2], headers=IMAGE), "/v1/classify", 400, ""),
    "header only": (lambda jpeg: dict(content=jpeg[:20], headers=IMAGE), "/v1/detect", 400, ""),
    "text as jpeg": (lambda jpeg: dict(content=b"hello, world" * 9, headers=IMAGE), "/v1/classify", 415, ""),
    "text as text": (
        lambda jpeg: dict(content=b"hello", headers={"content-type": "text/plain"}),
        "/v1/classify",
        415,
        "text/plain",
    ),
    "bomb": (lambda jpeg: dict(content=bomb(), headers={"content-type": "image/png"}), "/v1/segment", 413, "50000"),
    "unknown model": (lambda jpeg: dict(content=jpeg, headers=IMAGE), "/v1/classify?model=vgg99", 404, "vgg99"),
    "another task's model": (
        lambda jpeg: dict(content=jpeg, headers=IMAGE),
        "/v1/classify?model=yolov4_tiny",
        422,
        "/v1/detect",
    ),
    "unknown version": (lambda jpeg: dict(content=jpeg, headers=IMAGE), "/v1/classify?version=9", 404, "version 1"),
    "top_k": (lambda jpeg: dict(content=jpeg, headers=IMAGE), "/v1/classify?top_k=-1", 422, "from 1 to 1000"),
    "nan": (lambda jpeg: dict(content=jpeg, headers=IMAGE), "/v1/detect?score_threshold=nan", 422, "from 0 to 1"),
    "mask": (lambda jpeg: dict(content=jpeg, headers=IMAGE), "/v1/segment?mask=bmp", 422, "polygon"),
    "unknown option": (lambda jpeg: dict(content=jpeg, headers=IMAGE), "/v1/classify?k=3", 422, "`top_k`"),
    "timeout": (
        lambda jpeg: dict(content=jpeg, headers=IMAGE | {"x-request-timeout-ms": "-3"}),
        "/v1/classify",
        422,
        "above 0",
    ),
    "timeout with a line": (
        lambda jpeg: dict(content=jpeg, headers=IMAGE | {"x-request-timeout-ms": "1_000"}),
        "/v1/classify",
        422,
        "1_000",
    ),
    "timeout without end": (
        lambda jpeg: dict(content=jpeg, headers=IMAGE | {"x-request-timeout-ms": "1e400"}),
        "/v1/classify",
        422,
        "1e400",
    ),
    "not json": (lambda jpeg: dict(content=b"{images:", headers=JSON), "/v1/classify", 400, "JSON"),
    "json of another form": (lambda jpeg: dict(content=b'{"image": "x"}', headers=JSON), "/v1/classify", 400, "images"),
    "json without images": (lambda jpeg: dict(content=b'{"images": []}', headers=JSON), "/v1/classify", 400, "empty"),
    "not base64": (lambda jpeg: dict(content=b'{"images": ["?!"]}', headers=JSON), "/v1/classify", 400, "images[0]"),
    "deep json": (
        lambda jpeg: dict(content=b'{"x":' + b"[" * 8000 + b"]" * 8000 + b"}", headers=JSON),
        "/v1/classify",
        400,
        "JSON",
    ),
    "json of many": (
        lambda jpeg: dict(content=b'{"images":[' + b'"",' * 99_999 + b'""]}', headers=JSON),
        "/v1/classify",
        413,
        "apart from the images",
    ),
    "options in json": (
        lambda jpeg: dict(content=b'{"images": [""], "top_k": 3}', headers=JSON),
        "/v1/classify",
        422,
        "`?top_k=...`",
    ),
    "an image as json": (lambda jpeg: dict(content=jpeg, headers=JSON), "/v1/classify", 400, "sent as image/jpeg"),
    "options in a form": (
        lambda jpeg: dict(files={"image": jpeg}, data={"model": "lenet5"}),
        "/v1/classify",
        422,
        "`?model=...`",
    ),
    "gzip": (
        lambda jpeg: dict(content=jpeg, headers=IMAGE | {"content-encoding": "gzip"}),
        "/v1/classify",
        415,
        "gzip",
    ),
    "multipart without image": (lambda jpeg: dict(files={"photo": jpeg}), "/v1/classify", 400, "`image`"),
    "multipart that is none": (
        lambda jpeg: dict(content=b"nothing", headers={"content-type": "multipart/form-data"}),
        "/v1/classify",
        400,
        "",
    ),
    "too many": (lambda jpeg: dict(files=[("image", b"x")] * 40), "/v1/classify", 413, "32"),
    "get": (None, "/v1/classify", 405, "use POST"),
    "unknown path": (lambda jpeg: dict(content=b""), "/v1/nothing", 404, "/v1/nothing"),
    "a slash too many": (None, "/v1/models/", 404, "/v1/models lists"),
}


@pytest.mark.parametrize("case", CASES)
def test_invalid_requests_get_a_problem_and_the_server_keeps_answering(server, jpeg, case):
    request, path, status, message = CASES[case]
    response = server.client.post(path, **request(jpeg)) if request else server.client.get(path)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert message in body["detail"]
    assert len(response.content) < 1000
    assert (
        server.client.post("/v1/classify", content=jpeg, headers=IMAGE).json()["predictions"][0]["label"] == "espresso"
    )


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_of_100_mb_is_refused_without_being_kept(server, jpeg, declared):
    server.client.post("/v1/classify", content=jpeg, headers=IMAGE)
    before = server.resident()
    block = bytes(1_000_000)
    content = block * 100 if declared else (block for _ in range(100))
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        try:
            response = client.post("/v1/classify", content=content, headers=IMAGE)
            assert response.status_code == 413
            assert "limit" in response.json()["detail"]
        except httpx.WriteError:  # the connection was closed while we still sent, which HTTP allows
            pass
    assert server.resident() - before < 64e6
    assert server.client.post("/v1/classify", content=jpeg, headers=IMAGE).status_code == 200


def test_the_size_limit_applies_to_bentoml_endpoints(server):
    """Chunked, so that no length is declared."""
    part = b'--x\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\n'
    body = (part if index == 0 else bytes(1_000_000) for index in range(40))
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        response = client.post("/classify", content=body, headers={"content-type": "multipart/form-data; boundary=x"})
    assert response.status_code == 413, response.text


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1)])
@pytest.mark.parametrize("task", ["classify", "detect", "segment"])
def test_images_of_extreme_sizes_are_answered(server, task, size):
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(out, "PNG")
    response = server.client.post(f"/v1/{task}", content=out.getvalue(), headers={"content-type": "image/png"})
    assert response.status_code == 200, response.text
    assert response.json()["image"] == {"width": size[0], "height": size[1]}


@pytest.mark.parametrize("sent", [0.0, 0.5, 1.0], ids=["headers only", "half the body", "the whole body"])
def test_a_client_that_hangs_up_does_not_affect_others(server, jpeg, sent):
    host, port = server.url.removeprefix("http://").split(":")
    for _ in range(20):
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /v1/segment HTTP/1.1\r\nHost: x\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            connection.sendall(head.encode() + jpeg[: int(sent * len(jpeg))])
            # closed without reading an answer
    assert server.client.post("/v1/classify", content=jpeg, headers=IMAGE).status_code == 200
    end = time.monotonic() + 20
    while True:  # nothing is left under way
        depths = [
            float(line.rsplit(" ", 1)[1])
            for line in server.client.get("/metrics").text.splitlines()
            if line.startswith("zooserve_queue_depth{")
        ]
        if depths and not any(depths):
            break
        assert time.monotonic() < end
        time.sleep(0.1)


def test_an_invalid_image_among_several_is_replaced_by_its_error(server, jpeg):
    good = base64.b64encode(jpeg).decode()
    broken = base64.b64encode(jpeg[:1000]).decode()
    body = json.dumps({"images": [good, broken, "?!", good]})
    response = server.client.post("/v1/classify", content=body, headers=JSON)
    assert response.status_code == 200
    first, second, third, fourth = response.json()["results"]
    assert first == fourth
    assert first["predictions"][0]["label"] == "espresso"
    assert second["status"] == third["status"] == 400
    assert "images[2]" in third["detail"]
