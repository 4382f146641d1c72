"""What is wrong with an answer, as far as one can tell without knowing the image."""

from typing import Any


def wrong(about: str, body: dict[str, Any]) -> str:
    """Say what is wrong with the answer to a task, by its own numbers; nothing where it may be right."""
    if body.get("task") != about:
        return f"an answer of {body.get('task')}"
    found = body.get("predictions", [])
    if about == "classify":
        return "" if 1 <= len(found) <= 5 else f"{len(found)} classes where up to 5 are the default"
    if about == "detect":
        size = body.get("image", {"width": 0, "height": 0})
        outside = [p for p in found if p["box"][2] > size["width"] or p["box"][3] > size["height"]]
        return f"boxes beyond the image: {outside}" if outside else ""
    bare = [p for p in found if not p.get("mask")]
    return f"predictions without a mask: {bare}" if bare else ""
