"""The page in a real Chromium with the keyboard alone, for screen readers, at every width and with enough contrast."""

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.service.http.ui.canvas import COFFEE
from tests.service.http.ui.chromium import answered, drop


def test_everything_works_with_the_keyboard(open_page):
    page = open_page("#yolov4_tiny")
    answered(page)
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            """() => {
                const e = document.activeElement;
                const s = getComputedStyle(e.matches("#models input") ? e.parentElement : e);
                const visible = s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2;
                return [e.id || e.name || e.className || e.tagName, visible];
            }"""
        )
        if focused[0] == "BODY":
            break
        reached.append(focused)
    names = [name for name, _ in reached]
    wanted = ["skip", "tab-try", "help-open", "model", "option-score_threshold", "option-iou_threshold"]
    wanted += ["option-max_detections", "hide", "save", "camera", "open", "thumbnail", "tab-curl", "copy", "code"]
    assert set(wanted) <= set(names), names
    assert [name for name, visible in reached if not visible] == []

    page.keyboard.press("j")
    page.wait_for_function("() => location.hash === '#deeplabv3_mobilenet_v2'")
    answered(page)
    page.keyboard.press("k")
    page.wait_for_function("() => location.hash === '#yolov4_tiny'")
    page.locator("#models input:checked").focus()
    page.keyboard.press("ArrowUp")  # as in any group of radio buttons
    page.wait_for_function("() => location.hash === '#mobilenet_v2'")
    answered(page)
    first = page.locator("#name").inner_text()
    page.locator("#predictions li").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.index") == "1"
    page.keyboard.press("ArrowRight")
    page.wait_for_function("name => !document.getElementById('name').textContent.startsWith(name)", arg=first[:5])
    page.keyboard.press("h")
    assert page.locator("#hide").get_attribute("aria-pressed") == "true"
    page.keyboard.press("?")
    assert page.locator("#shortcuts dt").count() >= 12
    page.keyboard.press("Escape")
    assert page.locator("#help").is_hidden()
    page.keyboard.press("l")
    assert page.locator("#page-live").is_visible()
    page.keyboard.press("t")
    assert page.locator("#page-try").is_visible()
    with page.expect_download() as waiting:
        page.keyboard.press("s")
    assert Image.open(BytesIO(Path(waiting.value.path()).read_bytes())).format == "PNG"


def test_answers_are_announced_to_screen_readers(open_page, server):
    page = open_page("#yolov4_tiny")
    drop(page, COFFEE)
    answered(page, COFFEE.name)
    assert page.locator("#say").text_content() == "cup 90 %, dining table 35 %."
    assert page.locator("#canvas").get_attribute("aria-label") == "coffee.jpg. cup 90 %, dining table 35 %."
    tree = page.locator("body").aria_snapshot()
    for part in (
        'tab "Try" [selected]',
        'radio "yolov4_tiny default" [checked]',
        'slider "Score at least"',
        'img "coffee.jpg.',
    ):
        assert part in tree, tree


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("width", "hash_"), [(360, "#yolov4_tiny"), (360, "#live"), (768, "#mobilenet_v2"), (1280, "#u2netp")]
)
def test_every_width_fits_and_all_text_has_contrast(open_page, scheme, width, hash_):
    page = open_page(hash_, width=width, height=800, color_scheme=scheme, reduced_motion="reduce")
    if hash_ == "#live":
        page.wait_for_function("() => document.querySelectorAll('#live-table tbody tr').length >= 6")
    else:
        answered(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("(Number(getComputedStyle(busy, '::before').animationDuration.replace('s', '')) || 0)") <= 0.9
    poor = page.evaluate(CONTRAST)
    assert poor == []


# WCAG 2.2, 1.4.3: 4.5 to 1. Backgrounds are looked for upwards.
CONTRAST = """() => {
    const rgba = colour => {
        const context = new OffscreenCanvas(1, 1).getContext("2d");
        context.fillStyle = colour;
        context.fillRect(0, 0, 1, 1);
        return [...context.getImageData(0, 0, 1, 1).data];
    };
    const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const ground = e => {
        for (; e; e = e.parentElement) {
            const colour = rgba(getComputedStyle(e).backgroundColor);
            if (colour[3] === 255) return colour;
        }
    };
    const poor = [];
    let count = 0;
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node; node = walker.nextNode();) {
        const e = node.parentElement, text = node.textContent.trim();
        if (!text || !e.checkVisibility() || e.closest(".hidden, .skip, option")) continue;
        count++;
        const [low, high] = [rgba(getComputedStyle(e).color), ground(e)].map(luminance).sort((a, b) => a - b);
        const contrast = (high + 0.05) / (low + 0.05);
        if (contrast < 4.5) poor.push([text, contrast]);
    }
    return count > 30 ? poor : [`only ${count} texts`];
}"""
