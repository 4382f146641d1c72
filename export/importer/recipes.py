"""The size of an ONNX file's input, and how an image becomes it. Called by `export.importer.draft`."""

from export.importer.beside import Beside
from export.importer.graph import Graph
from export.importer.options import ImportOptions
from export.ultralytics.selection import prepared
from zoo.card import Recipe, Task
from zoo.errors import ExportError


def choose_size(graph: Graph, stated: ImportOptions, beside: Beside) -> tuple[tuple[int, int], str]:
    """Return height and width of the input, in pixels, and how they are known.

    Raises:
        ExportError: they are stated otherwise than the file has them, or nowhere.
    """
    built_in = (graph.height, graph.width)
    noted = graph.notes.size
    if stated.size is not None:
        if any(own not in {None, asked} for own, asked in zip(built_in, stated.size, strict=True)):
            raise ExportError(
                f"{graph.path}: its input is {graph.width} x {graph.height} pixels, so --size cannot be "
                f"{stated.size[1]}x{stated.size[0]}: leave it out"
            )
        return stated.size, "given"
    if graph.height is not None and graph.width is not None:
        return (graph.height, graph.width), "the file"
    if noted is not None:
        return noted, "the file's note `imgsz`"
    if beside.size is not None:
        return beside.size, beside.known_from
    raise ExportError(
        f"{graph.path}: takes images of any size, but a served graph has one: say which it was trained for, "
        "such as --size 224 or --size 640x384 (width x height)"
    )


def choose_recipe(
    graph: Graph, stated: ImportOptions, beside: Beside, task: Task, height: int, width: int
) -> tuple[Recipe, str]:
    """Return how an image becomes an input of `height` x `width` pixels, and how that is known."""
    interpolation = beside.interpolation or "bilinear"
    if stated.resize is None and beside.resize is not None and beside.size == (height, width):
        how = {"short_side": beside.short_side, "odd_padding": beside.odd_padding, "interpolation": interpolation}
        return Recipe(height, width, beside.resize, **how), beside.known_from  # type: ignore[arg-type]
    usual = {"classify": "crop", "segment": "stretch"}.get(task, "letterbox")
    if task == "segment" and graph.notes.of_ultralytics:
        usual = "letterbox"
    if graph.notes.rt_detr:
        usual = "stretch"
    resize, short_side = stated.resize or usual, None
    if resize == "crop":
        short_side = max(height, width) if graph.notes.of_ultralytics else round(max(height, width) / 0.875)
    known = "given" if stated.resize else f"assumed: usual for {'RT-DETR' if graph.notes.rt_detr else task}"
    recipe = Recipe(height, width, resize, short_side=short_side, interpolation=interpolation)  # type: ignore[arg-type]
    return prepared(recipe) if graph.notes.of_ultralytics else recipe, known


def yolox_recipe(height: int, width: int) -> Recipe:
    """Return how YOLOX's own code makes an input of `height` x `width` pixels of an image."""
    return Recipe(height, width, "letterbox_top_left", resampling="opencv", rounding="floor", one_scale=True)
