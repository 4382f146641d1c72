"""The README's image of the page: `python -m tests.service.http.ui.screenshot docs/ui.png`."""

import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image

from tests.conftest import ROOT, serving
from tests.service.http.ui.chromium import answered, chromium, drop


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "log") as server, chromium() as browser:
        server.wait(200)
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="dark")
        page.goto(f"{server.url}/ui/#yolov4_tiny")
        answered(page)
        drop(page, ROOT / "docs" / "coffee.jpg")
        answered(page, "coffee.jpg")
        page.mouse.move(0, 0)
        page.wait_for_timeout(500)
        image = Image.open(BytesIO(page.screenshot())).convert("RGB")
    palette = image.quantize(256, Image.Quantize.MEDIANCUT, kmeans=3)  # half the size, and hardly another image
    image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
