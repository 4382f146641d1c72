"""What is drawn on the page's canvas, the answer of the server to compare it with, and the page's sliders."""

from pathlib import Path

from tests.conftest import ROOT

COFFEE = ROOT / "docs" / "coffee.jpg"


def ask(server, task: str, photo: Path, **query) -> dict:
    return server.client.post(f"/v1/{task}", params=query, content=photo.read_bytes()).json()


def pixels(page, points: list[tuple[float, ...]], size: dict) -> list[list[int]]:
    """RGB of the canvas at points (x, y) in pixels of the image; (x, y, 1, 0) is just right of it, and so on."""
    return page.evaluate(
        """([points, size]) => {
            const canvas = document.getElementById("canvas"), {width, height} = canvas;
            const context = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true});
            context.drawImage(canvas, 0, 0);
            return points.map(([x, y, right = 0, down = 0]) => [...context.getImageData(
                Math.floor(x * width / size.width + 1.25 * right),
                Math.floor(y * height / size.height + 1.25 * down), 1, 1).data].slice(0, 3));
        }""",
        [points, size],
    )


def colour_of(page, prediction: dict, index: int) -> list[int]:
    return page.evaluate(
        "([p, i]) => import('./palette.js').then(m => m.channels(m.colourOf(p, i)))", [prediction, index]
    )


def near(one, other, by=40) -> bool:
    return all(abs(a - b) <= by for a, b in zip(one, other, strict=True))


def slide(page, name: str, value: float) -> None:
    page.locator(f"#option-{name}").fill(str(value))
