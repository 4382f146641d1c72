"""Where the best class is in the image, through the running service, on real photos."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from service.models.selftest import iou


def ask(server, photo, name, **options):
    response = server.client.post("/v1/classify", params=options, content=photo(name))
    assert response.status_code == 200, response.text
    return response.json()["predictions"]


@pytest.mark.parametrize("model", ["mobilenet_v2", "efficientnet_lite0"])
def test_the_box_of_the_espresso_overlaps_the_detected_cup(server, photo, model):
    cup = server.client.post("/v1/detect", content=photo("coffee")).json()["predictions"][0]
    best, *others = ask(server, photo, "coffee", model=model, localize="true", top_k=3)
    assert (cup["label"], best["label"]) == ("cup", "espresso")
    assert iou(best["box"], cup["box"]) > 0.5
    assert "heatmap" not in best
    assert all(other.keys() == {"class_id", "label", "score"} for other in others)


def test_the_box_of_a_cat_that_fills_the_image_is_large(server, photo):
    best = ask(server, photo, "chelsea", localize="true")[0]
    width, height = Image.open(io.BytesIO(photo("chelsea"))).size
    assert iou(best["box"], (0, 0, width, height)) > 0.45  # the crop shows no more than 51 % of it


def test_the_heat_map_has_the_size_of_the_image(server, photo):
    best = ask(server, photo, "coffee", model="mobilenet_v2", localize="true", heatmap="true")[0]
    heat = Image.open(io.BytesIO(base64.b64decode(best["heatmap"]["png"])))
    assert (heat.mode, heat.size) == ("L", (600, 400))
    pixels = np.asarray(heat)
    y, x = np.unravel_index(pixels.argmax(), pixels.shape)
    assert 200 < x < 380  # the coffee in the cup
    assert 70 < y < 220
    assert pixels.max() >= 250
    assert not pixels[:, :50].any()  # cut off by the crop
    x0, y0, x1, y1 = (round(edge) for edge in best["box"])
    assert pixels[y0:y1, x0:x1].sum() > 0.9 * pixels.sum()
    alone = ask(server, photo, "coffee", model="mobilenet_v2", heatmap="true")[0]
    assert alone["heatmap"] == best["heatmap"]
    assert "box" not in alone


def test_answers_are_unchanged_without_the_options(server, photo):
    plain = ask(server, photo, "coffee", model="mobilenet_v2")
    asked = ask(server, photo, "coffee", model="mobilenet_v2", localize="true", heatmap="true")
    assert plain == [{key: one[key] for key in ("class_id", "label", "score")} for one in asked]
    refused = ask(server, photo, "coffee", model="mobilenet_v2", localize="false", heatmap="false")
    assert refused == plain


@pytest.mark.parametrize("options", [{"localize": "true"}, {"heatmap": "true"}])
def test_the_error_names_the_models_that_support_it(server, photo, options):
    response = server.client.post("/v1/classify", params={"model": "lenet5"} | options, content=photo("digit_7"))
    assert (response.status_code, response.json()["reason"]) == (422, "bad_option")
    detail = response.json()["detail"]
    assert detail.startswith("`lenet5` does not support `localize` and `heatmap`")
    assert "Loaded models that do:" in detail
    assert "`mobilenet_v2`" in detail
    assert "`lenet5`" not in detail.partition("Loaded")[2]


def test_an_invalid_value_is_named_in_the_error(server, photo):
    response = server.client.post("/v1/classify", params={"localize": "perhaps"}, content=photo("coffee"))
    assert response.status_code == 422
    assert "`localize=perhaps`: expected `true` or `false`." in response.json()["detail"]


def test_the_bentoml_endpoint_accepts_the_options(server, photo):
    files = {"image": ("coffee.png", photo("coffee"), "image/png")}
    answer = server.client.post("/classify", files=files, data={"localize": "true", "top_k": "1"}).json()
    assert answer["predictions"] == ask(server, photo, "coffee", localize="true", top_k=1)
