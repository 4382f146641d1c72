"""Graphs with a recipe and without a task: an encoded image in; an image, or numbers, out."""

import io
import json

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from export.training.roads import roads
from zoo import catalog
from zoo.recipe import apply_exact, placement

PNG = {"Accept": "image/png"}
SIDE = 384


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.convert("RGB").save(out, form)
    return out.getvalue()


@pytest.fixture(scope="module")
def photos() -> list[bytes]:
    return [catalog.sample(name).read_bytes() for name in ("coffee", "chelsea", "rocket")]


@pytest.fixture(scope="module")
def painted(course):
    """What ONNX Runtime itself answers to a photo: the part of the square in which it lies, uint8 [h, w, 3]."""
    (entry,) = [entry for entry in course.store.entries() if entry.name == "style_tissue"]
    session = onnxruntime.InferenceSession(entry.path / "model.onnx")

    def paint(data: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        recipe = entry.card.recipe
        (answer,) = session.run(["image"], {"images": apply_exact(recipe, image)[None]})
        where = placement(recipe, *image.size)
        top, left = round(where.offset_y), round(where.offset_x)
        height, width = round(image.height * where.scale_y), round(image.width * where.scale_x)
        return answer[0, top : top + height, left : left + width]

    return paint


def infer(course, name: str, content: bytes, **headers):
    return course.client.post(f"/v2/models/{name}/infer", content=content, headers=headers)


def several(images: list[bytes], *outputs: str) -> tuple[bytes, dict[str, str]]:
    """A request with images as raw bytes after its JSON, and its headers."""
    raw = b"".join(len(image).to_bytes(4, "little") + image for image in images)
    parameters = {"binary_data_size": len(raw)}
    asked = {
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [len(images)], "parameters": parameters}],
        "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in outputs],
    }
    head = json.dumps(asked).encode()
    return head + raw, {"Inference-Header-Content-Length": str(len(head))}


def images_in(response) -> list[np.ndarray]:
    """The images of an answer whose only output is `png`, as raw bytes."""
    assert response.status_code == 200, response.text
    raw, found = response.content[int(response.headers["Inference-Header-Content-Length"]) :], []
    while raw:
        size = int.from_bytes(raw[:4], "little")
        found.append(np.asarray(Image.open(io.BytesIO(raw[4 : 4 + size]))))
        raw = raw[4 + size :]
    return found


def near(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and np.abs(one.astype(int) - other).max() <= 1  # levels are rounded


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg"])
def test_an_image_is_answered_with_an_image(course, photos, painted, kind):
    data = photos[0] if kind == "image/png" else encoded(Image.open(io.BytesIO(photos[0])), "JPEG")
    response = infer(course, "style_tissue", data, **{"Content-Type": kind}, **PNG)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    assert "infer;dur=" in response.headers["server-timing"]
    image = np.asarray(Image.open(io.BytesIO(response.content)))
    assert image.shape == (256, SIDE, 3)
    assert near(image, painted(data))


def test_images_together_are_answered_as_alone(course, photos, painted):
    content, headers = several(photos, "png")
    for image, photo in zip(images_in(infer(course, "style_tissue", content, **headers)), photos, strict=True):
        assert near(image, painted(photo))


def test_the_graphs_own_output_is_there_too(course, photos):
    content, headers = several(photos[:1], "image")
    response = infer(course, "style_tissue", content, **headers)
    head = json.loads(response.content[: int(response.headers["Inference-Header-Content-Length"])])
    assert head["outputs"][0]["shape"] == [1, SIDE, SIDE, 3]
    assert head["outputs"][0]["datatype"] == "UINT8"


def test_an_image_may_be_answered_with_numbers(course):
    images, angles = roads(8, seed=11)
    for image, angle in zip(images, angles, strict=True):
        (output,) = infer(course, "steering", encoded(Image.fromarray(image)), **{"Content-Type": "image/png"}).json()[
            "outputs"
        ]
        assert (output["name"], output["shape"]) == ("angle", [1, 1])
        assert output["data"][0] == pytest.approx(angle, abs=1)  # degrees
    pixels = {"name": "images", "datatype": "UINT8", "shape": list(images.shape), "data": images.ravel().tolist()}
    (together,) = course.client.post("/v2/models/steering/infer", json={"inputs": [pixels]}).json()["outputs"]
    assert together["data"][-1] == pytest.approx(output["data"][0], abs=1e-4)


def test_metadata_names_the_encoded_image(course):
    style, steering, letters = (
        course.client.get(f"/v2/models/{name}").json() for name in ("style_tissue", "steering", "char_lstm")
    )
    assert [x["name"] for x in style["inputs"]] == ["images", "image"]
    assert [x["name"] for x in style["outputs"]] == ["image", "png"]
    assert [x["name"] for x in steering["outputs"]] == ["angle"]
    assert [x["name"] for x in letters["inputs"]] == ["characters", "state"]


AS_PNG = {"Content-Type": "image/png"}


@pytest.mark.parametrize(
    ("kind", "accept", "status"),
    [
        ("IMAGE/PNG", "image/png", 200),
        ("image/png; charset=binary", "image/avif,image/webp,image/png,*/*;q=0.5", 200),
        ("image/png", "image/*", 200),
        ("image/png", "image/jpeg", 406),
    ],
)
def test_types_are_compared_as_over_v1(course, photos, kind, accept, status):
    response = infer(course, "style_tissue", photos[0], **{"Content-Type": kind, "Accept": accept})
    assert response.status_code == status, response.text
    assert status != 200 or response.headers["content-type"] == "image/png"


def test_an_option_in_the_address_is_not_ignored(course, photos):
    response = course.client.post("/v2/models/steering/infer?top_k=1", content=photos[0], headers=AS_PNG)
    assert response.status_code == 400
    assert "`?top_k=1`: there are no options in the address" in response.json()["error"]


@pytest.mark.parametrize(
    ("name", "content", "headers", "message"),
    [
        ("style_tissue", b"no image", AS_PNG, "`png` is no text: send `Accept: image/png`"),  # before it is computed
        ("style_tissue", *several([b"no image"]), "`png` is no text"),
        ("style_tissue", b"no image", AS_PNG | PNG, "not an image"),
        ("style_tissue", b"", AS_PNG | PNG, "image"),
        ("steering", encoded(Image.new("RGB", (9, 9))), AS_PNG | PNG, "no output `png`; expected `angle`"),
        ("char_lstm", encoded(Image.new("RGB", (9, 9))), AS_PNG, "no input `image`; expected `characters`, `state`"),
        (
            "style_tissue",
            *several([encoded(Image.new("RGB", (9, 9)))] * 2, "png"),
            "answers one image, and 2 were sent",
        ),
    ],
)
def test_bad_requests_are_refused_and_harm_nothing(course, photos, name, content, headers, message):
    if "2 were sent" in message:
        headers = headers | PNG
    response = infer(course, name, content, **headers)
    assert response.status_code == (406 if "2 were sent" in message else 400)
    assert message in response.json()["error"]
    assert infer(course, "style_tissue", photos[0], **AS_PNG, **PNG).status_code == 200


def test_a_task_is_not_asked_of_it(course, photos):
    response = course.client.post("/v1/classify?model=style_tissue", content=photos[0])
    assert response.status_code == 422
    assert "POST /v2/models/style_tissue/infer" in response.json()["detail"]
