"""What the running service answers on real photos, through every kind of body and client."""

import base64
import http.server
import io
import pathlib
import pickle
import re
import threading

import bentoml
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

JPEG = {"content-type": "image/jpeg"}


@pytest.fixture(scope="module")
def jpeg(photo):
    def encode(name: str) -> bytes:
        out = io.BytesIO()
        Image.open(io.BytesIO(photo(name))).convert("RGB").save(out, "JPEG", quality=92)
        return out.getvalue()

    return {name: encode(name) for name in ("coffee", "chelsea", "astronaut")}


@pytest.mark.parametrize(
    ("model", "name", "label", "score"),
    [
        ("mobilenet_v2", "chelsea", "Egyptian cat", 0.6),
        ("mobilenet_v2", "coffee", "espresso", 0.95),
        ("efficientnet_lite0", "coffee", "espresso", 0.9),
        ("lenet5", "digit_7", "7", 0.99),
    ],
)
def test_classify_answers_the_expected_class(server, photo, model, name, label, score):
    response = server.client.post("/v1/classify", params={"model": model, "top_k": 3}, content=photo(name))
    assert response.status_code == 200, response.text
    answer = response.json()
    size = dict(zip(("width", "height"), Image.open(io.BytesIO(photo(name))).size, strict=True))
    assert (answer["model"], answer["version"], answer["task"], answer["image"]) == (model, "1", "classify", size)
    assert len(answer["predictions"]) == 3
    assert answer["predictions"][0]["label"] == label
    assert answer["predictions"][0]["score"] >= score


def test_detect_finds_the_cup_at_its_position(server, photo):
    answer = server.client.post("/v1/detect", content=photo("coffee")).json()
    cup = answer["predictions"][0]
    assert (cup["label"], cup["class_id"]) == ("cup", 41)
    assert cup["score"] > 0.85
    # the white rim and the handle, read off the photo by eye, in its own pixels
    assert cup["box"] == pytest.approx([165, 14, 415, 300], abs=15)


@pytest.mark.parametrize(
    ("model", "name", "label", "area"),
    [
        ("deeplabv3_mobilenet_v2", "chelsea", "cat", 0.77),
        ("u2netp", "astronaut", "salient object", 0.55),
    ],
)
def test_all_mask_formats_encode_the_same_mask(server, photo, model, name, label, area):
    width, height = Image.open(io.BytesIO(photo(name))).size
    masks = {}
    for form in ("rle", "png", "polygon", "none"):
        response = server.client.post("/v1/segment", params={"model": model, "mask": form}, content=photo(name))
        first = response.json()["predictions"][0]
        assert first["label"] == label
        assert first["area"] == pytest.approx(area, abs=0.02)
        masks[form] = first.get("mask")
    assert masks["none"] is None
    decoded = coco.decode({"size": masks["rle"]["size"], "counts": masks["rle"]["counts"].encode()})
    assert decoded.shape == (height, width)
    assert decoded.mean() == pytest.approx(area, abs=0.02)
    png = np.asarray(Image.open(io.BytesIO(base64.b64decode(masks["png"]["png"]))))
    assert png.shape == (height, width)
    assert ((png >= 128) == decoded).mean() > 0.999
    outlines = masks["polygon"]["polygons"]
    assert outlines
    assert all(len(line) % 2 == 0 and len(line) >= 6 for line in outlines)
    assert np.max([max(line[::2]) for line in outlines]) <= width


def test_boxes_refer_to_the_image_after_its_exif_orientation(server, photo):
    """A phone stores the image on its side and says so in EXIF."""
    upright = Image.open(io.BytesIO(photo("coffee"))).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    out = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(out, "JPEG", quality=95, exif=exif)
    answer = server.client.post("/v1/detect", content=out.getvalue()).json()
    assert answer["image"] == {"width": 600, "height": 400}
    assert answer["predictions"][0]["label"] == "cup"
    assert answer["predictions"][0]["box"] == pytest.approx([165, 14, 415, 300], abs=15)


def test_every_kind_of_body_gets_the_same_answer(server, jpeg):
    raw = server.client.post("/v1/detect", content=jpeg["coffee"], headers=JPEG).json()
    bodies = {
        "no type": dict(content=jpeg["coffee"]),
        "octets": dict(content=jpeg["coffee"], headers={"content-type": "application/octet-stream"}),
        "multipart": dict(files={"image": ("coffee.jpg", jpeg["coffee"], "image/jpeg")}),
        "json": dict(json={"images": [base64.b64encode(jpeg["coffee"]).decode()]}),
    }
    for name, body in bodies.items():
        assert server.client.post("/v1/detect", **body).json() == raw, name


def test_several_images_are_answered_in_order(server, jpeg):
    files = [("image", jpeg[name]) for name in ("coffee", "chelsea", "coffee")]
    results = server.client.post("/v1/classify", params={"top_k": 1}, files=files).json()["results"]
    assert [r["predictions"][0]["label"] for r in results] == ["espresso", "Egyptian cat", "espresso"]


def test_bentoml_clients_get_the_same_answers(server, jpeg, tmp_path):
    path = tmp_path / "coffee.jpg"
    path.write_bytes(jpeg["coffee"])
    with bentoml.SyncHTTPClient(server.url) as client:
        for task, options in [
            ("classify", {"top_k": 2}),
            ("embed", {"normalize": True}),
            ("detect", {"score_threshold": 0.3}),
            ("segment", {}),
        ]:
            ours = server.client.post(f"/v1/{task}", params=options, content=jpeg["coffee"]).json()
            assert getattr(client, task)(image=path, **options) == ours
            assert getattr(client, task)(image=path, model=None, **options) == ours
        with pytest.raises(bentoml.exceptions.BentoMLException):
            client.classify(image=path, model="vgg99")


def test_bentoml_fetches_no_address_for_a_client(server):
    """Where a file is due, BentoML would fetch an address that a client sends in its place."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

    other = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=other.serve_forever, args=(0.02,), daemon=True).start()
    address = f"http://127.0.0.1:{other.server_port}/image.jpg"
    response = server.client.post("/classify", files={"image": (None, address)})
    other.shutdown()
    assert response.status_code == 400
    assert "not fetched" in response.text
    assert asked == []


def test_the_name_of_a_file_does_not_matter(server, jpeg):
    for name in ("a" * 300 + ".png", "../../x"):
        assert server.client.post("/classify", files={"image": (name, jpeg["coffee"])}).status_code == 200


def test_pickled_objects_from_a_client_are_not_loaded(server, tmp_path):
    """BentoML's services talk to each other in pickles; whoever reads one runs what is in it."""

    class Code:
        def __reduce__(self):
            return pathlib.Path.touch, (tmp_path / "ran",)

    kind = {"content-type": "application/vnd.bentoml+pickle"}
    assert server.client.post("/classify", content=pickle.dumps(Code()), headers=kind).status_code == 415
    assert not (tmp_path / "ran").exists()


def test_swagger_opens_and_describes_the_endpoints(server):
    assert "swagger" in server.client.get("/docs").text.lower()
    paths = server.client.get("/docs.json").json()["paths"]
    assert {"/classify", "/detect", "/segment"} <= paths.keys()


def test_server_timing_names_the_stages_and_they_add_up(server, jpeg):
    shares = []
    for _ in range(5):
        response = server.client.post("/v1/classify", content=jpeg["coffee"])
        stages = dict(re.findall(r"(\w+);dur=([\d.]+)", response.headers["server-timing"]))
        assert list(stages) == ["read", "decode", "queue", "infer", "postprocess", "encode", "total"]
        total = float(stages.pop("total"))
        shares.append(sum(map(float, stages.values())) / total)
    assert max(shares) > 0.95
    assert max(shares) <= 1.001


@pytest.mark.parametrize(("given", "kept"), [("abc-123", True), ("no spaces please", False), ("x" * 200, False)])
def test_a_request_id_is_echoed_or_generated(server, jpeg, given, kept):
    response = server.client.post("/v1/classify", content=jpeg["coffee"], headers={"x-request-id": given})
    assert (response.headers["x-request-id"] == given) is kept
    assert re.fullmatch(r"[\x21-\x7e]{1,128}", response.headers["x-request-id"])


def test_liveness_models_and_model_details_are_reported(server):
    assert server.client.get("/livez").json() == {"alive": True}
    models = {model["name"]: model for model in server.client.get("/v1/models").json()["models"]}
    assert {"lenet5", "mobilenet_v2", "efficientnet_lite0", "yolov4_tiny", "deeplabv3_mobilenet_v2", "u2netp"} <= set(
        models
    )
    details = server.client.get("/v1/models/yolov4_tiny").json()
    assert details["card"]["labels"][41] == "cup"
    assert details["provider"] == "CPUExecutionProvider"
    assert details["profile"]["seconds"]["1"] > 0
    assert server.client.get("/v1/models/nothing").status_code == 404


def test_metrics_have_only_labels_from_closed_sets(server, jpeg):
    server.client.post("/v1/classify", params={"model": "made-up-by-a-client"}, content=jpeg["coffee"])
    server.client.get("/no/such/path")
    text = server.client.get("/metrics").text
    for name in (
        "requests_total",
        "stage_seconds_bucket",
        "batch_size_bucket",
        "queue_depth",
        "rejected_total",
        "model_info",
        "model_ready",
    ):
        assert f"zooserve_{name}" in text
    assert "made-up" not in text
    assert "/no/such" not in text
    assert 'zooserve_rejected_total{model="",reason="unknown_model"}' in text


def test_images_that_failed_among_several_are_counted(server, jpeg):
    """The answer has status 200, so no other metric says it. A client's own mistakes are not counted."""

    def counted(reason: str) -> float:
        name = f'zooserve_rejected_total{{model="mobilenet_v2",reason="{reason}"}} '
        lines = server.client.get("/metrics").text.splitlines()
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    before, wrong_before = counted("deadline"), counted("not_an_image")
    files = [("image", jpeg["coffee"])] * 3
    late = server.client.post("/v1/classify", files=files, headers={"X-Request-Timeout-Ms": "0.001"})
    assert (late.status_code, [each["reason"] for each in late.json()["results"]]) == (200, ["deadline"] * 3)
    assert counted("deadline") == before + 1
    wrong = server.client.post("/v1/classify", files=[("image", b"rubbish")] * 2)
    assert (wrong.status_code, [each["status"] for each in wrong.json()["results"]]) == (200, [415] * 2)
    assert counted("not_an_image") == wrong_before
