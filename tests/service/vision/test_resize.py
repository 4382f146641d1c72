"""Resizing of images to the graph's input by both methods and all recipes, and mapping boxes back to the image."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import onnxruntime as ort
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from service.errors import Reason, RequestError
from service.tasks.detect import to_image_pixels
from service.vision import resize
from service.vision.decode import EncodedImage
from service.vision.geometry import Span, view
from service.vision.resize import prepare
from zoo.card import Recipe
from zoo.recipe import apply_exact, placement
from zoo.store import Store

RECIPES = {
    "crop": Recipe(224, 224, "crop", 256),
    "crop, bicubic": Recipe(224, 224, "crop", 256, "bicubic"),
    "crop, oblong": Recipe(96, 200, "crop", 200),
    "letterbox": Recipe(416, 416, "letterbox"),
    "letterbox, oblong": Recipe(200, 320, "letterbox", pad=(1, 2, 3)),
    "letterbox, top left": Recipe(416, 416, "letterbox_top_left"),
    "stretch": Recipe(257, 257, "stretch"),
    "stretch, bicubic": Recipe(100, 300, "stretch", interpolation="bicubic"),
    "stretch, lanczos": Recipe(320, 320, "stretch", interpolation="lanczos"),
    "letterbox, opencv": Recipe(320, 320, "letterbox", resampling="opencv", odd_padding="after"),
    "letterbox, torch": Recipe(320, 320, "letterbox_top_left", resampling="torch", rounding="floor"),
    "stretch, darknet": Recipe(208, 208, "stretch", resampling="darknet"),
}
EVERY_RECIPE = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
SAMPLES = ["astronaut", "chelsea", "coffee", "rocket", "china", "flower"]


@pytest.fixture
def simd():
    if resize.simd is None:
        pytest.skip("cykooz-resizer has no wheel here")


@EVERY_RECIPE
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_exact_pixels_equal_the_recipe(open_image, encoded, recipe, form):
    data = encoded(open_image("china"), form)
    pixels, where = prepare(data, recipe, exact=True)
    assert np.array_equal(pixels, apply_exact(recipe, EncodedImage(data).image()))
    assert where == placement(recipe, 640, 427)._replace(lanczos=recipe.interpolation == "lanczos")


@pytest.mark.usefixtures("simd")
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_an_image_of_the_inputs_size_is_copied(open_image, encoded, interpolation, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(open_image("china").resize((64, 48)), "PNG", exif=exif)
    image = EncodedImage(data)
    recipe = Recipe(image.height, image.width, "stretch", interpolation=interpolation)
    pixels, _ = prepare(data, recipe, exact=False)
    assert np.array_equal(pixels, np.asarray(image.image()))


@pytest.mark.usefixtures("simd")
@EVERY_RECIPE
@pytest.mark.parametrize("size", [(97, 61), (224, 224), (256, 341), (640, 427), (427, 640), (1300, 500), (500, 1300)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_fast_pixels_differ_from_exact_by_rounding_only(open_image, encoded, recipe, size, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(open_image("china").resize(size), "JPEG", exif=exif)
    exact, fast = (prepare(data, recipe, exact=way)[0].astype(int) for way in (True, False))
    assert np.abs(exact - fast).max() <= 2
    assert (exact != fast).mean() < 0.01
    assert (np.abs(exact - fast) == 2).mean() < 1e-4


@pytest.mark.usefixtures("simd")
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("resize", ["crop", "letterbox", "letterbox_top_left", "stretch"])
def test_fast_applies_orientation_like_exact(open_image, encoded, orientation, form, resize):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(open_image("coffee").resize((300, 180)), form, exif=exif)
    recipe = Recipe(128, 128, resize, 140 if resize == "crop" else None)
    (exact, one), (fast, other) = (prepare(data, recipe, exact=way) for way in (True, False))
    assert one == other
    assert np.abs(exact.astype(int) - fast).max() <= 1


@pytest.mark.usefixtures("simd")
@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "I;16"])
def test_fast_converts_colours_like_exact(open_image, encoded, mode):
    """`fast` converts Pillow's images band by band."""
    small = open_image("coffee").resize((400, 300))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(small.convert("L")).astype(np.uint16) * 257)
    else:
        image = small.quantize(32) if mode == "P" else small.convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(small.convert("L"))
    data = encoded(image, "PNG")
    exact, fast = (prepare(data, RECIPES["letterbox"], exact=way)[0].astype(int) for way in (True, False))
    assert np.abs(exact - fast).max() <= 2
    assert (exact != fast).mean() < 0.01


@pytest.mark.usefixtures("simd")
@pytest.mark.parametrize("orientation", [1, 6])
def test_resampling_in_bands_equals_resampling_at_once(open_image, encoded, orientation, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(open_image("rocket"), "JPEG", exif=exif)
    for recipe in RECIPES.values():
        whole = prepare(data, recipe, exact=False)[0]
        with monkeypatch.context() as patch:
            patch.setattr(resize, "_BAND", 20_000)
            assert np.array_equal(prepare(data, recipe, exact=False)[0], whole)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (2, 3), (7, 1000), (28, 28)])
@EVERY_RECIPE
def test_images_of_extreme_aspect_ratio_are_resized(encoded, recipe, size, exact):
    noise = np.random.default_rng(size).normal(128, 60, (size[1], size[0], 1)).clip(0, 255)
    data = encoded(Image.fromarray(noise.repeat(3, axis=2).astype(np.uint8)), "PNG")
    start = time.perf_counter()
    pixels, where = prepare(data, recipe, exact=exact)
    assert time.perf_counter() - start < 10
    assert pixels.shape == (recipe.height, recipe.width, 3)
    assert (where.width, where.height) == size
    # Of a strip, the exact recipe resamples only a part, and Pillow then begins along the other axis: on noise, bicubic
    # values are clipped at other places in between.
    assert np.abs(pixels.astype(int) - prepare(data, recipe, exact=True)[0]).max() <= 8


def test_without_simd_fast_is_exact(open_image, encoded, monkeypatch):
    monkeypatch.setattr(resize, "simd", None)
    data = encoded(open_image("flower"), "JPEG")
    for recipe in RECIPES.values():
        assert np.array_equal(*(prepare(data, recipe, exact=way)[0] for way in (True, False)))


@pytest.mark.parametrize("exact", [True, False])
def test_a_row_of_a_batch_is_written_in_place(open_image, encoded, exact):
    batch = np.full((3, 416, 416, 3), 7, np.uint8)
    data = encoded(open_image("flower"), "JPEG")
    pixels, _ = prepare(data, RECIPES["letterbox"], exact=exact, out=batch[1])
    assert np.shares_memory(pixels, batch)
    assert np.array_equal(batch[1], prepare(data, RECIPES["letterbox"], exact=exact)[0])
    assert (batch[[0, 2]] == 7).all()


@pytest.mark.parametrize("exact", [True, False])
def test_large_images_are_refused(encoded, exact):
    with pytest.raises(RequestError) as caught:
        prepare(encoded(Image.new("RGB", (400, 300)), "PNG"), RECIPES["crop"], exact=exact, max_pixels=119_999)
    assert caught.value.reason is Reason.TOO_LARGE


@pytest.fixture(scope="module")
def rectangle(encoded):
    """An image of a size and an orientation with a white rectangle: a PNG, and x0, y0, x1, y1 where it is upright."""

    @cache
    def make(size: tuple[int, int], orientation: int) -> tuple[bytes, list[int]]:
        width, height = size
        box = (width // 2 - 50, height // 2 - 40, width // 2 + 40, height // 2 + 56)
        image = Image.new("RGB", size, "black")
        ImageDraw.Draw(image).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill="white")
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(image, "PNG", exif=exif)
        upright = np.argwhere(np.asarray(EncodedImage(data).image())[:, :, 0])
        (y0, x0), (y1, x1) = upright.min(axis=0), upright.max(axis=0) + 1
        return data, [x0, y0, x1, y1]

    return make


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(640, 480), (300, 900)])
@EVERY_RECIPE
def test_a_box_is_mapped_back_to_the_image(rectangle, recipe, size, orientation, exact):
    """A rectangle in the stored image is found in the input, and mapped back to pixels of the upright image."""
    data, upright = rectangle(size, orientation)
    pixels, where = prepare(data, recipe, exact=exact)
    rows, columns = np.nonzero(pixels[:, :, 0] == 0), np.nonzero(pixels[:, :, 0] >= 128)
    assert rows[0].size
    found = np.array([[columns[1].min(), columns[0].min(), columns[1].max() + 1, columns[0].max() + 1]], np.float32)
    tolerance = 1.0 + 0.51 / min(where.scale_x, where.scale_y)
    assert to_image_pixels(found, where)[0] == pytest.approx(upright, abs=tolerance)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.integers(1, 700),
    st.integers(1, 700),
    st.sampled_from("cslt"),
    st.data(),
)
def test_the_view_fits_the_image_and_the_input(width, height, w, h, kind, data):
    short = data.draw(st.integers(max(w, h), 1000)) if kind == "c" else None
    recipe = Recipe(h, w, {"c": "crop", "s": "stretch", "l": "letterbox", "t": "letterbox_top_left"}[kind], short)
    where = placement(recipe, width, height)
    seen = view(where, w, h)
    for side, length, first, span, scale, offset in (
        (width, w, seen.left, seen.x, where.scale_x, where.offset_x),
        (height, h, seen.top, seen.y, where.scale_y, where.offset_y),
    ):
        assert 0 <= span.start < span.end <= side
        assert 0 <= first < first + span.length <= length
        assert kind in "lt" or span.length == length
        assert span.start * scale + offset == pytest.approx(first, abs=1e-6)
        assert span.end * scale + offset == pytest.approx(first + span.length, abs=1e-6)


def test_parts_of_a_span_are_adjacent():
    span = Span(3.5, 103.5, 40)
    parts = [span.part(0, 7), span.part(7, 30), span.part(30, 40)]
    assert [part.length for part in parts] == [7, 23, 10]
    assert [part.end for part in parts[:-1]] == pytest.approx([part.start for part in parts[1:]])
    assert span.mirrored(110) == Span(6.5, 106.5, 40)
    assert Span(3.5, 103.5, 40).reach(1.0, 104) == (1, 104)


@pytest.fixture(scope="module")
def mobilenet(models):
    """mobilenet_v2's probabilities for a batch of inputs, and its recipe."""
    entry = Store(models).latest("mobilenet_v2")
    session = ort.InferenceSession(entry.path / "model.onnx", providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(["probabilities"], {"images": np.stack(inputs)})[0], entry.card.recipe


@pytest.mark.parametrize("name", SAMPLES)
def test_fast_pixels_give_the_same_answers(open_image, encoded, mobilenet, name):
    """No probability moves by 0.02, and the best class stays."""
    run, recipe = mobilenet
    inputs = []
    for size in ((200, 150), (640, 480), (1024, 683), (1920, 1080), (4000, 3000)):
        data = encoded(open_image(name).resize(size, Image.Resampling.LANCZOS), "JPEG", quality=90)
        inputs += [prepare(data, recipe, exact=way)[0] for way in (True, False)]
    probabilities = run(inputs)
    exact, fast = probabilities[::2], probabilities[1::2]
    assert np.abs(exact - fast).max() < 0.02
    assert (exact.argmax(axis=1) == fast.argmax(axis=1)).all()


@pytest.mark.usefixtures("simd")
@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
def test_memory_is_bounded_by_the_decoded_image(encoded, form):
    """While an image of 24 megapixels is prepared. All memory is freed afterwards."""
    data = encoded(Image.new("RGB", (6000, 4000), "teal"), form)
    prepare(data, RECIPES["crop"], exact=False)
    process, peak = psutil.Process(), 0
    before = process.memory_info().rss
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(prepare, data, RECIPES["crop"], exact=False)
        while not job.done():
            peak = max(peak, process.memory_info().rss - before)
    decoded = 6000 * 4000 * (3 if form == "JPEG" else 4)
    assert peak < decoded + (24 << 20)
    assert process.memory_info().rss - before < 16 << 20


def test_threads_do_not_disturb_one_another(open_image, encoded):
    work = [
        (encoded(open_image(name), form), recipe)
        for name in SAMPLES[4:]  # the smallest
        for form in ("JPEG", "PNG")
        for recipe in RECIPES.values()
    ]
    expected = [prepare(data, recipe, exact=False)[0] for data, recipe in work]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda job: prepare(*job, exact=False)[0], work * 2)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected * 2, strict=True))
