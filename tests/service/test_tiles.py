"""Tiles over every protocol, one server: the same answer everywhere, and refusals with their sentence."""

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor

import bentoml
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from zooserve_client import Client, ZooserveError

from tests.conftest import serving
from zoo.cli import main
from zooserve import load

TILED = {"model": "yolov4_tiny", "tiles": "auto"}


@pytest.fixture(scope="module")
def table(photo, tmp_path_factory):
    """A photo of 1000 x 600 pixels with three small cups, which are not found in it as a whole."""
    small = Image.open(io.BytesIO(photo("coffee"))).convert("RGB").resize((150, 100), Image.Resampling.LANCZOS)
    image = Image.new("RGB", (1000, 600), (124, 130, 118))
    for place in ((30, 40), (320, 180), (800, 450)):
        image.paste(small, place)
    path = tmp_path_factory.mktemp("table") / "table.jpg"
    image.save(path, quality=95)
    return path


@pytest.fixture(scope="module")
def answer(oip, table):
    """What `/v1/detect` answers to the image itself."""
    response = oip.client.post("/v1/detect", params=TILED, content=table.read_bytes())
    assert response.status_code == 200, response.text
    timing = dict(part.split(";dur=") for part in response.headers["server-timing"].split(", "))
    assert all(float(timing[stage]) > 0 for stage in ("decode", "infer", "postprocess"))
    return response.json()


def test_small_cups_are_found_in_tiles_alone(oip, answer, table):
    cups = [each["box"] for each in answer["predictions"] if each["label"] == "cup"]
    expected = [
        [x + 0.28 * 150, y + 0.04 * 100, x + 0.69 * 150, y + 0.73 * 100] for x, y in ((30, 40), (320, 180), (800, 450))
    ]
    assert sorted(cups)[: len(expected)] == [pytest.approx(box, abs=15) for box in expected]
    whole = oip.client.post("/v1/detect", params={"model": "yolov4_tiny"}, content=table.read_bytes()).json()
    assert sum(each["label"] == "cup" for each in whole["predictions"]) < len(expected)
    assert answer["image"] == whole["image"] == {"width": 1000, "height": 600}


def test_several_images_and_one_that_is_none(oip, answer, table):
    data = table.read_bytes()
    parts = [("image", ("a", each, "image/jpeg")) for each in (data, b"no image", data)]
    encoded = {"images": [base64.b64encode(each).decode() for each in (data, b"no image", data)]}
    for response in (
        oip.client.post("/v1/detect", params=TILED, files=parts),
        oip.client.post("/v1/detect", params=TILED, json=encoded),
    ):
        first, bad, last = response.json()["results"]
        assert (first, last) == (answer, answer)
        assert (bad["status"], bad["reason"]) == (415, "not_an_image")


def test_the_answer_is_drawn(oip, answer, table):
    response = oip.client.post("/v1/detect", params=TILED, content=table.read_bytes(), headers={"accept": "image/png"})
    drawn = np.asarray(Image.open(io.BytesIO(response.content)).convert("RGB")).astype(int)
    before = np.asarray(Image.open(table).convert("RGB")).astype(int)
    changed = np.abs(drawn - before).max(axis=2) > 60
    for x0, y0, x1, y1 in (each["box"] for each in answer["predictions"]):
        assert changed[int(y0) - 4 : int(y1) + 4, int(x0) - 4 : int(x1) + 4].any()


def test_bentoml_clients_get_the_same_answer(oip, answer, table):
    with bentoml.SyncHTTPClient(oip.url) as client:
        assert client.detect(image=table, **TILED) == answer
        with pytest.raises(bentoml.exceptions.BentoMLException, match="max_tiles"):
            client.detect(image=table, **TILED, max_tiles=2)


def test_the_open_inference_protocol_over_http(oip, answer, table):
    import tritonclient.http as triton

    given = triton.InferInput("image", [1], "BYTES")
    given.set_data_from_numpy(np.array([table.read_bytes()], object))
    client = triton.InferenceServerClient(oip.url.removeprefix("http://"))
    result = client.infer("yolov4_tiny", [given], parameters={"tiles": "auto"})
    assert json.loads(result.as_numpy("result")[0]) == answer


def test_the_open_inference_protocol_over_grpc(oip, answer, table, triton):
    from tritonclient.utils import InferenceServerException

    client = triton.InferenceServerClient(oip.grpc)
    given = triton.InferInput("image", [2], "BYTES")
    given.set_data_from_numpy(np.array([table.read_bytes()] * 2, object))
    result = client.infer("yolov4_tiny", [given], parameters={"tiles": "auto", "tile_full": True})
    assert [json.loads(each) for each in result.as_numpy("result")] == [answer] * 2
    with pytest.raises(InferenceServerException, match="the output `result` alone"):
        client.infer(
            "yolov4_tiny", [given], parameters={"tiles": "auto"}, outputs=[triton.InferRequestedOutput("boxes")]
        )
    pixels = triton.InferInput("images", [1, 416, 416, 3], "UINT8")
    pixels.set_data_from_numpy(np.zeros((1, 416, 416, 3), np.uint8))
    with pytest.raises(InferenceServerException, match="expected encoded images"):
        client.infer("yolov4_tiny", [pixels], parameters={"tiles": "auto"})


def test_our_client_and_a_model_as_a_function(oip, answer, table, models):
    boxes = [each["box"] for each in answer["predictions"]]
    with Client(oip.url) as client:
        assert client.detect(table, **TILED).boxes == pytest.approx(np.array(boxes), abs=0.01)
        with pytest.raises(ZooserveError, match="`max_tiles` is 3"):
            client.detect(table, **TILED, max_tiles=3)
    here = load("yolov4_tiny", models=models)
    found = here(table, tiles="auto")
    assert found.boxes == pytest.approx(np.array(boxes), abs=0.5)
    with pytest.raises(ValueError, match="`max_tiles` is 3"):
        here(table, tiles="auto", max_tiles=3)


def test_the_command_predict(answer, table, models):
    arguments = ["predict", "yolov4_tiny", str(table), "--json", "--models", str(models)]
    shown = CliRunner().invoke(main, [*arguments, "-o", "tiles=auto"])
    found = json.loads(shown.stdout)["predictions"]
    assert [each["label"] for each in found] == [each["label"] for each in answer["predictions"]]
    refused = CliRunner().invoke(main, [*arguments, "-o", "tiles=auto", "-o", "max_tiles=3"])
    assert refused.exit_code == 1
    assert "`max_tiles` is 3" in refused.stderr


@pytest.mark.parametrize(
    ("task", "given", "said"),
    [
        ("detect", {"tiles": "auto", "max_tiles": "3"}, "has 6 tiles of 416 x 416, and is looked at as a whole"),
        ("detect", {"tiles": "big"}, "`tiles=big`: expected `auto`, or WIDTHxHEIGHT"),
        ("detect", {"tiles": "auto", "merge": "some"}, "expected one of"),
        ("classify", {"tiles": "auto"}, "There is no option `tiles` here."),
    ],
)
def test_what_cannot_be_is_said(oip, table, task, given, said):
    response = oip.client.post(f"/v1/{task}", params=given, content=table.read_bytes())
    assert response.status_code == 422
    assert said in response.json()["detail"]


def test_models_of_pixels_have_no_tiles(server, table):
    response = server.client.post("/v1/segment", params={"tiles": "auto"}, content=table.read_bytes())
    assert response.status_code == 422
    assert "Loaded models that do: none" in response.json()["detail"]


def test_tiles_of_several_requests_share_batches(oip, answer, table, batches):
    runs, rows = batches("yolov4_tiny")
    with ThreadPoolExecutor(2) as pool:
        responses = list(
            pool.map(lambda _: oip.client.post("/v1/detect", params=TILED, content=table.read_bytes()), range(2))
        )
    assert [response.json() for response in responses] == [answer] * 2
    after = batches("yolov4_tiny")
    assert after[1] - rows == 2 * 7, "6 tiles and the whole image, of each"
    assert after[0] - runs < after[1] - rows


def test_images_of_one_request_do_not_fill_the_queue_for_each_other(answer, table, models, tmp_path):
    """Each has 7 places of 8: together they would be refused however often they came."""
    import tritonclient.http as triton

    data, settings = table.read_bytes(), {"ZOOSERVE_MAX_QUEUE": "8", "ZOOSERVE_LOAD": "yolov4_tiny"}
    with serving(tmp_path / "log", ZOOSERVE_MODELS=str(models), ZOOSERVE_WORKERS="1", **settings) as server:
        server.wait(200)
        parts = [("image", ("a", data, "image/jpeg"))] * 3
        assert server.client.post("/v1/detect", params=TILED, files=parts).json()["results"] == [answer] * 3
        given = triton.InferInput("image", [3], "BYTES")
        given.set_data_from_numpy(np.array([data] * 3, object))
        client = triton.InferenceServerClient(server.url.removeprefix("http://"))
        found = client.infer("yolov4_tiny", [given], parameters={"tiles": "auto"}).as_numpy("result")
        assert [json.loads(each) for each in found] == [answer] * 3


def test_a_request_that_comes_too_late_leaves_nothing_behind(oip, answer, table):
    data, headers = table.read_bytes(), {"x-request-timeout-ms": "30"}
    response = oip.client.post("/v1/detect", params=TILED, content=data, headers=headers)
    assert response.status_code in (429, 504), response.text
    whole = oip.client.post("/v1/detect", params=TILED, content=data)
    assert whole.json() == answer
    assert 'zooserve_queue_depth{model="yolov4_tiny"} 0.0' in oip.client.get("/metrics").text
